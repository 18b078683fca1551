"""The server's clock: it may be off, and every answer's ``Date`` follows it."""

from __future__ import annotations

from email.utils import formatdate
from typing import TYPE_CHECKING

from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._answers import Headers


@define
class ServerClock:
    """Seconds since the epoch as the server sees them.

    Attributes:
        unshifted_s: Returns the seconds since the epoch.
        offset_s: Seconds by which the server is ahead of that; negative if it is behind.
        date_header: Whether answers carry a ``Date``.
    """

    unshifted_s: Callable[[], float]
    offset_s: float = 0.0
    date_header: bool = True
    _second: int | None = field(default=None, init=False)
    _headers: Headers = field(default=(), init=False)

    def now_s(self) -> float:
        """Return the server's time."""
        return self.unshifted_s() + self.offset_s

    def date(self) -> Headers:
        """Return the ``Date`` header of an answer that is sent now; nothing where answers carry none."""
        if not self.date_header:
            return ()
        second = int(self.now_s())
        if second != self._second:  # formatting takes ten times as long as the comparison
            self._second = second
            self._headers = ((b"date", formatdate(second, usegmt=True).encode()),)
        return self._headers

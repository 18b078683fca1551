"""The server's clock: it may be off, and every answer's ``Date`` follows it."""

from __future__ import annotations

from email.utils import formatdate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._answers import Headers


class ServerClock:
    """Seconds since the epoch as the server sees them.

    Attributes:
        offset_s: Seconds by which the server is ahead of ``clock``; negative if it is behind.
        date_header: Whether answers carry a ``Date``.
    """

    def __init__(self, clock: Callable[[], float], *, offset_s: float, date_header: bool) -> None:
        self.unshifted_s = clock
        self.offset_s = offset_s
        self.date_header = date_header
        self._second: int | None = None
        self._headers: Headers = ()

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

"""How many requests are in flight at once."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from attrs import field, frozen

from ._checks import at_least
from ._errors import ConfigurationError

if TYPE_CHECKING:
    from types import TracebackType


@frozen(kw_only=True)
class ConcurrencyLimit:
    """Bounds on the requests that one client has in flight.

    Attributes:
        minimum: Never fewer than this are allowed.
        maximum: Never more than this are allowed.
        initial: How many are allowed at the start; by default 64, moved into the bounds.

    This version keeps the limit at ``initial``; a later one moves it within the bounds.

    Raises:
        ConfigurationError: The bounds contradict each other.
    """

    minimum: int = field(default=1, validator=at_least(1))
    maximum: int = field(default=256, validator=at_least(1))
    initial: int = field(validator=at_least(1))

    @initial.default
    def _default_initial(self) -> int:
        return max(self.minimum, min(64, self.maximum))

    def __attrs_post_init__(self) -> None:
        if not self.minimum <= self.initial <= self.maximum:
            raise ConfigurationError(
                f"minimum <= initial <= maximum must hold, not {self.minimum} <= {self.initial} <= {self.maximum}"
            )


class Limiter:
    """Slots for requests in flight, handed out in the order of asking; ``async with`` takes one."""

    def __init__(self, limit: ConcurrencyLimit) -> None:
        self.limit = limit.initial
        self.in_flight = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        # A slot that is given back goes to a waiter at once, so a free one means that nobody waits.
        if self.in_flight < self.limit:
            self.in_flight += 1
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():
                self._release()  # the slot was handed over in the same moment
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._release()

    def _release(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)  # the slot changes hands, so nobody can come between
                return
        self.in_flight -= 1

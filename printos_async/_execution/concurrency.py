"""Concurrency limit: bounds the requests in flight."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from itertools import count
from typing import TYPE_CHECKING

from attrs import field, frozen

from printos_async._common.checks import at_least
from printos_async._errors import (
    APIError,
    ConfigurationError,
    RequestTimeoutError,
    StatusError,
    TransportError,
)

from .adaptive_limit import Aimd

if TYPE_CHECKING:
    from collections.abc import Callable

    from .adaptive_limit import Reason

# A request is overdue once it has lasted this long, and this many times the moving average of latency.
OVERDUE_S = 0.25
OVERDUE_FACTOR = 10.0
# How often the oldest request in flight is looked at: a timer for each of them would cost more than the rest of the limiter.
_TICK_S = 0.0625
# 504 is a timeout too, only a gateway's.
_OVERLOAD_STATUSES = frozenset({429, 503, 504})


@frozen(kw_only=True)
class ConcurrencyLimit:
    """Bounds on the requests that one client has in flight.

    Within the bounds the limit adapts to the server. It rises by one per round-trip while it is reached and latency is
    steady. It falls by a tenth when the server answers 429, 503 or 504, does not answer in time, or slows down. If a
    request lasts ten times as long as usual, and at least a quarter of a second, it counts only against ``maximum``,
    not against the limit. With ``minimum`` equal to ``maximum`` the limit is fixed, and every request counts.

    Attributes:
        minimum: The limit never falls below this. By default 1: an overloaded server receives one request at a time,
            besides those that it leaves without an answer.
        maximum: The limit never rises above this. By default 256: at 100 ms this allows 2,560 statuses a second, one
            and a half times the rate of 100,000 devices with one status a minute. A common limit of open files is
            1,024.
        initial: The limit at the start. By default 64, or the nearest bound. This sends the statuses of a whole print
            shop (up to 50 devices) in one round-trip, and is less than the 100 concurrent streams that RFC 9113 asks
            every HTTP/2 server to allow.

    Raises:
        ConfigurationError: The bounds contradict each other.

    Source: the rule is Vector's Adaptive Request Concurrency; see ``docs/tuning.md``.
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
    """Permits for requests in flight, granted in the order of asking.

    Cancelling while waiting leaves the queue, and releases a permit that was granted in the same moment.

    A request that lasts much longer than usual is overdue: its permit passes to another request before it ends, so
    that a few that hang do not hold up the rest where the limit is low. Where the limit is fixed no request is overdue.

    Attributes:
        limit: How many permits there are now; only this class sets it.
        in_flight: How many are taken. More than ``limit`` for a while after it has shrunk.
        overdue: How many requests go on without a permit; with ``in_flight`` never more than ``maximum``.
        maximum: The highest that ``limit`` becomes.
        on_change: Called after each change of ``limit`` with the old one, the new one and the reason. Must not
            raise: what it raises comes out of the attempt that moved the limit.
        on_free: Called when an overdue request has given up its permit and nobody waits for one.
    """

    def __init__(
        self,
        limit: ConcurrencyLimit,
        *,
        on_change: Callable[[int, int, Reason], object] = lambda *_: None,
        on_free: Callable[[], object] = lambda: None,
    ) -> None:
        self.limit = limit.initial
        self.in_flight = 0
        self.overdue = 0
        self.maximum = limit.maximum
        self.on_change = on_change
        self.on_free = on_free
        self._aimd: Aimd | None = None
        if limit.minimum < limit.maximum:
            self._aimd = Aimd(minimum=limit.minimum, maximum=limit.maximum, initial=limit.initial)
        # How many may be taken: fewer than the limit where overdue requests come near the maximum.
        self._room = self.limit
        self._began: dict[int, int] = {}  # the tick at which each request in flight began, oldest first
        self._numbers = count(1)
        self._ticks = 0
        self._ticker: asyncio.TimerHandle | None = None
        self._in_a_row = 0  # permits that overdue requests gave up since one ended in time
        # In the order of asking. A dict, so that a waiter that gives up leaves nothing behind: with a server that
        # hangs, nothing else would remove it.
        self._waiters: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    def try_acquire(self) -> bool:
        """Take a permit if one is free, and return whether there was one; ``release`` returns it."""
        # There are waiters only while in_flight >= room: a freed permit and a grown limit go to them at once.
        if self.in_flight < self._room:
            self.in_flight += 1
            return True
        return False

    async def acquire(self) -> None:
        """Take a permit, or wait for one; ``release`` returns it."""
        if self.try_acquire():
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        try:
            await waiter
        except BaseException:  # a coroutine that is thrown away gets GeneratorExit
            if waiter.done() and not waiter.cancelled():
                self.release()  # the permit was granted in the same moment
            else:
                self._waiters.pop(waiter, None)
            raise

    def record(self, *, started_s: float, now_s: float, latency_s: float | None, overloaded: bool) -> None:
        """Record the outcome of an attempt that still holds its permit; see ``Aimd.record``."""
        aimd = self._aimd
        if aimd is None:
            return
        old = self.limit
        new = aimd.record(
            started_s=started_s,
            now_s=now_s,
            latency_s=latency_s,
            overloaded=overloaded,
            at_limit=self.in_flight >= old,
        )
        if new == old:
            return
        self.limit = new
        self._fill()
        self.on_change(old, new, aimd.reason)

    def release(self) -> None:
        """Return a permit; the first waiter gets it, if there is one."""
        # Above a limit that has shrunk, a permit goes out of use instead of to a waiter.
        if self._waiters and self.in_flight <= self._room:
            self._grant()
        else:
            self.in_flight -= 1

    def begin(self) -> int:
        """Note that the holder of a permit sends a request; return its number for ``end``."""
        if self._aimd is None:
            return 0
        self._began[number := next(self._numbers)] = self._ticks
        if self._ticker is None:
            self._ticker = asyncio.get_running_loop().call_later(_TICK_S, self._tick)
        return number

    def end(self, number: int) -> None:
        """Note that a request is over; one that was overdue takes a permit, which its holder releases.

        ``number`` is 0 where the limit is fixed.
        """
        if not number:
            return
        if self._began.pop(number, None) is None:
            self.overdue -= 1
            self.in_flight += 1
            self._fill()
        else:
            self._in_a_row = 0

    def _tick(self) -> None:
        self._ticks += 1
        self._ticker = None
        while self._began and self._is_overdue(number := next(iter(self._began))):
            del self._began[number]
            self.overdue += 1
            self.in_flight -= 1
            if self.in_flight < self.limit:
                self._in_a_row += 1
            self._fill()
            if self.in_flight < self._room:
                self.on_free()
        if self._began:
            self._ticker = asyncio.get_running_loop().call_later(_TICK_S, self._tick)

    def _is_overdue(self, number: int) -> bool:
        assert self._aimd is not None  # noqa: S101  # nothing is noted where the limit is fixed
        if self._aimd.mean_s is None:
            return False
        # A server that answers nobody does not get one request after the other: each has to wait twice as long.
        after_s = max(OVERDUE_S, OVERDUE_FACTOR * self._aimd.mean_s) * 2.0**self._in_a_row
        return (self._ticks - self._began[number] - 1) * _TICK_S >= after_s

    def _fill(self) -> None:
        """Grant what is free after a change of the limit or of the overdue requests."""
        self._room = min(self.limit, self.maximum - self.overdue)
        while self._waiters and self.in_flight < self._room:
            self.in_flight += 1
            self._grant()

    def _grant(self) -> None:
        """Grant a taken permit to the first waiter, so that no other caller can take it; free it without one."""
        waiters = self._waiters
        while waiters:
            waiter, _ = waiters.popitem(last=False)
            if not waiter.done():  # else cancelled, but not yet woken to leave the queue
                waiter.set_result(None)
                return
        self.in_flight -= 1


def is_overload(error: APIError) -> bool:
    """Return whether a failure means that the server has more to do than it can.

    Timeouts do, that of connecting included: a full backlog drops the packets. A refused or reset connection
    does not: the server is gone or restarts, and fewer requests would not bring it back. Other
    statuses do not either, 500 and 502 included: they are faults, and would come one at a time as well. Where this
    machine has no file descriptor left, the limit is more than it can serve.
    """
    if isinstance(error, StatusError):
        return error.status in _OVERLOAD_STATUSES
    return isinstance(error, RequestTimeoutError) or (isinstance(error, TransportError) and error.local)

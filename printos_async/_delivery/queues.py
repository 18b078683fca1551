"""Queues of the scheduler: devices that are ready, devices ordered by time, and retries without a token.

A device is in exactly one place: the ready queue, a heap, the queue of retries, or with a sender. This keeps requests
of one device from overlapping: the body carries no timestamp, so the server could not drop a stale write.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict, deque
from itertools import count
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .device_state import DeviceState


T = TypeVar("T")

# Fewer removed places than this do not justify building a new heap.
_MIN_GIVEN_UP = 64
# Interval at which an empty retry budget is checked again: a success may have returned a token.
_BUDGET_POLL_S = 0.05


class _Timed:
    """A queue with one timer."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _call_at(self, when_s: float, callback: Callable[[], None]) -> None:
        self.cancel()
        self._timer = self._loop.call_at(when_s, callback)


class Place(Generic[T]):
    """Place of a device, or of an account, in a heap; its item is None once it was removed."""

    __slots__ = ("item",)

    def __init__(self, item: T) -> None:
        self.item: T | None = item


class TimeHeap(_Timed, Generic[T]):
    """Devices or accounts ordered by time.

    ``on_due`` is called with an iterator of those whose time has come. While it iterates it may remove others.
    """

    def __init__(self, on_due: Callable[[Iterator[T]], None]) -> None:
        super().__init__()
        self._heap: list[tuple[float, int, Place[T]]] = []
        self._order = count()
        self._given_up = 0
        self._on_due = on_due

    def push(self, when_s: float, item: T) -> Place[T]:
        """Add an item."""
        place = Place(item)
        heapq.heappush(self._heap, (when_s, next(self._order), place))
        if self._heap[0][2] is place:
            self._call_at(when_s, self._release_due)
        return place

    def give_up(self, place: Place[T]) -> None:
        """Remove an item before its time."""
        place.item = None
        self._given_up += 1
        # Removed places would stay until their time, and there may be one for each status of an hour.
        if self._given_up > _MIN_GIVEN_UP and 2 * self._given_up > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].item is not None]
            heapq.heapify(self._heap)
            self._given_up = 0

    def _release_due(self) -> None:
        self._on_due(self._pop_due(self._loop.time()))
        if self._heap:
            self._call_at(self._heap[0][0], self._release_due)

    def _pop_due(self, now_s: float) -> Iterator[T]:
        while self._heap and self._heap[0][0] <= now_s:
            item = heapq.heappop(self._heap)[2].item
            if item is None:
                self._given_up -= 1
            else:
                yield item


class RetryQueue(_Timed):
    """First-in, first-out queue of devices whose next request is a retry that needs a token of the retry budget.

    ``on_due`` is called when the budget may have a token.

    Attributes:
        devices: The devices, in the order of arrival.
    """

    def __init__(self, on_due: Callable[[], None]) -> None:
        super().__init__()
        self._on_due = on_due
        self.devices: OrderedDict[DeviceState, None] = OrderedDict()

    def rearm(self) -> None:
        """Set the timer if there are devices."""
        self.cancel()
        if self.devices:
            self._call_at(self._loop.time() + _BUDGET_POLL_S, self._on_due)


class ReadyQueue(_Timed):
    """First-in, first-out queue of ready devices, and the senders that wait for one.

    A device that was taken out of ``devices`` stays marked as queued until its credentials are known.
    """

    def __init__(self) -> None:
        super().__init__()
        self.devices: deque[DeviceState] = deque()
        self._parked: deque[asyncio.Future[None]] = deque()

    def append(self, device: DeviceState) -> bool:
        """Add a device; False if no sender was waiting for one."""
        device.queued = True
        self.devices.append(device)
        return bool(self._parked) and self._unpark()

    async def park(self) -> None:
        """Wait until there may be a device to take."""
        parked = self._loop.create_future()
        self._parked.append(parked)
        try:
            await parked
        finally:
            if parked.cancelled() and parked in self._parked:
                self._parked.remove(parked)

    def wake_at(self, when_s: float) -> None:
        """Wake the waiting senders at ``when_s``."""
        if self._timer is None or self._timer.when() > when_s:
            self._call_at(when_s, self.wake_all)

    def wake_all(self) -> None:
        """Wake as many senders as there are devices."""
        self.cancel()
        for _ in range(len(self.devices)):
            if not self._unpark():
                return

    def _unpark(self) -> bool:
        while self._parked:
            parked = self._parked.popleft()
            if not parked.done():
                parked.set_result(None)
                return True
        return False

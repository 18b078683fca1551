"""Deadlines of waiting statuses. They have a heap of their own: a device with a deadline is in a queue too."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from printos_async._errors import RequestTimeoutError

from .queues import TimeHeap

if TYPE_CHECKING:
    from collections.abc import Callable

    from printos_async._errors import PrintOSError

    from .device_state import DeviceState, PendingStatus, Place


class Deadlines:
    """The devices whose waiting status has a deadline, with one timer for the earliest.

    Args:
        deadline_s: Seconds from a status' acceptance to its deadline; None for no deadlines.
        give_up: Called with a device whose waiting status is past its deadline.
    """

    def __init__(self, deadline_s: float | None, give_up: Callable[[DeviceState], None]) -> None:
        self._deadline_s = deadline_s
        self._give_up = give_up
        self._loop = asyncio.get_running_loop()
        self._heap: TimeHeap[DeviceState] = TimeHeap(self._expire)

    def arm(self, device: DeviceState, pending: PendingStatus) -> None:
        """Let a waiting status fail at its deadline, if there are deadlines."""
        if self._deadline_s is not None and device.deadline is None:
            device.deadline = self._heap.push(pending.accepted_s + self._deadline_s, device)

    def disarm(self, place: Place[DeviceState]) -> None:
        """Remove a device that the scheduler drops."""
        self._heap.give_up(place)

    def is_late(self, pending: PendingStatus, now_s: float) -> bool:
        """Return whether a status is past its deadline."""
        return self._deadline_s is not None and pending.accepted_s + self._deadline_s <= now_s

    def cancel(self) -> None:
        """Cancel the timer."""
        self._heap.cancel()

    def _expire(self) -> None:
        now_s = self._loop.time()
        while (device := self._heap.pop_due(now_s)) is not None:
            device.deadline = None
            pending = device.waiting
            if pending is not None and not self.is_late(pending, now_s):
                self.arm(device, pending)  # a newer status has replaced the one that armed it
            elif pending is not None:
                pending.error = pending.error or too_late(pending)
                self._give_up(device)
        self._heap.rearm()


def too_late(pending: PendingStatus) -> PrintOSError:
    """Return the error of a status that was not sent before its deadline."""
    call = pending.call
    return RequestTimeoutError(
        "not sent within deadline_s", method=call.method, path=call.path, attempts=0, may_have_arrived=False
    )

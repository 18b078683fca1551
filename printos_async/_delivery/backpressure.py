"""Backpressure: the number of devices with work pending, and admission of statuses while it is limited."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal, TypeVar

from printos_async._errors import PusherClosedError, PusherFullError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

T = TypeVar("T")


class Occupancy:
    """Number of devices with work pending, for tasks that wait until it falls.

    Attributes:
        devices: Devices with work pending. Call ``notify`` after lowering it while there are watchers.
        watchers: Waiting tasks, each with the number below which it is woken.
        is_closed: No more statuses are accepted.
        has_ended: The engine has stopped working.
        crash: The bug that stopped the engine, if one did.
    """

    def __init__(self) -> None:
        self.devices = 0
        self.crash: BaseException | None = None
        self._crash_traceback: TracebackType | None = None
        self.is_closed = False
        self.has_ended = False
        self.watchers: list[tuple[int, asyncio.Future[None]]] = []

    def require_open(self) -> None:
        """Raise if no more statuses are accepted.

        Raises:
            PusherClosedError: The pusher is draining or closed.
            BaseException: The bug that stopped the engine.
        """
        if self.is_closed:
            raise PusherClosedError("the pusher is draining or closed and accepts no more")
        if self.crash is not None:
            self.raise_crash()

    def raise_crash(self) -> None:
        """Raise the bug that stopped the engine, if one did. However often, its traceback does not grow."""
        if self.crash is not None:
            raise self.crash.with_traceback(self._crash_traceback)

    async def wait_until_below(self, devices: int) -> None:
        """Wait until fewer than ``devices`` devices have work pending, or the engine has stopped.

        Raises:
            BaseException: The bug that stopped the engine.
        """
        while self.devices >= devices and not self.has_ended:
            watcher = (devices, asyncio.get_running_loop().create_future())
            self.watchers.append(watcher)
            try:
                await watcher[1]
            finally:
                self.watchers.remove(watcher)
        self.raise_crash()

    def end(self, crash: BaseException | None = None) -> None:
        """Wake all waiting tasks, because the engine has stopped."""
        if crash is not None and self.crash is None:
            self.crash, self._crash_traceback = crash, crash.__traceback__
        self.has_ended = True
        self.notify()

    def notify(self) -> None:
        """Wake the tasks that wait for as few devices as there are now."""
        for devices, watcher in self.watchers:
            if not watcher.done() and (self.devices < devices or self.has_ended):
                watcher.set_result(None)


class Admission:
    """Admits statuses in the order of arrival, for a limited number of devices.

    Args:
        occupancy: The number of devices with work pending.
        is_active: Returns whether a device has work pending.
        max_pending_devices: Devices with work pending at most.
        on_full: Whether a status without room waits or is refused.
    """

    def __init__(
        self,
        occupancy: Occupancy,
        is_active: Callable[[str], bool],
        *,
        max_pending_devices: int,
        on_full: Literal["wait", "raise"],
    ) -> None:
        self._occupancy = occupancy
        self._is_active = is_active
        self._max_pending_devices = max_pending_devices
        self._on_full = on_full
        self._head_of_line = asyncio.Lock()
        self._in_line: dict[str, int] = {}  # devices, with the number of their statuses that wait for room

    async def enter(self, device_id: str, take: Callable[[], T]) -> T:
        """Call ``take`` as soon as there is room for the device, and return its result.

        Cancelling gives up the place in the line.

        Raises:
            PusherFullError: There is no room, and ``on_full`` is ``"raise"``.
        """
        occupancy = self._occupancy
        if occupancy.devices < self._max_pending_devices and not self._in_line:
            return take()
        # A status of an active device needs no room, but must not overtake an older one in the line.
        if self._is_active(device_id) and device_id not in self._in_line:
            return take()
        if self._on_full == "raise":
            raise PusherFullError(
                f"{self._max_pending_devices} devices have something waiting; try again later"
            )
        self._in_line[device_id] = self._in_line.get(device_id, 0) + 1
        try:
            # The lock keeps the order of arrival; only the first task in the line waits for room.
            async with self._head_of_line:
                is_full = occupancy.devices >= self._max_pending_devices
                if is_full and not self._is_active(device_id):
                    # Waiting for more than one place at once: a task switch for each status costs more than the queue.
                    room = self._max_pending_devices // 8
                    await occupancy.wait_until_below(self._max_pending_devices - room)
                return take()
        finally:
            self._in_line[device_id] -= 1
            if not self._in_line[device_id]:
                del self._in_line[device_id]

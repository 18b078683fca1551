"""Backpressure: the number of devices with work pending, for those that wait until it falls."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from printos_async._errors import PusherClosedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Occupancy:
    """Number of devices with work pending, for tasks that wait until it falls.

    Attributes:
        devices: Devices with work pending. Call ``notify`` after lowering it below ``notify_below``.
        notify_below: The highest number of devices below which a waiting task is woken; 0 while none waits.
        is_closed: No more statuses are accepted.
        has_ended: The engine has stopped working.
        crash: The bug that stopped the engine, if one did.
        on_end: Called when the engine has stopped, for tasks that wait for something else.
    """

    def __init__(self) -> None:
        self.devices = 0
        self.crash: BaseException | None = None
        self._crash_traceback: TracebackType | None = None
        self.is_closed = False
        self.has_ended = False
        self.notify_below = 0
        self.on_end: Callable[[], None] | None = None
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

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
            waiter = (devices, asyncio.get_running_loop().create_future())
            self._waiters.append(waiter)
            self.notify_below = max(self.notify_below, devices)
            try:
                await waiter[1]
            finally:
                self._waiters.remove(waiter)
                self.notify_below = max((below for below, _ in self._waiters), default=0)
        self.raise_crash()

    def end(self, crash: BaseException | None = None) -> None:
        """Wake all waiting tasks, because the engine has stopped."""
        if crash is not None and self.crash is None:
            self.crash, self._crash_traceback = crash, crash.__traceback__
        self.has_ended = True
        self.notify()
        if self.on_end is not None:
            self.on_end()

    def notify(self) -> None:
        """Wake the tasks that wait for as few devices as there are now."""
        for devices, waiter in self._waiters:
            if not waiter.done() and (self.devices < devices or self.has_ended):
                waiter.set_result(None)

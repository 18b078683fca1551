"""How many devices have something to be done, for those who wait until they are fewer."""

from __future__ import annotations

import asyncio


class Occupancy:
    """Counts, and wakes those who wait.

    Attributes:
        devices: Devices with something to be done. Whoever lowers it calls ``notify`` if there are watchers.
        watchers: Those who wait, each with the number below which it is woken.
        has_ended: Nobody works any more.
        crash: The bug that ended the work, if one did.
    """

    def __init__(self) -> None:
        self.devices = 0
        self.crash: BaseException | None = None
        self.has_ended = False
        self.watchers: list[tuple[int, asyncio.Future[None]]] = []

    async def wait_until_below(self, devices: int) -> None:
        """Wait until fewer than this many devices have something to be done, or the work has ended.

        Raises:
            BaseException: What ended the work: a bug of a callback.
        """
        while self.devices >= devices and not self.has_ended:
            watcher = (devices, asyncio.get_running_loop().create_future())
            self.watchers.append(watcher)
            try:
                await watcher[1]
            finally:
                self.watchers.remove(watcher)
        if self.crash is not None:
            raise self.crash

    def end(self, crash: BaseException | None = None) -> None:
        """Wake all who wait; what they waited for is not going to happen."""
        self.crash = self.crash or crash
        self.has_ended = True
        self.notify()

    def notify(self) -> None:
        """Wake those for whom the devices have become few enough."""
        for devices, watcher in self.watchers:
            if not watcher.done() and (self.devices < devices or self.has_ended):
                watcher.set_result(None)

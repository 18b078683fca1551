"""Room for one more device: who finds none waits in line, or is refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal, TypeVar

from printos_async._errors import PusherFullError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .engine import Engine

T = TypeVar("T")


class Admission:
    """Lets statuses into an engine in the order of coming, for so many devices at most."""

    def __init__(
        self, engine: Engine, *, max_pending_devices: int, on_full: Literal["wait", "raise"]
    ) -> None:
        self._engine = engine
        self._max_pending_devices = max_pending_devices
        self._on_full = on_full
        self._head_of_line = asyncio.Lock()
        self._in_line: dict[str, int] = {}  # devices whose statuses wait for room

    async def enter(self, device_id: str, take: Callable[[], T]) -> T:
        """Call ``take`` as soon as there is room for the device, and give what it gives.

        Cancelling gives up the place in the line.

        Raises:
            PusherFullError: There is no room, and nobody wants to wait.
        """
        occupancy = self._engine.occupancy
        if occupancy.devices < self._max_pending_devices and not self._in_line:
            return take()
        # A status of a device that has one waiting needs no room, but must not overtake an older one in the line.
        if self._engine.is_active(device_id) and device_id not in self._in_line:
            return take()
        if self._on_full == "raise":
            raise PusherFullError(
                f"{self._max_pending_devices} devices have something waiting; try again later"
            )
        self._in_line[device_id] = self._in_line.get(device_id, 0) + 1
        try:
            async with (
                self._head_of_line
            ):  # in the order of coming; only the first is woken when there is room
                full = occupancy.devices >= self._max_pending_devices
                if full and not self._engine.is_active(device_id):
                    # Down a little, not by one: a handover for each status costs more than the queue.
                    room = self._max_pending_devices // 8
                    await occupancy.wait_until_below(self._max_pending_devices - room)
                return take()
        finally:
            self._in_line[device_id] -= 1
            if not self._in_line[device_id]:
                del self._in_line[device_id]

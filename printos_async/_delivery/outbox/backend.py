"""Delivery backend: the protocol that a pusher uses, and the backend that keeps statuses in memory only."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from printos_async._delivery.engine import Engine
from printos_async._errors import PusherFullError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from printos_async._api.requests import Call
    from printos_async._delivery.device_state import PendingStatus
    from printos_async._delivery.results import Reporter
    from printos_async._delivery.settings import PusherSettings
    from printos_async._execution.channel import Channel
    from printos_async._models import PushResult

    Waiter = asyncio.Future[PushResult] | None


class DeliveryBackend(Protocol):
    """Accepts a pusher's statuses, keeps them until they are sent, and reports their outcomes.

    What a method does here is enough for a backend whose statuses are in the engine only.

    Attributes:
        engine: Sends the statuses.
        is_open: Whether statuses can be put.
    """

    engine: Engine
    is_open: bool

    async def open(self) -> None:
        """Make ready for ``put``. The second time does nothing; concurrent calls wait for the first.

        Raises:
            OutboxError: The outbox cannot be read or written.
            ConfigurationError: Another pusher has the outbox, or it is open for another account.
        """
        ...

    def put(self, call: Call, waiter: Waiter) -> Awaitable[PendingStatus]:
        """Accept an encoded status; ``waiter`` gets its result.

        Raises:
            PusherFullError: There is no room.
            PusherClosedError: The pusher was closed before the status was accepted.
            OutboxError: The outbox cannot be written.
        """
        ...

    def withdraw(self, pending: PendingStatus) -> bool:
        """Remove a waiting status; False if it stays."""
        return self.engine.withdraw(pending)

    def problem(self, now_s: float) -> str | None:  # noqa: ARG002  # memory has none
        """Return why statuses cannot be stored or claimed at the moment; None if they can, as far as is known."""
        return None

    async def drained(self, until_s: float) -> None:
        """Wait until every status is settled that may be sent before ``until_s``."""
        await self.engine.drained(until_s)

    def unsettled(self) -> list[PendingStatus]:
        """Return the accepted statuses that have no outcome yet."""
        return self.engine.unsettled()

    async def aclose(self) -> None:
        """Release unsent statuses to the outbox, and close it. The engine has been closed before."""
        ...


class MemoryBackend(DeliveryBackend):
    """Keeps statuses in the engine only, and admits them in the order of arrival while there is room.

    Args:
        channel: Sends the statuses.
        settings: The delivery policy, and the room.
        reporter: Is told of accepted statuses and their outcomes.
    """

    is_open = True

    def __init__(self, channel: Channel, settings: PusherSettings, reporter: Reporter) -> None:
        self.engine = Engine(channel, settings, reporter.settle)
        self._settings = settings
        self._reporter = reporter
        self._head_of_line = asyncio.Lock()
        self._in_line: dict[str, int] = {}  # devices, with the number of their statuses that wait for room

    async def open(self) -> None:
        """As ``DeliveryBackend.open``: nothing has to be opened."""

    async def aclose(self) -> None:
        """As ``DeliveryBackend.aclose``: nothing outlives the pusher."""

    async def put(self, call: Call, waiter: Waiter) -> PendingStatus:
        """As ``DeliveryBackend.put``, when there is room. Cancelling gives up the place in the line."""
        engine, device_id = self.engine, call.device_id or ""
        max_devices = self._settings.max_pending_devices
        if engine.occupancy.devices < max_devices and not self._in_line:
            return self._accept(call, waiter)
        # A status of an active device needs no room, but must not overtake an older one in the line.
        if engine.is_active(device_id) and device_id not in self._in_line:
            return self._accept(call, waiter)
        if self._settings.on_full == "raise":
            raise PusherFullError(f"{max_devices} devices have something waiting; try again later")
        self._in_line[device_id] = self._in_line.get(device_id, 0) + 1
        try:
            # The lock keeps the order of arrival; only the first task in the line waits for room.
            async with self._head_of_line:
                if engine.occupancy.devices >= max_devices and not engine.is_active(device_id):
                    # Waiting for more than one place at once: a task switch for each status costs more than the queue.
                    await engine.occupancy.wait_until_below(max_devices - max_devices // 8)
                return self._accept(call, waiter)
        finally:
            self._in_line[device_id] -= 1
            if not self._in_line[device_id]:
                del self._in_line[device_id]

    def _accept(self, call: Call, waiter: Waiter) -> PendingStatus:
        self.engine.occupancy.require_open()
        pending = self.engine.accept(call, waiter)
        self._reporter.accept(pending)
        return pending

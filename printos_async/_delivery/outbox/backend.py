"""Delivery backend: the protocol that a pusher uses, the backend in memory, and what backends with an outbox share."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, TypeGuard
from weakref import WeakValueDictionary

from printos_async._delivery.device_state import PendingStatus
from printos_async._delivery.engine import Engine
from printos_async._errors import ConfigurationError, PusherFullError
from printos_async.outbox.protocol import Release

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from printos_async._api.requests import Call, Operations
    from printos_async._config import Tenant
    from printos_async._delivery.device_state import DeviceState, Settle
    from printos_async._delivery.results import Reporter
    from printos_async._delivery.settings import PusherSettings
    from printos_async._execution.channel import Channel
    from printos_async._models import PushResult
    from printos_async.outbox import Claim, LabellingOutbox, Outbox

    Waiter = asyncio.Future[PushResult] | None

# Outboxes that a pusher or a spooler has, by ``id``: they need not be hashable. Two pushers would each send for the same
# device, and the first that ends would close the outbox for the other one.
_in_use: WeakValueDictionary[int, Outbox] = WeakValueDictionary()
# Longest time for which the first task in the line waits for more places, once there is one.
_MORE_ROOM_S = 0.05


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
            ConfigurationError: Another pusher or spooler has the outbox, or it is open for another account.
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
        settle: Called with each outcome; by default the reporter's.
    """

    is_open = True

    def __init__(
        self, channel: Channel, settings: PusherSettings, reporter: Reporter, settle: Settle | None = None
    ) -> None:
        self.engine = Engine(channel, settings, settle or reporter.settle)
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
                    await self._wait_for_room()
                return self._accept(call, waiter)
        finally:
            self._in_line[device_id] -= 1
            if not self._in_line[device_id]:
                del self._in_line[device_id]

    async def _wait_for_room(self) -> None:
        occupancy, max_devices = self.engine.occupancy, self._settings.max_pending_devices
        await occupancy.wait_until_below(max_devices)
        # More than one place at once: a task switch for each status costs more than the queue. But not for longer than
        # a moment: where most devices are held, the others are too few for so many places.
        with suppress(TimeoutError):
            async with asyncio.timeout(_MORE_ROOM_S):
                await occupancy.wait_until_below(max_devices - max_devices // 8)

    def _accept(self, call: Call, waiter: Waiter) -> PendingStatus:
        self.engine.occupancy.require_open()
        pending = self.engine.accept(call, waiter)
        self._reporter.accept(pending)
        return pending


async def open_outbox(outbox: Outbox, tenant: Tenant) -> None:
    """Open an outbox for a tenant; one that lists its tenants gets label and host, too. Close it with ``close_outbox``.

    Raises:
        ConfigurationError: Another pusher or spooler has the outbox, or it is open for another account.
    """
    if id(outbox) in _in_use:
        raise ConfigurationError(
            "another pusher or spooler has this outbox object: close that one first, or make an object for each; those"
            " of SqlOutbox may have the same URL"
        )
    _in_use[id(outbox)] = outbox
    try:
        if _lists_tenants(outbox):
            await outbox.open(tenant.account, label=tenant.label, host=tenant.host)
        else:
            await outbox.open(tenant.account)
    except BaseException:
        del _in_use[id(outbox)]
        raise


async def close_outbox(outbox: Outbox) -> None:
    """Close an outbox that ``open_outbox`` has opened; another pusher or spooler may have it then."""
    try:
        await outbox.aclose()
    finally:
        del _in_use[id(outbox)]


def _lists_tenants(outbox: Outbox) -> TypeGuard[LabellingOutbox]:
    return callable(getattr(outbox, "tenants", None))


def claimed_status(claim: Claim, operations: Operations, *, now_s: float) -> PendingStatus:
    """Return a claim as a pending status.

    Raises:
        InvalidDeviceIdError: The outbox holds an identifier that would change the request's path.
    """
    call = operations.stored_status(claim.device_id, claim.body)
    return PendingStatus(claim.seq, claim.device_id, call, now_s - claim.waited_s, claim.attempts)


def release_of(device: DeviceState, *, now_s: float, timeout_s: float) -> Release:
    """Return the release of a device whose newest status was not sent."""
    pending = device.waiting or device.in_flight
    uncertain_in_s = 0.0 if device.is_uncertain(now_s) else None
    if device.in_flight is not None:
        uncertain_in_s = timeout_s
    # Those that failed with the whole host do not count for the worker that claims it, either.
    attempts = 0 if pending is None else pending.attempts - pending.exempt_attempts
    return Release(device.device_id, max(0.0, device.not_before_s - now_s), attempts, uncertain_in_s)

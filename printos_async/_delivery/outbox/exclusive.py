"""An outbox that nobody else uses: a pusher takes all of it, and gives back at its end what it has not sent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from weakref import WeakSet

from printos_async._delivery.results import claimed_status, release_of, uncertain_until_s
from printos_async._errors import ConfigurationError
from printos_async.outbox.protocol import Draft, Finish

if TYPE_CHECKING:
    from collections.abc import Callable

    from printos_async._api.requests import Operations
    from printos_async._delivery.device_state import DeliveryPolicy, PendingStatus
    from printos_async._delivery.engine import Engine
    from printos_async.outbox import PrivateOutbox

# Two pushers on one would each send for the same device.
_lent: WeakSet[PrivateOutbox] = WeakSet()


class Loan:
    """Holds the statuses of an outbox in the engine alone, which is why that is as fast as without one."""

    def __init__(
        self,
        outbox: PrivateOutbox,
        engine: Engine,
        operations: Operations,
        policy: DeliveryPolicy,
        *,
        timeout_s: float,
        accepted: Callable[[PendingStatus], None],
    ) -> None:
        self._outbox = outbox
        self._engine = engine
        self._operations = operations
        self._policy = policy
        self._timeout_s = timeout_s
        self._accepted = accepted
        self._loop = asyncio.get_running_loop()
        self._has_it = False

    async def start(self) -> None:
        """Take everything out of the outbox.

        Raises:
            ConfigurationError: Another pusher has it.
        """
        if self._outbox in _lent:
            raise ConfigurationError(
                "another pusher has this outbox: close that one first, or make one for each"
            )
        _lent.add(self._outbox)
        self._has_it = True
        owner = await self._outbox.join()
        claims = await self._outbox.claim_all(owner)
        for claim in claims:
            now_s = self._loop.time()
            pending = claimed_status(claim, self._operations, now_s=now_s)
            pending.seq = self._engine.next_seq()  # the engine's numbers are those of all devices
            self._accepted(pending)
            until_s = uncertain_until_s(claim, self._policy, now_s=now_s)
            self._engine.take(pending, not_before_s=now_s + claim.hold_s, uncertain_until_s=until_s)
        await self._outbox.finish(owner, [Finish(claim.device_id, claim.seq) for claim in claims])
        await self._outbox.leave(owner)

    async def aclose(self) -> None:
        """Give back what was not sent."""
        if not self._has_it:
            return
        self._has_it = False
        devices = [device for device in self._engine.scheduler.devices.values() if device.active]
        drafts = []
        for device in devices:
            pending = device.waiting or device.in_flight or device.sent
            assert pending is not None  # noqa: S101  # what is active has one of them
            drafts.append(Draft(device.device_id, pending.call.body))
        owner = await self._outbox.join()
        await self._outbox.put(drafts, owner=owner)
        now_s = self._loop.time()
        released = [release_of(device, now_s=now_s, timeout_s=self._timeout_s) for device in devices]
        await self._outbox.release(owner, released)
        await self._outbox.leave(owner)
        _lent.discard(self._outbox)

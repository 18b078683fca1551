"""Backend for an outbox of one process: takes all statuses when it opens, and gives back the unsent ones at its end."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from printos_async._delivery.device_state import DeviceState
from printos_async._errors import ClientClosedError
from printos_async.outbox.protocol import Draft, Finish

from .backend import MemoryBackend, claimed_status, close_outbox, open_outbox, release_of

if TYPE_CHECKING:
    from printos_async._delivery.device_state import Outcome, PendingStatus
    from printos_async._delivery.results import Reporter
    from printos_async._delivery.settings import PusherSettings
    from printos_async._execution.channel import Channel
    from printos_async.outbox import PrivateOutbox


class ExclusiveBackend(MemoryBackend):
    """Keeps statuses in the engine only, between opening and closing its outbox.

    Args:
        outbox: The outbox; no other process uses it.
        channel: Sends the statuses; its tenant owns the rows of the outbox.
        settings: The delivery policy, and the room.
        reporter: Is told of accepted statuses and their outcomes.
    """

    def __init__(
        self, outbox: PrivateOutbox, channel: Channel, settings: PusherSettings, reporter: Reporter
    ) -> None:
        self._tenant = channel.tenant  # first: where no account is named, no engine must watch the host
        super().__init__(channel, settings, reporter, self._settle)
        self._outbox = outbox
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._opening = asyncio.Lock()
        self._closing = AsyncExitStack()  # what has to be done at the end, once it is open
        # By device: statuses that failed because the client was closed, unless a newer one has had another outcome.
        self._unsent: dict[str, PendingStatus] = {}
        self.is_open = False

    async def open(self) -> None:
        """As ``DeliveryBackend.open``; takes everything out of the outbox."""
        async with self._opening, AsyncExitStack() as closing:
            if not self.is_open:
                await open_outbox(self._outbox, self._tenant)
                closing.push_async_callback(close_outbox, self._outbox)
                await self._take_all()
                closing.push_async_callback(self._give_back)
                self._closing = closing.pop_all()
                self.is_open = True

    async def aclose(self) -> None:
        """As ``DeliveryBackend.aclose``."""
        async with self._opening:
            self.is_open = False
            await self._closing.aclose()

    async def _take_all(self) -> None:
        owner = await self._outbox.join()
        try:
            claims = await self._outbox.claim_all(owner)
            for claim in claims:
                now_s = self._loop.time()
                pending = claimed_status(claim, self._channel.operations, now_s=now_s)
                pending.seq = self.engine.next_seq()  # the engine's sequence is one for all devices
                self._reporter.accept(pending)
                not_before_s = now_s + claim.hold_s
                self.engine.take(pending, not_before_s=not_before_s, uncertain_age_s=claim.uncertain_age_s)
            await self._outbox.finish(owner, [Finish(claim.device_id, claim.seq) for claim in claims])
        finally:
            await self._outbox.leave(owner)  # after an error, the statuses wait for the next pusher

    def _settle(self, pending: PendingStatus, outcome: Outcome) -> None:
        # A client that was closed says nothing of the status: the next pusher sends it.
        if isinstance(outcome.error, ClientClosedError):
            self._unsent[pending.device_id] = pending
        elif self._unsent:
            self._unsent.pop(pending.device_id, None)
        self._reporter.settle(pending, outcome)

    async def _give_back(self) -> None:
        devices, unsent = self.engine.scheduler.devices, dict(self._unsent)
        for device in devices.values():
            if device.active:
                pending = device.waiting or device.in_flight or device.sent
                assert pending is not None  # noqa: S101  # an active device has one of them
                unsent[device.device_id] = pending
        owner = await self._outbox.join()
        drafts = [Draft(device_id, pending.call.body) for device_id, pending in unsent.items()]
        await self._outbox.put(drafts, owner=owner)
        now_s, timeout_s = self._loop.time(), self._channel.timeout_s
        states = [devices.get(device_id) or DeviceState(device_id) for device_id in unsent]
        released = [release_of(device, now_s=now_s, timeout_s=timeout_s) for device in states]
        await self._outbox.release(owner, released)
        await self._outbox.leave(owner)

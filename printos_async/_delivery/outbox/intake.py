"""Writes accepted statuses to a shared outbox, and again after its file was replaced."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from printos_async._delivery.device_state import Outcome, PendingStatus
from printos_async._errors import OutboxError, PusherClosedError
from printos_async.outbox.protocol import Draft

from .group_commit import GroupCommit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from printos_async._api.requests import Call
    from printos_async._delivery.engine import Engine
    from printos_async.outbox import Kept, Outbox

    from .backend import Waiter
    from .dispatch import Dispatcher
    from .lease import Lease
    from .ownership import Ownership

_NEW = 0  # sequence number of a status that the outbox has not numbered yet


class Intake:
    """Writes concurrent puts in groups, and dispatches the statuses that this worker owns at once.

    Attributes:
        is_closed: No more statuses are written.
    """

    def __init__(
        self,
        outbox: Outbox,
        engine: Engine,
        lease: Lease,
        ownership: Ownership,
        dispatcher: Dispatcher,
        *,
        max_devices: int,
    ) -> None:
        self._outbox = outbox
        self._engine = engine
        self._lease = lease
        self._ownership = ownership
        self._dispatcher = dispatcher
        self._max_devices = max_devices
        self._loop = asyncio.get_running_loop()
        self._puts: GroupCommit[PendingStatus, PendingStatus] = GroupCommit(self._write)
        self._unfiled: dict[str, PendingStatus] = {}  # statuses that were in a file that was replaced
        self.is_closed = False

    async def put(self, call: Call, waiter: Waiter) -> PendingStatus:
        """Write a status; it is in the outbox when this returns.

        Raises:
            OutboxError: The outbox cannot be written.
            PusherClosedError: The pusher was closed before.
        """
        pending = PendingStatus(_NEW, call.device_id or "", call, self._loop.time(), waiter=waiter)
        return await self._puts.submit(pending)

    async def settle(self) -> None:
        """Wait until every put has its answer."""
        await self._puts.settle()

    def file_replaced(self) -> None:
        """Remember the statuses that were in the file that was replaced: ``put_again`` writes them to the new one."""
        # What is in flight now has to be written too, if it fails.
        for device in self._engine.scheduler.devices.values():
            if device.in_flight is not None:
                self._unfiled[device.device_id] = device.in_flight
        self._unfiled |= self._ownership.elsewhere

    async def put_again(self) -> None:
        """Write remembered statuses to the new file, unless it has newer ones of their devices."""
        if not self._unfiled:
            return
        elsewhere = self._ownership.elsewhere
        left = {device_id: pending for device_id, pending in elsewhere.items() if self.is_unfiled(pending)}
        there = {one.device_id: one.seq for one in await self._outbox.progress(left)} if left else {}
        for device_id, pending in left.items():
            if device_id in there:
                self._dispatcher.settle_gone(pending, Outcome("superseded", superseded_by=there[device_id]))
            elif elsewhere.get(device_id) is pending:
                del elsewhere[device_id]
                try:
                    await self._puts.submit(pending)
                except OutboxError:
                    self._dispatcher.leave_to_others(pending)
                    raise
            if self.is_unfiled(pending):
                del self._unfiled[device_id]

    def is_unfiled(self, pending: PendingStatus) -> bool:
        """Return whether a status was in the file that was replaced, and is not in the new one."""
        return self._unfiled.get(pending.device_id) is pending

    async def _write(self, statuses: list[PendingStatus]) -> list[PendingStatus]:
        if self.is_closed:
            raise PusherClosedError("the pusher was closed before the outbox had this status")
        async with self._ownership.writing:
            has_room = self._engine.occupancy.devices + len(statuses) <= self._max_devices
            owner = self._lease.owner if has_room and not self._ownership.releasing else None
            with self._ownership.asking() as told:
                drafts = [Draft(pending.device_id, pending.call.body) for pending in statuses]
                kept = await self._outbox.put(drafts, owner=owner)
            self._dispatch(statuses, kept, owner, told)
        return statuses

    def _dispatch(
        self,
        statuses: list[PendingStatus],
        kept: Sequence[Kept],
        owner: int | None,
        told: Mapping[str, int],
    ) -> None:
        is_ours = owner is not None and owner == self._lease.owner
        for pending, one in zip(statuses, kept, strict=True):
            is_new, pending.seq = pending.seq == _NEW, one.seq
            self._dispatcher.take_kept(pending, one, told, is_ours=is_ours, is_new=is_new)

"""How a worker talks to an outbox that other processes use too: what it puts, claims, looks up and notes."""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from printos_async._delivery.device_state import PendingStatus
from printos_async._delivery.results import release_of
from printos_async._errors import OutboxError, PusherClosedError
from printos_async._events import LeaseLost
from printos_async.outbox.batching import Grouping
from printos_async.outbox.protocol import Draft
from printos_async.outbox.sql.outbox import SqlOutbox

from .dispatch import Dispatcher
from .lease import Lease
from .ownership import Ownership

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from printos_async._api.requests import Operations
    from printos_async._api.validation import Call
    from printos_async._delivery.device_state import DeliveryPolicy
    from printos_async._delivery.engine import Engine
    from printos_async._events import Hooks
    from printos_async._models import PushResult
    from printos_async.outbox import Claim, Outbox

    from .dispatch import Settle

    Waiter = asyncio.Future[PushResult] | None

_log = logging.getLogger("printos_async.outbox")

# How soon a worker sees what others have put.
POLL_S = 0.5
_RETRY_S = 0.2
_CLAIMED_AT_ONCE = 500
_LOOKED_UP_AT_ONCE = 1_000
# Nothing may take longer at the end: of a database that hangs, the lease's end does the rest.
_LEAVING_S = 0.4
_NEW = 0  # the outbox has not numbered it yet


class Delivery:
    """Owns devices of the outbox as long as the engine has something to do for them.

    ``accepted`` and ``settle`` are those of ``Dispatcher``.
    """

    def __init__(
        self,
        outbox: Outbox,
        engine: Engine,
        operations: Operations,
        policy: DeliveryPolicy,
        hooks: Hooks,
        *,
        timeout_s: float,
        max_devices: int,
        accepted: Callable[[PendingStatus], None],
        settle: Settle,
    ) -> None:
        self._outbox = outbox
        self._engine = engine
        self._hooks = hooks
        self._timeout_s = timeout_s
        self._max_devices = max_devices
        self._loop = asyncio.get_running_loop()
        self._lease = Lease(outbox, on_kept=self._lease_kept, on_lost=self._lease_lost)
        self._puts: Grouping[PendingStatus, None] = Grouping(self._keep)
        self._ownership = Ownership()
        self.dispatcher = Dispatcher(
            engine, self._ownership, operations, policy, accepted=accepted, settle=settle
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._draining = False
        self._closed = False
        self._unfiled: dict[str, PendingStatus] = {}  # what was in a file that was replaced

    async def start(self) -> None:
        """Become a worker of the outbox.

        Raises:
            OutboxError: It cannot be read or written.
        """
        self._engine.scheduler.watcher = self.dispatcher
        self._engine.on_lost = self.dispatcher.leave_to_others
        if isinstance(self._outbox, SqlOutbox):
            self._outbox.on_replaced = self._file_replaced
        await self._lease.join()
        for work in (self._lease.keep(), self._claim(), self._note()):
            task = self._loop.create_task(work)
            task.add_done_callback(self._ended)
            self._tasks.append(task)

    def put(self, call: Call, waiter: Waiter) -> Awaitable[object]:
        """Keep a status; in the outbox when what this gives was awaited.

        Raises:
            OutboxError: The outbox cannot be written.
            PusherClosedError: It was closed before.
        """
        return self._puts.submit(
            [PendingStatus(_NEW, call.device_id or "", call, self._loop.time(), waiter=waiter)]
        )

    async def drained(self, until_s: float) -> None:
        """Wait until everything put here has an outcome, and everything sent here is noted in the outbox.

        What cannot be sent by then is not waited for.
        """
        self._draining = True
        while True:
            await self._engine.drained(until_s)
            elsewhere = self._ownership.elsewhere.values()
            may_come = self._ownership.has_news or any(one.held_until_s <= until_s for one in elsewhere)
            if self._closed or not may_come:
                return
            self.dispatcher.progress.clear()
            await self.dispatcher.progress.wait()

    def left_to_others(self) -> list[PendingStatus]:
        """Give what was put here, and is for others to send or for later."""
        return list(self._ownership.elsewhere.values())

    async def aclose(self) -> None:
        """Give back everything that is not sent; within half a second, or else the lease's end does it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(_LEAVING_S):
                await self._puts.settle()
                await self._leave()
        except (OutboxError, TimeoutError) as error:
            name = type(error).__name__
            _log.warning("what was not sent is free when the lease ends: %s", name, extra={"error": name})
        finally:
            self._closed = True
            self.dispatcher.progress.set()

    async def settle_puts(self) -> None:
        """Wait until every put has its answer; the outbox is closed, so that there is no other than an error."""
        await self._puts.settle()

    async def _leave(self) -> None:
        owner, now_s = self._lease.owner, self._loop.time()
        if owner is None:
            return
        await self._outbox.finish(owner, self._ownership.take_finished())
        held = [
            device
            for device in self._engine.scheduler.devices.values()
            if self._ownership.held_seq(device.device_id)
        ]
        released = [release_of(device, now_s=now_s, timeout_s=self._timeout_s) for device in held]
        await self._outbox.release(owner, released)
        await self._outbox.leave(owner)

    async def _keep(self, _: object, statuses: list[PendingStatus]) -> list[None]:
        if self._closed:
            raise PusherClosedError("the pusher was closed before the outbox had this status")
        room = self._engine.occupancy.devices + len(statuses) <= self._max_devices
        owner = self._lease.owner if room else None
        with self._ownership.asking() as told:
            drafts = [Draft(pending.device_id, pending.call.body) for pending in statuses]
            kept = await self._outbox.put(drafts, owner=owner)
        is_ours = owner is not None and owner == self._lease.owner
        for pending, one in zip(statuses, kept, strict=True):
            is_new, pending.seq = pending.seq == _NEW, one.seq
            self.dispatcher.take_kept(pending, one, told, is_ours=is_ours, is_new=is_new)
        return [None] * len(statuses)

    # The lease

    def _lease_kept(self, ends_s: float) -> None:
        # Whatever is sent has ended when the lease does, and has had its time until then.
        self._engine.scheduler.open_until(ends_s - self._timeout_s, ends_s=ends_s)

    def _lease_lost(self) -> None:
        devices = self._ownership.lose()
        for pending in self._engine.drop():
            self.dispatcher.leave_to_others(pending)
        if devices:
            self._hooks.emit(LeaseLost(devices))  # logged even if nobody watches

    def _file_replaced(self) -> None:
        # The lease went with the old file. What this process had claimed from it has to be put into the new one, and
        # so has what is in flight now, if it fails.
        self._lease.lose()
        for device in self._engine.scheduler.devices.values():
            if device.in_flight is not None:
                self._unfiled[device.device_id] = device.in_flight
        self._unfiled |= self._ownership.elsewhere

    async def _put_again(self) -> None:
        """Put what this process has into the file that replaced a damaged one, unless somebody has put newer ones."""
        elsewhere = self._ownership.elsewhere
        left = {device_id: pending for device_id, pending in elsewhere.items() if self._is_unfiled(pending)}
        there = {one.device_id: one.seq for one in await self._outbox.progress(left)} if left else {}
        for device_id, pending in left.items():
            if device_id in there:
                self.dispatcher.settle_gone(pending, superseded_by=there[device_id])
            elif elsewhere.get(device_id) is pending:
                del elsewhere[device_id]
                try:
                    await self._puts.submit([pending])
                except OutboxError:
                    self.dispatcher.leave_to_others(pending)
                    raise
            if self._is_unfiled(pending):
                del self._unfiled[device_id]

    def _is_unfiled(self, pending: PendingStatus) -> bool:
        return self._unfiled.get(pending.device_id) is pending

    # Work in the background

    async def _claim(self) -> None:
        occupancy = self._engine.occupancy
        enough = self._max_devices - max(1, min(_CLAIMED_AT_ONCE, self._max_devices // 2) // 2)
        look_s = -math.inf
        while True:
            room = 1  # where it fails, it is tried again after a pause
            owner = self._lease.owner
            claims: list[Claim] = []
            try:
                if owner is not None and self._unfiled:
                    await self._put_again()
                if owner is not None and self._loop.time() >= look_s:
                    look_s = self._loop.time() + POLL_S
                    await self._look_around(owner)  # before a backlog takes all the room
                room = min(self._max_devices - occupancy.devices, _CLAIMED_AT_ONCE)
                if owner is not None and room > 0 and (self._ownership.elsewhere or not self._draining):
                    with self._ownership.asking() as told:
                        claims = await self._outbox.claim(owner, room)
                    if owner == self._lease.owner:  # else it was lost on the way
                        self.dispatcher.take_claims(claims, told)
            except OutboxError as error:
                self._report("not claimed", error)
            if len(claims) >= room and not occupancy.has_ended:  # there may be more
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await occupancy.wait_until_below(enough)
            else:
                await asyncio.sleep(POLL_S)

    async def _look_around(self, owner: int) -> None:
        """See what others have put for devices of this worker, and what became of those that were left to others."""
        while self._ownership.elsewhere or not self._draining:
            limit = min(self._max_devices - self._engine.occupancy.devices, _CLAIMED_AT_ONCE)
            if limit <= 0:
                break
            with self._ownership.asking() as told:
                newer = await self._outbox.newer(owner, limit)
            if owner == self._lease.owner:
                self.dispatcher.take_claims(newer, told)
            if len(newer) < limit:
                break
        if self._ownership.elsewhere:
            asked = dict(
                islice(self._ownership.elsewhere.items(), None if self._draining else _LOOKED_UP_AT_ONCE)
            )
            for progress in await self._outbox.progress(asked):
                del asked[progress.device_id]
                self.dispatcher.settle_by(progress)
            # Forgotten, for it was delivered. What was put since then may not be in this answer.
            for pending in asked.values():
                if not self._is_unfiled(pending):
                    self.dispatcher.settle_gone(pending)
            self.dispatcher.progress.set()

    async def _note(self) -> None:
        while True:
            await self.dispatcher.news.wait()
            self.dispatcher.news.clear()
            owner, finished = self._lease.owner, self._ownership.take_finished()
            if owner is None or not finished:
                continue
            try:
                newer = await self._outbox.finish(owner, finished)
            except OutboxError as error:
                self._report("not noted", error)
                self.dispatcher.news.set()
                await asyncio.sleep(_RETRY_S)
            else:
                if owner == self._lease.owner:
                    self._ownership.told(finished)
                    self.dispatcher.take_claims(newer)
            self.dispatcher.progress.set()

    def _report(self, what: str, error: OutboxError) -> None:
        _log.warning("%s: %s", what, error, extra={"error": type(error).__name__})

    def _ended(self, task: asyncio.Task[None]) -> None:
        # These tasks only end by cancellation, unless there is a bug or the engine has ended by one.
        if not task.cancelled() and (error := task.exception()) is not None:
            self._engine.fail(error)

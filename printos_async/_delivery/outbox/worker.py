"""Work on a shared outbox: writes what is put, claims statuses, follows those left to others, writes completions."""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from printos_async._delivery.device_state import PendingStatus
from printos_async._errors import OutboxError, PusherClosedError
from printos_async.outbox.protocol import Draft

from .group_commit import GroupCommit

if TYPE_CHECKING:
    from printos_async._api.requests import Call
    from printos_async._execution.account_monitor import AccountMonitor
    from printos_async.outbox import Claim, Outbox

    from .backend import Waiter
    from .dispatch import Dispatcher
    from .lease import Lease

_log = logging.getLogger("printos_async.outbox")

_NEW = 0  # sequence number of a status that the outbox has not numbered yet
# Interval at which a worker looks for statuses that others have put.
POLL_S = 0.5
# The same while devices of held accounts may take up the room, and others wait for it.
_HELD_POLL_S = 0.05
_RETRY_S = 0.2
_MAX_CLAIMS = 500
_MAX_LOOKED_UP = 1_000


class Worker:
    """Owns devices of the outbox while the engine has work pending for them.

    Attributes:
        puts: Writes concurrent puts in groups.
        is_closed: No more statuses are written.
        is_draining: Whether statuses of others are left to them. They are claimed only beside what was put here and
            may be sent, because an outbox is claimed from in its order.
        error: Why the last look into the outbox failed; None if it did not.
        answered_s: Time of the last answer of the outbox, by the event loop's clock.
    """

    def __init__(
        self,
        outbox: Outbox,
        lease: Lease,
        dispatcher: Dispatcher,
        accounts: AccountMonitor,
        *,
        max_devices: int,
    ) -> None:
        self._outbox = outbox
        self._lease = lease
        self._dispatcher = dispatcher
        self._left_to_others = dispatcher.left_to_others
        self._accounts = accounts
        self._max_devices = max_devices
        self._occupancy = dispatcher.engine.occupancy
        self._loop = asyncio.get_running_loop()
        self.puts: GroupCommit[PendingStatus, PendingStatus] = GroupCommit(self._write)
        self._putting = asyncio.Lock()  # held while something is put or devices are given back
        self._being_put: set[str] = set()  # devices of the puts under way
        self._tasks: list[asyncio.Task[None]] = []
        self.is_closed = False
        self.is_draining = False
        self.error: OutboxError | None = None
        self.answered_s = self._loop.time()

    def start(self) -> None:
        """Start the background tasks."""
        for work in (self._lease.keep(), self._claim(), self._write_completions()):
            task = self._loop.create_task(work)
            task.add_done_callback(self._ended)
            self._tasks.append(task)

    async def stop(self) -> None:
        """Cancel the background tasks, and wait until they have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def put(self, call: Call, waiter: Waiter) -> asyncio.Future[PendingStatus]:
        """Write a status; it is in the outbox when the future is done. Concurrent puts are written in groups.

        Raises:
            OutboxError: The outbox cannot be written.
            PusherClosedError: The pusher was closed before.
        """
        pending = PendingStatus(_NEW, call.device_id or "", call, self._loop.time(), waiter=waiter)
        return self.puts.submit(pending)

    async def _put_again(self) -> None:
        """Write statuses that were in a file that was replaced to the new one, unless it has newer ones of their devices."""
        left = self._left_to_others
        if not left.to_put_again():
            return
        async with self._putting:  # a newer status that is put now comes after these
            again = left.to_put_again()
            for progress in await self._outbox.progress(again) if again else ():
                left.settle_by(progress)
                del again[progress.device_id]
            if again:
                await self._put(list(again.values()))

    async def _write(self, statuses: list[PendingStatus]) -> list[PendingStatus]:
        if self.is_closed:
            raise PusherClosedError("the pusher was closed before the outbox had this status")
        async with self._putting:
            self._being_put = {pending.device_id for pending in statuses}
            try:
                await self._put(statuses)
            except OutboxError:
                self._left_to_others.put_failed |= self._being_put
                raise
            finally:
                self._being_put = set()
        return statuses

    async def _put(self, statuses: list[PendingStatus]) -> None:
        has_room = self._occupancy.devices + len(statuses) <= self._max_devices
        owner = self._lease.owner if has_room and not self._dispatcher.releasing else None
        with self._dispatcher.asking() as told:
            drafts = [Draft(pending.device_id, pending.call.body) for pending in statuses]
            kept = await self._outbox.put(drafts, owner=owner)
        is_ours = owner is not None and owner == self._lease.owner
        for pending, one in zip(statuses, kept, strict=True):
            is_new, pending.seq = pending.seq == _NEW, one.seq
            self._left_to_others.written(pending)
            self._dispatcher.take_kept(pending, one, told, is_ours=is_ours, is_new=is_new)

    async def _claim(self) -> None:
        enough = self._max_devices - max(1, min(_MAX_CLAIMS, self._max_devices // 2) // 2)
        look_s = -math.inf
        while True:
            room = 1  # after an error, the next attempt comes after a pause
            owner = self._lease.owner
            claims: list[Claim] = []
            try:
                if owner is not None:
                    await self._put_again()
                    await self._give_back_held(owner)
                if owner is not None and self._loop.time() >= look_s:
                    look_s = self._loop.time() + POLL_S
                    await self._look_around(owner)  # before a backlog takes all the room
                room = min(self._max_devices - self._occupancy.devices, _MAX_CLAIMS)
                if (
                    owner is not None
                    and room > 0
                    and (not self.is_draining or self._left_to_others.are_due_by(self._loop.time()))
                ):
                    with self._dispatcher.asking() as told:
                        claims = await self._outbox.claim(owner, room)
                    if owner == self._lease.owner:  # else the lease was lost meanwhile
                        self._dispatcher.take_claims(claims, told)
            except OutboxError as error:
                self.error = error
                self._report("statuses cannot be claimed", error)
            else:
                if owner is not None:
                    self._answered()
            if len(claims) >= room and not self._occupancy.has_ended:  # there may be more
                some_held = self._accounts.held > 0 and self._accounts.are_several
                with suppress(TimeoutError):
                    async with asyncio.timeout(_HELD_POLL_S if some_held else POLL_S):
                        await self._occupancy.wait_until_below(enough)
            else:
                await asyncio.sleep(POLL_S)

    async def _give_back_held(self, owner: int) -> None:
        """Release devices that would take up more than half of the room until their accounts are accepted."""
        releasing = self._dispatcher.releasing
        if not self._accounts.held and not releasing:
            return
        async with self._putting:
            if owner != self._lease.owner:
                return
            self._dispatcher.give_back_held(self._max_devices // 2, min_hold_s=POLL_S)
            if releasing:
                await self._outbox.release(owner, list(releasing.values()))
                releasing.clear()

    async def _look_around(self, owner: int) -> None:
        """Take what others have put for owned devices, and settle what others have sent."""
        left = self._left_to_others.statuses
        while left or not self.is_draining:
            # Devices of held accounts may take up all the room for long; newer statuses of theirs take up no more.
            room = _MAX_CLAIMS if self._accounts.held else self._max_devices - self._occupancy.devices
            limit = min(room, _MAX_CLAIMS)
            if limit <= 0:
                break
            with self._dispatcher.asking() as told:
                newer = await self._outbox.newer(owner, limit)
            if owner == self._lease.owner:
                self._dispatcher.take_claims(newer, told)
            if len(newer) < limit:
                break
        if left:
            asked = dict(islice(left.items(), None if self.is_draining else _MAX_LOOKED_UP))
            for progress in await self._outbox.progress(asked):
                del asked[progress.device_id]
                self._left_to_others.settle_by(progress)
            # A device that the outbox does not know was delivered. If a put is under way, its status may be the newest.
            for pending in asked.values():
                if pending.device_id not in self._being_put:
                    self._left_to_others.settle_gone(pending)
            self._dispatcher.progress.set()

    async def _write_completions(self) -> None:
        dispatcher = self._dispatcher
        while True:
            await dispatcher.news.wait()
            dispatcher.news.clear()
            owner, completed = self._lease.owner, dispatcher.take_completed()
            if owner is None or not completed:
                continue
            try:
                newer = await self._outbox.finish(owner, completed)
            except OutboxError as error:
                self._report("outcomes cannot be recorded", error)
                dispatcher.news.set()
                await asyncio.sleep(_RETRY_S)
            else:
                if owner == self._lease.owner:
                    dispatcher.written(completed)
                    await self._take_newer(owner, newer)
            dispatcher.progress.set()

    async def _take_newer(self, owner: int, newer: list[Claim]) -> None:
        if newer and self.is_draining:
            async with self._putting:  # a put under way would be answered as this worker's
                if owner != self._lease.owner:
                    return
                newer = self._dispatcher.give_back_newer(newer)
        self._dispatcher.take_claims(newer, {})

    def _answered(self) -> None:
        if self.error is not None:
            # A warning, as the failures are: whoever sees these should see their end.
            _log.warning("the outbox answers again")
        self.error, self.answered_s = None, self._loop.time()

    def _report(self, what: str, error: OutboxError) -> None:
        _log.warning("%s: %s; trying again", what, error, extra={"error": type(error).__name__})

    def _ended(self, task: asyncio.Task[None]) -> None:
        # These tasks end by cancellation only, unless there is a bug, here or in the engine.
        if not task.cancelled() and (error := task.exception()) is not None:
            self._dispatcher.engine.fail(error)

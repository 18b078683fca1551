"""Between an engine and an outbox that other processes use too: what is put, claimed, and noted as done."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from attrs import evolve

from ._errors import APIError, InvalidDeviceIdError, OutboxError
from ._events import LeaseLost
from ._lease import Lease
from ._settling import claimed_entry, doubt_until_s, release_of
from ._slot import Entry
from .outbox._base import Draft, Finish
from .outbox._grouping import Grouping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ._encode import Call
    from ._engine import Engine
    from ._errors import PrintOSError
    from ._events import Hooks
    from ._models import PushResult
    from ._operations import Operations
    from ._slot import Outcome, Promises, Slot
    from .outbox import Claim, Kept, Outbox

    Waiter = asyncio.Future[PushResult] | None
    Settle = Callable[[Entry, Outcome, PrintOSError | None, int | None], None]

_log = logging.getLogger("printos_async.outbox")

# How soon a worker sees what others have put.
POLL_S = 0.5
_RETRY_S = 0.2
_CLAIMED_AT_ONCE = 500
_LOOKED_UP_AT_ONCE = 1_000
# Nothing may take longer at the end: a database that hangs finds out by the lease.
_LEAVING_S = 0.4


class Delivery:
    """Owns devices of the outbox as long as the engine has something to do for them.

    ``accepted`` is called with each status that is new to this process, ``settle`` with those of which another
    process was seen to have made something.
    """

    def __init__(
        self,
        outbox: Outbox,
        engine: Engine,
        operations: Operations,
        promises: Promises,
        hooks: Hooks,
        *,
        timeout_s: float,
        max_devices: int,
        accepted: Callable[[Entry], None],
        settle: Settle,
    ) -> None:
        self._outbox = outbox
        self._engine = engine
        self._operations = operations
        self._promises = promises
        self._hooks = hooks
        self._timeout_s = timeout_s
        self._max_devices = max_devices
        self._accepted = accepted
        self._settle = settle
        self._loop = asyncio.get_running_loop()
        self._lease = Lease(outbox, on_kept=self._lease_kept, on_lost=self._lease_lost)
        self._puts: Grouping[tuple[Call, Waiter], None] = Grouping(self._keep)
        self._held: dict[str, int] = {}  # owned devices, with the newest number that the engine knows
        self._elsewhere: dict[str, Entry] = {}  # put here, and for others to send or for later
        self._outcomes: dict[
            str, tuple[int, int, str | None]
        ] = {}  # of held devices: number, attempts, error
        self._finished: dict[str, Finish] = {}  # to be noted in the outbox
        self._kept: dict[str, Finish] = {}  # finished, and owned for what is remembered
        self._noting = False
        self._news = asyncio.Event()
        self._done = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.draining = False

    async def start(self) -> None:
        """Become a worker of the outbox.

        Raises:
            OutboxError: It cannot be read or written.
        """
        self._engine.timetable.watcher = self
        await self._lease.join()
        for work in (self._lease.keep(), self._claim(), self._note()):
            task = self._loop.create_task(work)
            task.add_done_callback(self._ended)
            self._tasks.append(task)

    async def put(self, call: Call, waiter: Waiter) -> None:
        """Keep a status; in the outbox when this returns.

        Raises:
            OutboxError: The outbox cannot be written.
        """
        await self._puts.submit([(call, waiter)])

    async def drained(self) -> None:
        """Wait until everything put here has an outcome, and everything sent here is noted in the outbox."""
        self.draining = True
        while self._elsewhere or self._finished or self._noting or self._engine.occupancy.devices:
            self._done.clear()
            await self._done.wait()

    def left_to_others(self) -> list[Entry]:
        """Give what was put here, and is for others to send or for later."""
        return list(self._elsewhere.values())

    async def aclose(self) -> None:
        """Give back everything that is not sent; within half a second, or else the lease's end does it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        owner = self._lease.owner
        try:
            async with asyncio.timeout(_LEAVING_S):
                await self._puts.settle()
                if owner is not None:
                    await self._outbox.finish(owner, list(self._finished.values()))
                    now_s = self._loop.time()
                    released = [
                        release_of(slot, now_s=now_s, timeout_s=self._timeout_s) for slot in self._left()
                    ]
                    await self._outbox.release(owner, released)
                    await self._outbox.leave(owner)
        except (OutboxError, TimeoutError) as error:
            name = type(error).__name__
            _log.warning("what was not sent is free when the lease ends: %s", name, extra={"error": name})

    # What the engine tells

    def settled(self, entry: Entry, outcome: Outcome, error: PrintOSError | None) -> None:
        """Take note of what became of a status that the engine had."""
        # A client that was closed, or may not send at all, says nothing about a status: it stays in the outbox.
        if outcome != "superseded" and (error is None or isinstance(error, APIError)):
            reason = None if error is None else str(error)
            self._outcomes[entry.device_id] = (entry.seq, entry.attempts, reason)

    def rested(self, slot: Slot) -> None:
        """Note in the outbox what became of a device's newest status."""
        device_id = slot.device_id
        outcome = self._outcomes.pop(device_id, None)
        if outcome is not None and device_id in self._held:
            seq, attempts, error = outcome
            now_s = self._loop.time()
            hold_s = max(0.0, slot.not_before_s - now_s)
            keep = slot.remembers(self._promises, now_s=now_s)
            self._finished[device_id] = finish = Finish(device_id, seq, hold_s, attempts, error, keep)
            if keep:
                self._kept[device_id] = finish
            self._news.set()
        self._done.set()

    def forgotten(self, slot: Slot) -> None:
        """Give a device back that was only owned for what was remembered."""
        finish = self._kept.pop(slot.device_id, None)
        if finish is not None:
            self._finished[slot.device_id] = evolve(finish, hold_s=0.0, keep=False)
            self._news.set()

    # What the outbox tells

    async def _keep(self, _: object, puts: list[tuple[Call, Waiter]]) -> list[None]:
        room = self._engine.occupancy.devices + len(puts) <= self._max_devices
        owner = self._lease.owner if room else None
        kept = await self._outbox.put(
            [Draft(call.device_id or "", call.body) for call, _ in puts], owner=owner
        )
        now_s = self._loop.time()
        for (call, waiter), one in zip(puts, kept, strict=True):
            self._take_kept(Entry(one.seq, call.device_id or "", call, now_s, waiter=waiter), one, owner)
        return [None] * len(puts)

    def _take_kept(self, entry: Entry, kept: Kept, owner: int | None) -> None:
        known = self._held.get(entry.device_id, 0)
        if known == entry.seq and self._engine.adopt(entry):
            return  # it came by another way in the same moment
        self._accepted(entry)
        if known > entry.seq:
            self._settle(entry, "superseded", None, known)
        elif kept.claimed and known < entry.seq and owner is not None and owner == self._lease.owner:
            self._hand_over(entry, kept)
        else:
            self._leave_to_others(entry)

    def _take_claims(self, claims: Iterable[Claim]) -> None:
        for claim in claims:
            device_id = claim.device_id
            if claim.seq <= self._held.get(device_id, 0):
                continue
            entry = self._elsewhere.pop(device_id, None)
            if entry is not None and entry.seq != claim.seq:
                self._settle(entry, "superseded", None, claim.seq)
                entry = None
            if entry is None:
                try:
                    entry = claimed_entry(claim, self._operations, now_s=self._loop.time())
                except InvalidDeviceIdError as error:  # put by something else than this package
                    self._finished[device_id] = Finish(device_id, claim.seq, error=str(error))
                    self._news.set()
                    continue
                self._accepted(entry)
            self._hand_over(entry, claim)

    def _hand_over(self, entry: Entry, claim: Claim | Kept) -> None:
        self._held[entry.device_id] = entry.seq
        self._kept.pop(entry.device_id, None)
        until_s = doubt_until_s(claim, self._promises, now_s=self._loop.time())
        self._engine.take(entry, doubt_until_s=until_s)

    def _leave_to_others(self, entry: Entry) -> None:
        older = self._elsewhere.get(entry.device_id)
        if older is not None:
            self._settle(older, "superseded", None, entry.seq)
        self._elsewhere[entry.device_id] = entry

    # The lease

    def _lease_kept(self, ends_s: float) -> None:
        # Whatever is sent has ended when the lease does.
        self._engine.timetable.open_until(ends_s - self._timeout_s)

    def _lease_lost(self) -> None:
        devices = len(self._held)
        self._held.clear()
        self._outcomes.clear()
        self._finished.clear()
        self._kept.clear()
        for entry in self._engine.drop():
            self._leave_to_others(entry)
        self._hooks.emit(LeaseLost(devices))  # logged even if nobody watches

    # Work in the background

    async def _claim(self) -> None:
        occupancy = self._engine.occupancy
        enough = self._max_devices - max(1, min(_CLAIMED_AT_ONCE, self._max_devices // 2) // 2)
        while True:
            room = min(self._max_devices - occupancy.devices, _CLAIMED_AT_ONCE)
            owner = self._lease.owner
            claimed = 0
            try:
                if owner is not None and room > 0 and (self._elsewhere or not self.draining):
                    claims = await self._outbox.claim(owner, room)
                    claimed = len(claims)
                    if owner == self._lease.owner:
                        self._take_claims(claims)
                if claimed < room:
                    await self._look_around()
            except OutboxError as error:
                self._report("not claimed", error)
            if claimed >= room:  # there may be more
                await occupancy.wait_until_below(enough)
            else:
                await asyncio.sleep(POLL_S)

    async def _look_around(self) -> None:
        """See what others have put for devices that wait here, and what became of those that were left to others."""
        owner = self._lease.owner
        waiting = {
            slot.device_id: self._held.get(slot.device_id, 0) for slot in self._engine.timetable.delayed()
        }
        if owner is not None and waiting:
            newer = await self._outbox.newer(owner, waiting)
            if owner == self._lease.owner:
                self._take_claims(newer)
        if not self._elsewhere:
            return
        for progress in await self._outbox.progress(list(self._elsewhere)[:_LOOKED_UP_AT_ONCE]):
            entry = self._elsewhere.get(progress.device_id)
            if entry is None or progress.done_seq < entry.seq:
                if entry is not None:  # last in the next look
                    self._elsewhere[progress.device_id] = self._elsewhere.pop(progress.device_id)
                continue
            del self._elsewhere[progress.device_id]
            entry.attempts = progress.attempts
            if progress.done_seq > entry.seq:
                self._settle(entry, "superseded", None, progress.done_seq)
            elif progress.error is None:
                self._settle(entry, "sent", None, None)
            else:
                self._settle(entry, "failed", OutboxError(f"given up elsewhere: {progress.error}"), None)
        self._done.set()

    async def _note(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            finished, self._finished = self._finished, {}
            owner = self._lease.owner
            if owner is None or not finished:
                continue
            self._noting = True
            try:
                newer = await self._outbox.finish(owner, list(finished.values()))
            except OutboxError as error:
                self._report("not noted", error)
                if owner == self._lease.owner:
                    self._finished = finished | self._finished
                    self._news.set()
                await asyncio.sleep(_RETRY_S)
            else:
                if owner == self._lease.owner:
                    for finish in finished.values():
                        if not finish.keep and self._held.get(finish.device_id) == finish.seq:
                            del self._held[finish.device_id]
                    self._take_claims(newer)
            finally:
                self._noting = False
                self._done.set()

    # The end

    def _left(self) -> list[Slot]:
        return [slot for slot in self._engine.timetable.slots.values() if slot.device_id in self._held]

    def _report(self, what: str, error: OutboxError) -> None:
        _log.warning("%s: %s", what, error, extra={"error": type(error).__name__})

    def _ended(self, task: asyncio.Task[None]) -> None:
        # These tasks only end by cancellation, unless there is a bug or the engine has ended by one.
        if not task.cancelled() and (error := task.exception()) is not None:
            self._engine.fail(error)

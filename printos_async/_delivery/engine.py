"""The engine under every push: each device's newest status, one request at a time, retried where that may help."""

from __future__ import annotations

import asyncio
import contextvars
import math
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

from printos_async._errors import APIError, PrintOSError
from printos_async._events import ReassertionFailed, StatusReasserted
from printos_async._execution.retry import is_ambiguous, is_from_intermediary, is_local

from .device_state import Entry, Slot
from .gauge import Occupancy
from .scheduler import Timetable, too_late

if TYPE_CHECKING:
    from collections.abc import Callable

    from printos_async._api.requests import Call, Operations
    from printos_async._api.responses import Answers
    from printos_async._execution.executor import Executor
    from printos_async._models import DeviceId, DeviceStatusUpdate, PushResult

    from .device_state import Outcome, Promises

    Settle = Callable[[Entry, Outcome, PrintOSError | None, int | None], None]


# How soon who drains sees that what is left cannot be sent in time.
_LOOK_S = 0.25


class Engine:
    """Sends what it accepts, in tasks of its own, as many as the limiter allows.

    ``settle`` is called once for each accepted status: with its outcome, its error if it failed, and the sequence
    number of the newer one if it was superseded.
    """

    def __init__(
        self, core: Executor, operations: Operations, answers: Answers, promises: Promises, settle: Settle
    ) -> None:
        self._core = core
        self._operations = operations
        self._answers = answers
        self._promises = promises
        self._settle = settle
        self._loop = asyncio.get_running_loop()
        # Not that of whoever happens to be first to put: a worker outlives it.
        self._context = contextvars.copy_context()
        self.occupancy = Occupancy()
        self.timetable = Timetable(
            core, promises, self.occupancy, fail=self._gave_up, add_worker=self._start_worker
        )
        self._slots = self.timetable.slots
        self._seq = count(1)
        self._workers: set[asyncio.Task[None]] = set()
        self.in_flight = 0
        self.requests = 0
        self.on_lost: Callable[[Entry], None] | None = None
        core.circuit_watchers.add(self.timetable)

    async def drained(self, until_s: float) -> None:
        """Wait until nothing is to be done, or until nothing of it may come to its turn by then.

        Raises:
            BaseException: What ended the work: a bug of a callback.
        """
        while self.in_flight or self.timetable.may_progress_by(until_s):
            with suppress(TimeoutError):
                async with asyncio.timeout(None if until_s == math.inf else _LOOK_S):
                    await self.occupancy.wait_until_below(1)
                    break
        if self.occupancy.crash is not None:
            raise self.occupancy.crash

    # Accepting

    def encode(self, device_id: DeviceId, status: DeviceStatusUpdate) -> Call:
        """Make the request of a status, which later changes of the model do not reach.

        Raises:
            InvalidDeviceIdError: The identifier would change the request's path.
            InvalidStatusError: The status cannot be sent as given.
        """
        return self._operations.update_device_status(device_id, status)

    def accept(self, call: Call, waiter: asyncio.Future[PushResult] | None = None) -> Entry:
        """Take an encoded status; one of the same device that is waiting is superseded."""
        entry = Entry(next(self._seq), call.device_id or "", call, self._loop.time(), waiter=waiter)
        self.take(entry)
        return entry

    def next_seq(self) -> int:
        """Give the next number of a status; those of all devices are one sequence."""
        return next(self._seq)

    def take(self, entry: Entry, *, not_before_s: float = 0.0, doubt_until_s: float | None = None) -> None:
        """Take a status that has its number already.

        Args:
            entry: The status.
            not_before_s: Nothing is sent for its device earlier.
            doubt_until_s: Until then somebody else's write may still land over it.
        """
        device_id = entry.device_id
        slot = self._slots.get(device_id)
        if slot is None:
            slot = self._slots[device_id] = Slot(device_id)
        if doubt_until_s is not None:
            slot.inherit_doubt(doubt_until_s, self._promises)
        if not_before_s:
            slot.not_before_s = max(slot.not_before_s, not_before_s)
        replaced, slot.waiting = slot.waiting, entry
        if self._promises.deadline_s is not None:
            self.timetable.arm_deadline(slot, entry)
        if replaced is not None:
            entry.has_replaced = True
            self._settle(replaced, "superseded", None, entry.seq)
            if slot.retrying:  # a newer status is no retry: it is due after the backoff, without a token
                slot.retrying = False
                self.timetable.schedule(slot)
        elif slot.in_flight is None:
            self.timetable.schedule(slot)

    def adopt(self, entry: Entry) -> bool:
        """Let who waits for a status have the result of the same one that is here; False if that is gone."""
        slot = self._slots.get(entry.device_id)
        for one in () if slot is None else (slot.waiting, slot.in_flight):
            if one is not None and one.seq == entry.seq and not one.has_ended:
                one.waiter = one.waiter or entry.waiter
                return True
        return False

    def drop(self) -> list[Entry]:
        """Take back everything that waits: others see to it.

        What is in flight ends by itself, and is not sent again: ``on_lost`` gets it if it fails.
        """
        dropped = []
        for slot in tuple(self._slots.values()):
            if slot.in_flight is not None:
                slot.in_flight.is_lost = True
            if slot.waiting is not None:
                dropped.append(slot.waiting)
            slot.waiting, slot.must_reassert = None, False
            self.timetable.schedule(slot)
        return dropped

    def withdraw(self, entry: Entry) -> bool:
        """Take back a status that is still waiting; False if it is not, or if another one made way for it."""
        slot = self._slots.get(entry.device_id)
        if slot is None or slot.waiting is not entry or entry.has_replaced:
            return False
        slot.waiting = None
        self.timetable.schedule(slot)
        return True

    def is_active(self, device_id: str) -> bool:
        """Whether something is to be done for this device."""
        slot = self._slots.get(device_id)
        return slot is not None and slot.active

    def unsettled(self) -> list[Entry]:
        """Give what was accepted and has no outcome yet."""
        return [
            entry
            for slot in self._slots.values()
            for entry in (slot.in_flight, slot.waiting)
            if entry is not None and entry is not slot.sent  # which is settled, and only sent again
        ]

    def fail(self, crash: BaseException) -> None:
        """End the work because of a bug, which those who wait for it or for a result raise."""
        self.occupancy.end(crash)
        for entry in self.unsettled():
            entry.abandon(crash)

    async def aclose(self) -> None:
        """End the workers at once. What is in flight ends by itself, at its deadline at the latest.

        Cancelling leaves nothing undone but the waiting.
        """
        self._core.circuit_watchers.discard(self.timetable)
        self.timetable.close()
        workers = tuple(self._workers)
        for worker in workers:
            worker.cancel()
        self.occupancy.end()
        await asyncio.gather(*workers, return_exceptions=True)

    # Sending

    def _start_worker(self) -> None:
        if len(self._workers) < self._core.limiter.limit + self._core.limiter.overdue:
            worker = self._loop.create_task(self._work(), context=self._context.copy())
            self._workers.add(worker)
            worker.add_done_callback(self._worker_ended)

    def _worker_ended(self, worker: asyncio.Task[None]) -> None:
        # A worker only ends by cancellation, unless there is a bug: then nobody must wait for it forever.
        self._workers.discard(worker)
        if not worker.cancelled() and (error := worker.exception()) is not None:
            self.fail(error)

    async def _work(self) -> None:
        limiter, health, timetable = self._core.limiter, self._core.health, self.timetable
        while True:
            slot = timetable.take()
            if slot is None:
                await timetable.ready.park()
                continue
            if not limiter.try_acquire():
                closings = health.closings
                await limiter.acquire()
                if health.closings != closings or not timetable.is_open():
                    limiter.release()
                    # While it waited for its turn, the host asked for a pause, or the lease ended.
                    timetable.ready.slots.appendleft(slot)
                    continue
            try:
                slot.queued = False
                # Taken only now: a newer status may have come while this one waited for its turn.
                entry = slot.next_entry
                if entry is not None and not self._is_settled_unsent(slot, entry):
                    slot.waiting, slot.in_flight = None, entry
                    self.in_flight += 1
                    try:
                        await self._send(slot, entry)
                    finally:
                        self.in_flight -= 1
                    slot.in_flight = None  # a worker that was ended leaves it: the entry has no outcome
                timetable.schedule(slot)
            finally:
                limiter.release()

    def _is_settled_unsent(self, slot: Slot, entry: Entry) -> bool:
        """Settle a status that needs no request: one that came too late, or that the server has already."""
        if slot.sent is None and self._promises.deadline_s is None:
            return False
        now_s = self._loop.time()
        if entry is not slot.sent and self.timetable.is_late(entry, now_s):
            # It was late when it came: from an outbox, in which it had to wait for its time.
            self._settle(entry, "failed", slot.error or too_late(entry), None)
        elif slot.is_unchanged(entry, self._promises, now_s=now_s):
            self._settle(entry, "sent", None, None)
        else:
            return False
        slot.waiting = None
        return True

    async def _send(self, slot: Slot, entry: Entry) -> None:
        entry.attempts += 1
        self.requests += 1
        started_s = self._loop.time()
        is_probe = self._promises.patient and self._core.health.circuit == "open"
        try:
            await self._core.attempt(
                entry.call,
                self._answers.acknowledgement,
                attempt=entry.attempts,
                is_probe=is_probe,
                until_s=self.timetable.ends_s,
            )
        except APIError as error:
            self._failed(slot, entry, error, started_s)
        except PrintOSError as error:  # the client was closed, or its configuration forbids the request
            self._refused(slot, entry, error)
        else:
            self._core.budget.refund(retried=slot.has_token)
            again = entry is slot.sent
            slot.acknowledged(entry, self._promises, started_s=started_s)
            if not again:
                self._settle(entry, "sent", None, None)
            elif self._core.hooks:
                self._core.hooks.emit(StatusReasserted(slot.device_id, entry.seq))
            if entry.is_lost:
                slot.must_reassert = entry.is_lost = False
            if slot.must_reassert:  # being sent once more counts anew
                entry.attempts, entry.exempt_attempts, entry.failed_s = 0, 0, None
        slot.has_token = False

    def _failed(self, slot: Slot, entry: Entry, error: APIError, started_s: float) -> None:
        now_s = self._loop.time()
        error.attempts = entry.attempts
        slot.failed(entry)
        if is_ambiguous(error):
            slot.suspect(entry, self._promises, now_s=now_s)
        if entry.is_lost:
            entry.is_lost = False  # should it come back by a new claim, it is tried like any other
            if entry is not slot.sent and self.on_lost is not None:
                self.on_lost(entry)
            return
        delay_s = self._retry_delay_s(entry, error, now_s)
        late = entry is not slot.sent and self.timetable.is_late(entry, now_s)  # what was sent was in time
        if delay_s is None or self._core.budget.capacity < 1 or late:
            if self._promises.min_interval_s:
                slot.not_before_s = max(slot.not_before_s, started_s + self._promises.min_interval_s)
            self._refused(slot, entry, error)
            return
        slot.error = error
        slot.not_before_s = max(slot.not_before_s, now_s + delay_s)
        slot.failed_s = now_s
        # The budget protects the host from more than it is asked for: probes, newer statuses and what was never
        # sent are not more.
        slot.retrying = (
            slot.waiting is None
            and not is_local(error)
            and not (self._promises.patient and self._core.health.circuit == "open")
        )
        if entry is slot.sent:
            return
        if slot.waiting is None:
            slot.waiting = entry
            self.timetable.arm_deadline(slot, entry)
        else:
            # A retry sends the newest, never the one that failed.
            slot.waiting.has_replaced = True
            self._settle(entry, "superseded", None, slot.waiting.seq)

    def _refused(self, slot: Slot, entry: Entry, error: PrintOSError) -> None:
        if entry is slot.sent:
            slot.must_reassert = False
            self._core.hooks.emit(ReassertionFailed(slot.device_id, entry.seq, type(error).__name__))
        else:
            self._settle(entry, "failed", error, None)

    def _gave_up(self, entry: Entry, error: PrintOSError | None) -> None:
        self._settle(entry, "failed", error, None)

    def _retry_delay_s(self, entry: Entry, error: APIError, now_s: float) -> float | None:
        if not self._promises.patient:
            return self._core.retry_delay_s(entry.call, error, attempt=entry.attempts)
        health = self._core.health
        is_open = health.circuit == "open"
        is_first, previous_s = entry.failed_s is None, entry.failed_s or 0.0
        entry.failed_s = now_s
        # Where nothing has succeeded since this status failed before, it is the host that fails, not the status.
        host_fails = is_open or (not is_first and health.succeeded_s <= previous_s)
        is_exempt = host_fails or is_from_intermediary(error) or is_local(error)
        entry.exempt_attempts += is_exempt
        counted = entry.attempts - entry.exempt_attempts
        if counted >= self._core.max_attempts and not is_exempt and not is_first:
            return None
        delay_s = self._core.retry_delay_s(entry.call, error, attempt=entry.attempts, patient=True)
        return 0.0 if delay_s is not None and is_open else delay_s

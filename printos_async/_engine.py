"""The engine under every push: each device's newest status, one request at a time, retried where that may help."""

from __future__ import annotations

import asyncio
import contextvars
from collections import OrderedDict
from itertools import count
from typing import TYPE_CHECKING

from ._errors import APIError, PrintOSError, RequestTimeoutError
from ._events import ReassertionFailed, StatusReasserted
from ._mapping import pause_error
from ._retry import is_ambiguous
from ._schedule import ReadyQueue, TimeHeap
from ._slot import Entry, Slot

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._answers import Answers
    from ._core import Core
    from ._encode import Call
    from ._models import DeviceId, DeviceStatusUpdate, PushResult
    from ._operations import Operations
    from ._slot import Outcome, Promises

    Settle = Callable[[Entry, Outcome, PrintOSError | None, int | None], None]

# With the retry budget empty, the engine looks again this soon: a success may have given a token back.
_BUDGET_POLL_S = 0.05


class Engine:
    """Sends what it accepts, in tasks of its own, as many as the limiter allows.

    ``settle`` is called once for each accepted status: with its outcome, its error if it failed, and the sequence
    number of the newer one if it was superseded.
    """

    def __init__(
        self, core: Core, operations: Operations, answers: Answers, promises: Promises, settle: Settle
    ) -> None:
        self._core = core
        self._operations = operations
        self._answers = answers
        self._promises = promises
        self._settle = settle
        self._loop = asyncio.get_running_loop()
        # Not that of whoever happens to be first to put: a worker outlives it.
        self._context = contextvars.copy_context()
        self._slots: dict[str, Slot] = {}
        self._seq = count(1)
        self._ready = ReadyQueue()
        self._delayed = TimeHeap(self._release_due)
        self._tokenless: OrderedDict[Slot, None] = OrderedDict()  # retries that wait for the retry budget
        self._token_timer: asyncio.TimerHandle | None = None
        self._deadlines = TimeHeap(self._expire)
        self._workers: set[asyncio.Task[None]] = set()
        self._watchers: list[tuple[int, asyncio.Future[None]]] = []
        self.active_devices = 0
        self.in_flight = 0
        self.requests = 0
        self.crash: BaseException | None = None
        self._closed = False
        core.circuit_watchers.add(self)

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
        device_id = call.device_id or ""
        entry = Entry(next(self._seq), device_id, call, self._loop.time(), waiter=waiter)
        slot = self._slots.get(device_id)
        if slot is None:
            slot = self._slots[device_id] = Slot(device_id)
        replaced, slot.waiting = slot.waiting, entry
        if self._promises.deadline_s is not None:
            self._arm_deadline(slot, entry)
        if replaced is not None:
            entry.has_replaced = True
            self._settle(replaced, "superseded", None, entry.seq)
        elif slot.in_flight is None:
            self._schedule(slot)
        return entry

    def withdraw(self, entry: Entry) -> bool:
        """Take back a status that is still waiting; False if it is not, or if another one made way for it."""
        slot = self._slots.get(entry.device_id)
        if slot is None or slot.waiting is not entry or entry.has_replaced:
            return False
        slot.waiting = None
        self._schedule(slot)
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

    async def wait_until_below(self, devices: int) -> None:
        """Wait until fewer than this many devices have something to be done, or the engine is closed.

        Raises:
            BaseException: What ended the engine: a bug of a callback.
        """
        while self.active_devices >= devices and self.crash is None and not self._closed:
            watcher = (devices, self._loop.create_future())
            self._watchers.append(watcher)
            try:
                await watcher[1]
            finally:
                self._watchers.remove(watcher)
        if self.crash is not None:
            raise self.crash

    def fail(self, crash: BaseException) -> None:
        """End the work because of a bug, which ``wait_until_below`` and those who wait for a result raise."""
        self.crash = self.crash or crash
        self._tell_waiters(crash)
        self._notify()

    async def aclose(self, reason: PrintOSError | None = None) -> None:
        """End the workers at once. What is in flight ends by itself, at its deadline at the latest.

        Those who wait for a result get the reason. Cancelling leaves nothing undone but the waiting.
        """
        self._closed = True
        self._core.circuit_watchers.discard(self)
        for timer in (self._ready, self._delayed, self._deadlines, self._token_timer):
            if timer is not None:
                timer.cancel()
        workers = tuple(self._workers)
        for worker in workers:
            worker.cancel()
        if reason is not None:
            self._tell_waiters(reason)
        self._notify()
        await asyncio.gather(*workers, return_exceptions=True)

    def _tell_waiters(self, error: BaseException) -> None:
        for entry in self.unsettled():
            if entry.waiter is not None and not entry.waiter.done():
                entry.waiter.set_exception(error)

    # Scheduling

    def _schedule(self, slot: Slot) -> None:
        """Put a slot where it belongs now, unless a worker holds it or is about to take it."""
        active = slot.active
        if active is not slot.counted:
            self._count(slot, active=active)
        if slot.queued or slot.in_flight is not None or self._closed:
            return
        now_s = self._loop.time()
        due_s = slot.due_s(self._promises)
        if slot.retrying:
            slot.retrying = active
        if self._tokenless:
            self._tokenless.pop(slot, None)
        if slot.place is not None:
            self._delayed.give_up(slot.place)
            slot.place = None
        if due_s > now_s or slot.retrying:
            slot.place = self._delayed.push(due_s, slot)
        elif not active:
            self._forget(slot)
        elif not self._ready.append(slot):
            self._start_worker()

    def _forget(self, slot: Slot) -> None:
        del self._slots[slot.device_id]
        if slot.deadline is not None:
            self._deadlines.give_up(slot.deadline)

    def _release_due(self) -> None:
        now_s = self._loop.time()
        while (slot := self._delayed.pop_due(now_s)) is not None:
            slot.place = None
            if slot.retrying:
                self._tokenless[slot] = None
            else:
                self._schedule(slot)
        self._delayed.rearm()
        self._release_tokenless()

    def _release_tokenless(self) -> None:
        """Let retries go for which the budget has a token, in the order in which they came."""
        now_s = self._loop.time()
        while self._tokenless and self._core.budget.take(now_s=now_s):
            slot, _ = self._tokenless.popitem(last=False)
            slot.retrying = False
            self._schedule(slot)
        if not self._promises.patient and self._core.health.seems_down:
            while self._tokenless:  # an outage would otherwise take as long as the fleet is large
                self._give_up(self._tokenless.popitem(last=False)[0])
        if self._token_timer is not None:
            self._token_timer.cancel()
            self._token_timer = None
        if self._tokenless:
            self._token_timer = self._loop.call_at(now_s + _BUDGET_POLL_S, self._release_tokenless)

    def _give_up(self, slot: Slot) -> None:
        entry, slot.waiting = slot.waiting, None
        if entry is not None:
            self._settle(entry, "failed", slot.error, None)
        else:
            slot.must_reassert = False
        self._schedule(slot)

    def _arm_deadline(self, slot: Slot, entry: Entry) -> None:
        if self._promises.deadline_s is not None and slot.deadline is None:
            slot.deadline = self._deadlines.push(entry.accepted_s + self._promises.deadline_s, slot)

    def _expire(self) -> None:
        now_s = self._loop.time()
        while (slot := self._deadlines.pop_due(now_s)) is not None:
            slot.deadline = None
            entry = slot.waiting
            if entry is not None and not self._is_late(entry, now_s):
                self._arm_deadline(slot, entry)  # a newer status has replaced the one that armed it
            elif entry is not None:
                slot.error = slot.error or _too_late(entry)
                self._give_up(slot)
        self._deadlines.rearm()

    def _is_late(self, entry: Entry, now_s: float) -> bool:
        return self._promises.deadline_s is not None and entry.accepted_s + self._promises.deadline_s <= now_s

    def circuit_changed(self) -> None:
        """Line up what is in backoff: an open circuit paces the probes, and behind a closed one all may go."""
        now_s = self._loop.time()
        for slot in tuple(self._slots.values()) if self._promises.patient else ():
            if slot.retrying and not slot.is_held(self._promises, now_s=now_s):
                slot.retrying, slot.not_before_s = False, now_s
                self._schedule(slot)
        self._ready.wake_all()

    def _count(self, slot: Slot, *, active: bool) -> None:
        slot.counted = active
        self.active_devices += 1 if active else -1
        if not active and self._watchers:
            self._notify()

    def _notify(self) -> None:
        for devices, watcher in self._watchers:
            if watcher.done():
                continue
            if self.active_devices < devices or self.crash is not None or self._closed:
                watcher.set_result(None)

    # Sending

    def _start_worker(self) -> None:
        if len(self._workers) < self._core.limiter.limit:
            worker = self._loop.create_task(self._work(), context=self._context.copy())
            self._workers.add(worker)
            worker.add_done_callback(self._worker_ended)

    def _worker_ended(self, worker: asyncio.Task[None]) -> None:
        # A worker only ends by cancellation, unless there is a bug: then nobody must wait for it forever.
        self._workers.discard(worker)
        if not worker.cancelled() and (error := worker.exception()) is not None:
            self.fail(error)

    async def _work(self) -> None:
        limiter, health = self._core.limiter, self._core.health
        while True:
            slot = await self._next()
            if not limiter.try_acquire():
                closings = health.closings
                await limiter.acquire()
                if health.closings != closings:
                    limiter.release()
                    self._ready.appendleft(slot)  # while it waited for its turn, the host asked for a pause
                    continue
            try:
                slot.queued = False
                # Taken only now: a newer status may have come while this one waited for its turn.
                entry = slot.next_entry
                if entry is None:
                    pass
                elif slot.is_unchanged(entry, self._promises, now_s=self._loop.time()):
                    slot.waiting = None
                    self._settle(entry, "sent", None, None)
                else:
                    slot.waiting, slot.in_flight = None, entry
                    self.in_flight += 1
                    try:
                        await self._send(slot, entry)
                    finally:
                        self.in_flight -= 1
                    slot.in_flight = None  # a worker that was ended leaves it: the entry has no outcome
                self._schedule(slot)
            finally:
                limiter.release()

    async def _next(self) -> Slot:
        while True:
            if self._ready:
                now_s = self._loop.time()
                again_s = self._core.admit(now_s=now_s, patient=self._promises.patient)
                if again_s <= now_s:
                    slot = self._ready.popleft()
                    if self._ready:
                        self._start_worker()  # the limit may have grown
                    return slot
                if not self._promises.patient and again_s - now_s > self._core.max_delay_s:
                    self._turn_away(self._ready.popleft(), again_s - now_s)
                    continue
                self._ready.wake_at(again_s)
            await self._ready.park()

    def _turn_away(self, slot: Slot, pause_s: float) -> None:
        slot.queued = False
        if slot.waiting is not None:
            slot.error = slot.error or pause_error(slot.waiting.call, pause_s)
        self._give_up(slot)

    async def _send(self, slot: Slot, entry: Entry) -> None:
        entry.attempts += 1
        self.requests += 1
        started_s = self._loop.time()
        is_probe = self._promises.patient and self._core.health.circuit == "open"
        try:
            await self._core.attempt(
                entry.call, self._answers.acknowledgement, attempt=entry.attempts, is_probe=is_probe
            )
        except APIError as error:
            self._failed(slot, entry, error)
        except PrintOSError as error:  # the client was closed, or its configuration forbids the request
            self._refused(slot, entry, error)
        else:
            self._core.budget.refund(attempts=entry.attempts)
            again = entry is slot.sent
            slot.acknowledged(entry, self._promises, started_s=started_s)
            if not again:
                self._settle(entry, "sent", None, None)
            elif self._core.hooks:
                self._core.hooks.emit(StatusReasserted(slot.device_id, entry.seq))
            entry.attempts, entry.first_failure_s = 0, None  # should it be sent once more, that counts anew

    def _failed(self, slot: Slot, entry: Entry, error: APIError) -> None:
        now_s = self._loop.time()
        error.attempts = entry.attempts
        slot.failed(entry)
        if is_ambiguous(error):
            slot.suspect(entry, self._promises, now_s=now_s)
        delay_s = self._retry_delay_s(entry, error, now_s)
        late = entry is not slot.sent and self._is_late(entry, now_s)  # what was sent was in time
        if delay_s is None or self._core.budget.capacity < 1 or late:
            self._refused(slot, entry, error)
            return
        slot.error = error
        slot.not_before_s = max(slot.not_before_s, now_s + delay_s)
        slot.retrying = self._core.health.circuit == "closed" or not self._promises.patient
        if entry is slot.sent:
            return
        if slot.waiting is None:
            slot.waiting = entry
            self._arm_deadline(slot, entry)
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

    def _retry_delay_s(self, entry: Entry, error: APIError, now_s: float) -> float | None:
        if not self._promises.patient:
            return self._core.retry_delay_s(entry.call, error, attempt=entry.attempts)
        if entry.first_failure_s is None:
            entry.first_failure_s = now_s
        # Where nothing has succeeded since this status first failed, it is the host that fails, not the status.
        ailing = self._core.health.succeeded_s <= entry.first_failure_s
        delay_s = self._core.retry_delay_s(entry.call, error, attempt=entry.attempts, patient=ailing)
        return 0.0 if delay_s is not None and self._core.health.circuit == "open" else delay_s


def _too_late(entry: Entry) -> PrintOSError:
    call = entry.call
    return RequestTimeoutError(
        "not sent within deadline_s", method=call.method, path=call.path, attempts=0, may_have_arrived=False
    )

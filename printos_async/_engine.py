"""The scheduler under every push: one slot per device, the newest waiting status wins, one request at a time.

A slot is in exactly one place: the ready queue, the heap of those that wait for a time, or a worker's hands.
That alone keeps requests of one device from overlapping: the body carries no timestamp, so the server could not
drop a stale write.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Literal, TypeAlias

from attrs import define, frozen

from ._errors import APIError, PrintOSError, RequestTimeoutError
from ._events import StatusReasserted
from ._mapping import pause_error
from ._retry import is_ambiguous

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._answers import Answers
    from ._core import Core
    from ._encode import Call
    from ._models import DeviceStatusUpdate, PushResult
    from ._operations import Operations

# With the retry budget empty, the scheduler looks again this soon: a success may have given a token back.
_BUDGET_POLL_S = 0.05
_NO_ONE = 0  # no sequence number
_SEVERAL = -1

Outcome: TypeAlias = Literal["sent", "superseded", "failed"]


@frozen(kw_only=True)
class Promises:
    """What an engine keeps to; see ``PrintOSClient.status_pusher`` for the meaning of each.

    ``patient`` engines outlast an outage: while the circuit is open only probes are sent, and attempts that fail
    with the whole host do not count against a status. Others give each status its attempts and end.
    """

    patient: bool
    strict: bool = False
    ambiguity_s: float = 0.0
    min_interval_s: float = 0.0
    unchanged_max_age_s: float = 0.0
    deadline_s: float | None = None


@define(eq=False)
class Entry:
    """One accepted status. Encoded when it is accepted, so that a later change of the model changes nothing."""

    seq: int
    call: Call
    accepted_s: float
    attempts: int = 0
    first_failure_s: float | None = None
    waiter: asyncio.Future[PushResult] | None = None


@define(eq=False)
class Slot:
    """One device with something to send, or to remember."""

    device_id: str
    waiting: Entry | None = None  # the newest status that is not in flight
    in_flight: Entry | None = None
    queued: bool = False
    ticket: int = 0  # of its valid place in the heap
    not_before_s: float = 0.0
    retrying: bool = False
    error: PrintOSError | None = None  # of the last attempt, if that failed
    # What was acknowledged last, and until when an older write may still overtake it.
    sent: Entry | None = None
    sent_s: float = 0.0
    suspect_seq: int = _NO_ONE
    suspect_until_s: float = 0.0
    must_reassert: bool = False  # ``sent`` was acknowledged while another write could still land on it
    deadline_armed: bool = False
    counted: bool = False

    @property
    def active(self) -> bool:
        """Whether there is something to do for this device."""
        return self.waiting is not None or self.in_flight is not None or self.must_reassert


class Engine:
    """Sends what it accepts. ``settle`` is called once for each accepted status, with its outcome."""

    def __init__(
        self,
        core: Core,
        operations: Operations,
        answers: Answers,
        promises: Promises,
        settle: Callable[[Entry, Outcome, PrintOSError | None, int | None], None],
    ) -> None:
        self._core = core
        self._operations = operations
        self._answers = answers
        self._promises = promises
        self._settle = settle
        self._loop = asyncio.get_running_loop()
        self._slots: dict[str, Slot] = {}
        self._ready: deque[Slot] = deque()
        self._delayed: list[tuple[float, int, Slot]] = []
        self._deadlines: list[tuple[float, int, Slot]] = []
        self._ticket = count(1)
        self._seq = count(1)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._parked: deque[asyncio.Future[None]] = deque()
        self._watchers: list[tuple[int, asyncio.Future[None]]] = []
        self.active_devices = 0
        self.in_flight = 0
        self.requests = 0
        self.crash: BaseException | None = None
        core.engines.add(self)

    # Accepting

    def accept(
        self, device_id: str, status: DeviceStatusUpdate, waiter: asyncio.Future[PushResult] | None = None
    ) -> Entry:
        """Take a status; one of the same device that is waiting is superseded.

        Raises:
            InvalidDeviceIdError: The identifier would change the request's path.
            InvalidStatusError: The status cannot be sent as given.
        """
        call = self._operations.update_device_status(device_id, status)
        entry = Entry(next(self._seq), call, self._loop.time(), waiter=waiter)
        slot = self._slots.get(device_id)
        if slot is None:
            slot = self._slots[device_id] = Slot(device_id)
        replaced, slot.waiting = slot.waiting, entry
        if self._promises.deadline_s is not None and not slot.deadline_armed:
            self._arm_deadline(slot)
        if replaced is not None:
            self._settle(replaced, "superseded", None, entry.seq)
        elif slot.in_flight is None:
            self._schedule(slot)
        return entry

    def withdraw(self, entry: Entry) -> bool:
        """Take back a status that is still waiting; False if it is not, or not any more."""
        slot = self._slots.get(entry.call.device_id or "")
        if slot is None or slot.waiting is not entry:
            return False
        slot.waiting = None
        self._review(slot)
        return True

    def is_active(self, device_id: str) -> bool:
        """Whether something is to be done for this device."""
        slot = self._slots.get(device_id)
        return slot is not None and slot.active

    async def wait_until_below(self, devices: int) -> None:
        """Wait until fewer than this many devices have something to be done.

        Raises:
            BaseException: What ended the engine, such as a bug of a callback.
        """
        while self.active_devices >= devices and self.crash is None:
            watcher = (devices, self._loop.create_future())
            self._watchers.append(watcher)
            try:
                await watcher[1]
            finally:
                self._watchers.remove(watcher)
        if self.crash is not None:
            raise self.crash

    def fail(self, crash: BaseException) -> None:
        """End the work because of a bug, which ``wait_until_below`` raises."""
        if self.crash is None:
            self.crash = crash
        self._notify()

    def waiting_entries(self) -> list[Entry]:
        """Give what was accepted and is not settled."""
        return [
            entry
            for slot in self._slots.values()
            for entry in (slot.in_flight, slot.waiting)
            if entry is not None and entry is not slot.sent  # which is settled, and only sent again
        ]

    async def aclose(self) -> None:
        """End the workers at once. What is in flight ends by itself, at its deadline at the latest."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._core.engines.discard(self)
        workers = tuple(self._workers)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    # Scheduling

    def _schedule(self, slot: Slot) -> None:
        """Put a slot that no worker holds where it belongs now."""
        now_s = self._loop.time()
        if slot.waiting is not None:
            due_s = slot.not_before_s
        elif slot.must_reassert:
            due_s = max(slot.not_before_s, slot.suspect_until_s)
        else:
            due_s = max(
                slot.not_before_s, slot.suspect_until_s, slot.sent_s + self._promises.unchanged_max_age_s
            )
            if due_s <= now_s:
                self._slots.pop(slot.device_id, None)
                self._count(slot)
                return
        self._count(slot)
        if slot.queued:
            return
        slot.ticket = next(self._ticket)
        if due_s <= now_s and not slot.retrying:
            self._make_ready(slot)
        else:
            heapq.heappush(self._delayed, (due_s, slot.ticket, slot))
            if self._delayed[0][2] is slot:
                self._wake_at("delayed", due_s, self._release_due)

    def _make_ready(self, slot: Slot) -> None:
        slot.queued = True
        self._ready.append(slot)
        self._unpark()

    def _unpark(self) -> None:
        while self._parked:
            waiter = self._parked.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        if len(self._workers) < self._core.limiter.limit:
            self._start_worker()

    def _start_worker(self) -> None:
        worker = self._loop.create_task(self._work())
        self._workers.add(worker)
        worker.add_done_callback(self._worker_ended)

    def _wake_at(self, name: str, when_s: float, callback: Callable[[], None]) -> None:
        timer = self._timers.get(name)
        if timer is not None:
            timer.cancel()
        self._timers[name] = self._loop.call_at(when_s, callback)

    def _release_due(self) -> None:
        now_s = self._loop.time()
        while self._delayed and self._delayed[0][0] <= now_s:
            _, ticket, slot = self._delayed[0]
            if ticket != slot.ticket or slot.queued or slot.in_flight is not None:
                heapq.heappop(self._delayed)  # its place is another one by now
                continue
            if slot.retrying and not self._core.budget.take(now_s=now_s):
                if self._promises.patient or not self._core.health.seems_down:
                    self._wake_at("delayed", now_s + _BUDGET_POLL_S, self._release_due)
                    return
                # An outage would otherwise take as long as the fleet is large.
                heapq.heappop(self._delayed)
                self._give_up(slot)
                continue
            heapq.heappop(self._delayed)
            slot.retrying = False
            if slot.active:
                self._make_ready(slot)
            else:
                self._schedule(slot)
        if self._delayed:
            self._wake_at("delayed", self._delayed[0][0], self._release_due)

    def _give_up(self, slot: Slot) -> None:
        entry, slot.waiting, slot.retrying = slot.waiting, None, False
        if entry is not None:
            self._settle(entry, "failed", slot.error, None)
        self._schedule(slot)

    def _arm_deadline(self, slot: Slot) -> None:
        entry, deadline_s = slot.waiting, self._promises.deadline_s
        assert entry is not None  # noqa: S101  # callers have just set it
        assert deadline_s is not None  # noqa: S101  # callers have checked
        slot.deadline_armed = True
        heapq.heappush(self._deadlines, (entry.accepted_s + deadline_s, next(self._ticket), slot))
        if self._deadlines[0][2] is slot:
            self._wake_at("deadlines", self._deadlines[0][0], self._expire)

    def _expire(self) -> None:
        now_s = self._loop.time()
        while self._deadlines and self._deadlines[0][0] <= now_s:
            _, _, slot = heapq.heappop(self._deadlines)
            slot.deadline_armed = False
            entry = slot.waiting
            if entry is None:
                continue
            if not self._is_late(entry, now_s):
                self._arm_deadline(slot)  # a newer status has replaced the one that armed it
                continue
            slot.waiting = None
            self._settle(entry, "failed", slot.error or _too_late(entry), None)
            self._review(slot)
        if self._deadlines:
            self._wake_at("deadlines", self._deadlines[0][0], self._expire)

    def _is_late(self, entry: Entry, now_s: float) -> bool:
        return self._promises.deadline_s is not None and entry.accepted_s + self._promises.deadline_s <= now_s

    def _review(self, slot: Slot) -> None:
        """Something was taken from a slot that may be anywhere."""
        if slot.queued or slot.in_flight is not None:
            self._count(slot)  # whoever takes it next sees that there is nothing to do
        else:
            slot.retrying = slot.retrying and slot.waiting is not None
            self._schedule(slot)

    def _count(self, slot: Slot) -> None:
        active = slot.active
        if active is not slot.counted:
            slot.counted = active
            self.active_devices += 1 if active else -1
            if not active:
                self._notify()

    def _notify(self) -> None:
        for devices, watcher in self._watchers:
            if not watcher.done() and (self.active_devices < devices or self.crash is not None):
                watcher.set_result(None)

    # Sending

    async def _work(self) -> None:
        limiter = self._core.limiter
        while True:
            slot = await self._next()
            async with limiter:
                slot.queued = False
                # Taken only now: a newer status may have come while this one waited for its turn.
                entry = slot.waiting
                if entry is None and slot.must_reassert:
                    entry = slot.sent
                if entry is None or self._is_unchanged(slot, entry):
                    self._skip(slot)
                    continue
                slot.waiting, slot.in_flight = None, entry
                self.in_flight += 1
                try:
                    await self._send(slot, entry)
                finally:
                    self.in_flight -= 1
                    slot.in_flight = None
                self._schedule(slot)

    async def _next(self) -> Slot:
        while True:
            if self._ready:
                now_s = self._loop.time()
                again_s = self._core.admit(now_s=now_s, patient=self._promises.patient)
                if again_s <= now_s:
                    slot = self._ready.popleft()
                    if self._ready and len(self._workers) < self._core.limiter.limit:
                        self._start_worker()  # the limit has grown
                    return slot
                if not self._promises.patient and again_s - now_s > self._core.max_delay_s:
                    self._turn_away(self._ready.popleft(), again_s - now_s)
                    continue
                self._wake_at("gate", again_s, self._open_gate)
            parked = self._loop.create_future()
            self._parked.append(parked)
            await parked

    def _open_gate(self) -> None:
        for _ in range(min(len(self._ready), len(self._parked))):
            self._unpark()

    def _turn_away(self, slot: Slot, pause_s: float) -> None:
        slot.queued = False
        if slot.waiting is not None:
            slot.error = slot.error or pause_error(slot.waiting.call, pause_s)
        self._give_up(slot)

    def _is_unchanged(self, slot: Slot, entry: Entry) -> bool:
        if slot.sent is None or slot.must_reassert or entry is slot.sent:
            return False
        fresh = self._loop.time() < slot.sent_s + self._promises.unchanged_max_age_s
        return fresh and entry.call.body == slot.sent.call.body

    def _skip(self, slot: Slot) -> None:
        entry, slot.waiting = slot.waiting, None
        if entry is not None:
            self._settle(entry, "sent", None, None)
        self._schedule(slot)

    async def _send(self, slot: Slot, entry: Entry) -> None:
        entry.attempts += 1
        self.requests += 1
        started_s = self._loop.time()
        try:
            await self._core.attempt(entry.call, self._answers.acknowledgement, attempt=entry.attempts)
        except APIError as error:
            self._failed(slot, entry, error)
        except PrintOSError as error:  # the client was closed, or its configuration forbids the request
            self._settle(entry, "failed", error, None)
        else:
            self._succeeded(slot, entry, started_s)

    def _succeeded(self, slot: Slot, entry: Entry, started_s: float) -> None:
        self._core.budget.refund(attempts=entry.attempts)
        slot.error = None
        slot.not_before_s = started_s + self._promises.min_interval_s
        if started_s >= slot.suspect_until_s:
            slot.suspect_seq, slot.must_reassert = _NO_ONE, False
        elif slot.suspect_seq != entry.seq:
            slot.must_reassert = True
        if entry is slot.sent:
            if self._core.hooks:
                self._core.hooks.emit(StatusReasserted(slot.device_id, entry.seq))
        else:
            slot.sent = entry
            self._settle(entry, "sent", None, None)
        slot.sent_s = started_s

    def _failed(self, slot: Slot, entry: Entry, error: APIError) -> None:
        now_s = self._loop.time()
        slot.error = error
        error.attempts = entry.attempts
        if is_ambiguous(error):
            self._suspect(slot, entry, now_s)
        delay_s = self._retry_delay_s(entry, error, now_s)
        if delay_s is None or self._core.budget.capacity < 1 or self._is_late(entry, now_s):
            if entry is not slot.sent:
                self._settle(entry, "failed", error, None)
            else:
                slot.must_reassert = False  # refused for good: nothing more can be done
            return
        slot.retrying = self._core.health.circuit == "closed" or not self._promises.patient
        slot.not_before_s = max(slot.not_before_s, now_s + delay_s)
        if entry is slot.sent:
            return
        if slot.waiting is None:
            slot.waiting = entry
            if self._promises.deadline_s is not None and not slot.deadline_armed:
                self._arm_deadline(slot)
        else:
            # A retry sends the newest, never the one that failed.
            self._settle(entry, "superseded", None, slot.waiting.seq)

    def _retry_delay_s(self, entry: Entry, error: APIError, now_s: float) -> float | None:
        if not self._promises.patient:
            return self._core.retry_delay_s(entry.call, error, attempt=entry.attempts)
        if entry.first_failure_s is None:
            entry.first_failure_s = now_s
        # Where nothing has succeeded since this status first failed, it is the host that fails, not the status.
        ailing = self._core.health.succeeded_s <= entry.first_failure_s
        delay_s = self._core.retry_delay_s(entry.call, error, attempt=entry.attempts, patient=ailing)
        return 0.0 if delay_s is not None and self._core.health.circuit == "open" else delay_s

    def _suspect(self, slot: Slot, entry: Entry, now_s: float) -> None:
        """Note that this write may still land, until the ambiguity has passed."""
        alone = slot.suspect_seq in {_NO_ONE, entry.seq} or slot.suspect_until_s <= now_s
        slot.suspect_seq = entry.seq if alone else _SEVERAL
        slot.suspect_until_s = now_s + self._promises.ambiguity_s
        if self._promises.strict:
            slot.not_before_s = max(slot.not_before_s, slot.suspect_until_s)

    def circuit_changed(self) -> None:
        """Line up what is in backoff: while the circuit is open it paces the probes, and then all may go."""
        if not self._promises.patient:
            return
        now_s = self._loop.time()
        for slot in list(self._slots.values()):
            held = slot.not_before_s > now_s and self._promises.strict and slot.suspect_until_s > now_s
            if (
                slot.retrying
                and slot.waiting is not None
                and slot.in_flight is None
                and not slot.queued
                and not held
            ):
                slot.retrying, slot.not_before_s = False, now_s
                self._schedule(slot)
        self._open_gate()

    def _worker_ended(self, worker: asyncio.Task[None]) -> None:
        # A worker only ends by cancellation, unless there is a bug: then nobody must wait for it forever.
        self._workers.discard(worker)
        if not worker.cancelled() and (error := worker.exception()) is not None:
            self.fail(error)


def _too_late(entry: Entry) -> PrintOSError:
    return RequestTimeoutError(
        "not sent within deadline_s",
        method=entry.call.method,
        path=entry.call.path,
        attempts=0,
        may_have_arrived=False,
    )

"""Many statuses at once: one slot per device, the newest waiting status wins, one request per device at a time."""

from __future__ import annotations

import asyncio
import heapq
import json
import time
from collections import deque
from collections.abc import AsyncIterable, Iterable, Mapping
from contextlib import aclosing
from itertools import count
from typing import TYPE_CHECKING, Literal, TypeAlias

from attrs import define

from ._errors import APIError, InvalidDeviceIdError, InvalidStatusError, PrintOSError
from ._events import StatusSuperseded
from ._models import MAX_FAILURES_KEPT, DeviceStatusUpdate, PushReport, PushResult, StatusPush

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from ._answers import Answers
    from ._core import Core
    from ._encode import Call
    from ._operations import Operations

_Item: TypeAlias = tuple[str, DeviceStatusUpdate] | StatusPush
Statuses: TypeAlias = Mapping[str, DeviceStatusUpdate] | Iterable[_Item] | AsyncIterable[_Item]

# Devices that wait at once. More would coalesce more and take more memory.
MAX_PENDING_DEVICES = 1_024
# A long run of an iterable is interrupted this often, so that other tasks of the loop get their turn.
_ITEMS_PER_TURN = 512
# With the retry budget empty, the scheduler looks again this soon: a success may have given a token back.
_BUDGET_POLL_S = 0.05


@define(eq=False)
class _Pending:
    """One accepted status. Encoded when it is accepted, so that a later change of the model changes nothing."""

    call: Call
    accepted_s: float
    attempts: int = 0


@define(eq=False)
class _Slot:
    """One device with something to send; ``waiting`` is its newest status that is not in flight."""

    device_id: str
    waiting: _Pending | None
    error: PrintOSError | None = None  # of the last attempt, if that failed


class PushEngine:
    """Sends what is put, until everything is settled.

    A slot is in exactly one place: the ready queue, the heap of delayed ones, or a worker's hands. That alone
    keeps requests of one device from overlapping: the body carries no timestamp, so the server could not drop
    a stale write.
    """

    def __init__(
        self,
        core: Core,
        operations: Operations,
        answers: Answers,
        on_result: Callable[[PushResult], object] | None,
    ) -> None:
        self._core = core
        self._operations = operations
        self._answers = answers
        self._on_result = on_result
        self._loop = asyncio.get_running_loop()
        self._slots: dict[str, _Slot] = {}
        self._ready: deque[_Slot] = deque()
        self._delayed: list[tuple[float, int, _Slot]] = []
        self._order = count()
        self._timer: asyncio.TimerHandle | None = None
        self._workers: set[asyncio.Task[None]] = set()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._waiting_below: tuple[int, asyncio.Future[None]] | None = None
        self._crash: BaseException | None = None
        self.report = PushReport()

    def put(self, device_id: str, status: DeviceStatusUpdate) -> None:
        """Accept a status; one of the same device that is waiting is superseded. Bad input is a failed result."""
        now_s = self._loop.time()
        try:
            call = self._operations.update_device_status(device_id, status)
        except (InvalidDeviceIdError, InvalidStatusError) as error:
            self._settle(device_id, "failed", attempts=0, since_s=now_s, error=error, status=status)
            return
        pending = _Pending(call, now_s)
        slot = self._slots.get(device_id)
        if slot is None:
            slot = self._slots[device_id] = _Slot(device_id, pending)
            self._make_ready(slot)
            return
        replaced, slot.waiting = slot.waiting, pending
        if replaced is not None:
            self._supersede(device_id, replaced)

    @property
    def pending_devices(self) -> int:
        """Devices that have something waiting or in flight."""
        return len(self._slots)

    async def wait_until_below(self, devices: int) -> None:
        """Wait until fewer than this many devices have something waiting or in flight.

        Raises:
            Exception: What ``on_result`` raised.
        """
        if len(self._slots) >= devices and self._crash is None:
            waiter = self._loop.create_future()
            self._waiting_below = (devices, waiter)
            try:
                await waiter
            finally:
                self._waiting_below = None
        if self._crash is not None:
            raise self._crash

    async def aclose(self) -> None:
        """End the workers. What is in flight ends by itself, at its deadline at the latest."""
        if self._timer is not None:
            self._timer.cancel()
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    def _make_ready(self, slot: _Slot) -> None:
        self._ready.append(slot)
        while self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        if len(self._workers) < self._core.limiter.limit:
            worker = self._loop.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._worker_ended)

    async def _work(self) -> None:
        while True:
            while not self._ready:
                waiter = self._loop.create_future()
                self._idle.append(waiter)
                await waiter
            slot = self._ready.popleft()
            async with self._core.limiter:
                # Taken only now: a newer status may have come while this one waited for its turn.
                pending, slot.waiting = slot.waiting, None
                assert pending is not None  # noqa: S101  # a slot in the ready queue has something waiting
                await self._send(slot, pending)

    async def _send(self, slot: _Slot, pending: _Pending) -> None:
        pending.attempts += 1
        call = pending.call
        try:
            await self._core.attempt(call, self._answers.acknowledgement, attempt=pending.attempts)
        except APIError as error:
            delay_s = self._core.retry_delay_s(call, error, attempt=pending.attempts)
            if delay_s is not None and self._core.budget.capacity >= 1:
                slot.error = error
                if slot.waiting is None:
                    slot.waiting = pending
                else:
                    self._supersede(
                        slot.device_id, pending
                    )  # a retry sends the newest, never the one that failed
                heapq.heappush(self._delayed, (self._loop.time() + delay_s, next(self._order), slot))
                self._arm()
                return
            error.attempts = pending.attempts
            self._settle_pending(slot.device_id, "failed", pending, error)
        except PrintOSError as error:  # the client was closed, or its configuration forbids the request
            self._settle_pending(slot.device_id, "failed", pending, error)
        else:
            self._core.budget.refund(attempts=pending.attempts)
            self._settle_pending(slot.device_id, "sent", pending)
        if slot.waiting is not None:
            self._make_ready(slot)
            return
        self._forget(slot)

    def _forget(self, slot: _Slot) -> None:
        del self._slots[slot.device_id]
        self._notify()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._delayed[0][0], self._release_due) if self._delayed else None

    def _release_due(self) -> None:
        self._timer = None
        now_s = self._loop.time()
        while self._delayed and self._delayed[0][0] <= now_s:
            if self._core.budget.take(now_s=time.monotonic()):
                self._make_ready(heapq.heappop(self._delayed)[2])
            elif self._core.seems_down:
                self._give_up(
                    heapq.heappop(self._delayed)[2]
                )  # else an outage would take as long as the fleet is large
            else:
                self._timer = self._loop.call_at(now_s + _BUDGET_POLL_S, self._release_due)
                return
        self._arm()

    def _give_up(self, slot: _Slot) -> None:
        pending = slot.waiting
        assert pending is not None  # noqa: S101  # a delayed slot has something waiting
        self._settle_pending(slot.device_id, "failed", pending, slot.error)
        self._forget(slot)

    def _supersede(self, device_id: str, pending: _Pending) -> None:
        self._settle_pending(device_id, "superseded", pending)
        if self._core.hooks:
            self._core.hooks.emit(StatusSuperseded(device_id))

    def _settle_pending(
        self,
        device_id: str,
        outcome: Literal["sent", "superseded", "failed"],
        pending: _Pending,
        error: PrintOSError | None = None,
    ) -> None:
        # Built anew from what was accepted: the caller may have changed its object since.
        status = None if error is None else DeviceStatusUpdate.from_dict(json.loads(pending.call.body))
        self._settle(
            device_id,
            outcome,
            attempts=pending.attempts,
            since_s=pending.accepted_s,
            error=error,
            status=status,
        )

    def _settle(
        self,
        device_id: str,
        outcome: Literal["sent", "superseded", "failed"],
        *,
        attempts: int,
        since_s: float,
        error: PrintOSError | None = None,
        status: DeviceStatusUpdate | None = None,
    ) -> None:
        report = self.report
        if outcome == "sent":
            report.sent += 1
        elif outcome == "superseded":
            report.superseded += 1
        else:
            report.failed += 1
        if self._on_result is None and outcome != "failed":
            return
        result = PushResult(device_id, outcome, attempts, self._loop.time() - since_s, error, status)
        if outcome == "failed" and len(report.failures) < MAX_FAILURES_KEPT:
            report.failures.append(result)
        if self._on_result is not None and self._crash is None:
            try:
                self._on_result(result)
            except Exception as crash:  # noqa: BLE001  # the caller's bug: it ends the push and is raised there
                self._crash = crash
                self._notify()

    def _worker_ended(self, worker: asyncio.Task[None]) -> None:
        # A worker only ends by cancellation, unless there is a bug: then the push must not wait for it forever.
        self._workers.discard(worker)
        if not worker.cancelled():
            self._crash = worker.exception()
            self._notify()

    def _notify(self) -> None:
        if self._waiting_below is not None:
            devices, waiter = self._waiting_below
            if not waiter.done() and (len(self._slots) < devices or self._crash is not None):
                waiter.set_result(None)


async def push_all(
    core: Core,
    operations: Operations,
    answers: Answers,
    statuses: Statuses,
    on_result: Callable[[PushResult], object] | None,
) -> PushReport:
    """Push every status and give the account; see ``PrintOSClient.push_statuses``."""
    engine = PushEngine(core, operations, answers, on_result)
    started = time.perf_counter()
    source_failure: Exception | None = None
    try:
        try:
            async with aclosing(_items(statuses)) as items:
                async for device_id, status in items:
                    engine.put(device_id, status)
                    if engine.pending_devices >= MAX_PENDING_DEVICES:
                        # Down to a half, not by one: a handover for each status costs more than the queue.
                        await engine.wait_until_below(MAX_PENDING_DEVICES // 2)
        except _SourceError as failure:
            source_failure = failure.error
        await engine.wait_until_below(1)
    finally:
        await engine.aclose()
    engine.report.elapsed_s = time.perf_counter() - started
    if source_failure is not None:
        report = engine.report
        source_failure.add_note(
            f"what came before was pushed: {report.sent} sent, {report.superseded} superseded, {report.failed} failed"
        )
        raise source_failure
    return engine.report


class _SourceError(Exception):
    """Carries what the caller's iterable raised past the errors of the engine."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


async def _items(statuses: Statuses) -> AsyncGenerator[tuple[str, DeviceStatusUpdate], None]:
    index = 0
    try:
        if isinstance(statuses, AsyncIterable):
            async for item in statuses:
                yield _pair(item, index)
                index += 1
            return
        for item in statuses.items() if isinstance(statuses, Mapping) else statuses:
            yield _pair(item, index)
            index += 1
            if index % _ITEMS_PER_TURN == 0:
                await asyncio.sleep(0)
    except Exception as error:  # noqa: BLE001  # whatever it is, what was accepted goes out before it is raised
        failure = _SourceError(error)
    else:
        return
    raise failure


def _pair(item: object, index: int) -> tuple[str, DeviceStatusUpdate]:
    if isinstance(item, StatusPush):
        return item.device_id, item.status
    if isinstance(item, tuple) and len(item) == 2:
        return item
    raise InvalidStatusError(
        f"item {index} of the statuses is {type(item).__name__}; give (device_id, status) or StatusPush"
    )

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

from .device_state import DeviceState, PendingStatus
from .gauge import Occupancy
from .scheduler import Scheduler, too_late

if TYPE_CHECKING:
    from collections.abc import Callable

    from printos_async._api.answers import Answers
    from printos_async._api.requests import Operations
    from printos_async._api.validation import Call
    from printos_async._execution.executor import Core
    from printos_async._models import DeviceId, DeviceStatusUpdate, PushResult

    from .device_state import DeliveryPolicy, Outcome

    Settle = Callable[[PendingStatus, Outcome, PrintOSError | None, int | None], None]


# How soon who drains sees that what is left cannot be sent in time.
_LOOK_S = 0.25


class Engine:
    """Sends what it accepts, in tasks of its own, as many as the limiter allows.

    ``settle`` is called once for each accepted status: with its outcome, its error if it failed, and the sequence
    number of the newer one if it was superseded.
    """

    def __init__(
        self, core: Core, operations: Operations, answers: Answers, policy: DeliveryPolicy, settle: Settle
    ) -> None:
        self._core = core
        self._operations = operations
        self._answers = answers
        self._policy = policy
        self._settle = settle
        self._loop = asyncio.get_running_loop()
        # Not that of whoever happens to be first to put: a worker outlives it.
        self._context = contextvars.copy_context()
        self.occupancy = Occupancy()
        self.scheduler = Scheduler(
            core, policy, self.occupancy, fail=self._gave_up, add_worker=self._start_worker
        )
        self._devices = self.scheduler.devices
        self._seq = count(1)
        self._workers: set[asyncio.Task[None]] = set()
        self.in_flight = 0
        self.requests = 0
        self.on_lost: Callable[[PendingStatus], None] | None = None
        core.circuit_watchers.add(self.scheduler)

    async def drained(self, until_s: float) -> None:
        """Wait until nothing is to be done, or until nothing of it may come to its turn by then.

        Raises:
            BaseException: What ended the work: a bug of a callback.
        """
        while self.in_flight or self.scheduler.may_progress_by(until_s):
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

    def accept(self, call: Call, waiter: asyncio.Future[PushResult] | None = None) -> PendingStatus:
        """Take an encoded status; one of the same device that is waiting is superseded."""
        pending = PendingStatus(next(self._seq), call.device_id or "", call, self._loop.time(), waiter=waiter)
        self.take(pending)
        return pending

    def next_seq(self) -> int:
        """Give the next number of a status; those of all devices are one sequence."""
        return next(self._seq)

    def take(
        self, pending: PendingStatus, *, not_before_s: float = 0.0, uncertain_until_s: float | None = None
    ) -> None:
        """Take a status that has its number already.

        Args:
            pending: The status.
            not_before_s: Nothing is sent for its device earlier.
            uncertain_until_s: Until then somebody else's write may still land over it.
        """
        device_id = pending.device_id
        device = self._devices.get(device_id)
        if device is None:
            device = self._devices[device_id] = DeviceState(device_id)
        if uncertain_until_s is not None:
            device.inherit_uncertainty(uncertain_until_s, self._policy)
        if not_before_s:
            device.not_before_s = max(device.not_before_s, not_before_s)
        replaced, device.waiting = device.waiting, pending
        if self._policy.deadline_s is not None:
            self.scheduler.arm_deadline(device, pending)
        if replaced is not None:
            pending.has_replaced = True
            self._settle(replaced, "superseded", None, pending.seq)
            if device.retrying:  # a newer status is no retry: it is due after the backoff, without a token
                device.retrying = False
                self.scheduler.schedule(device)
        elif device.in_flight is None:
            self.scheduler.schedule(device)

    def adopt(self, pending: PendingStatus) -> bool:
        """Let who waits for a status have the result of the same one that is here; False if that is gone."""
        device = self._devices.get(pending.device_id)
        for one in () if device is None else (device.waiting, device.in_flight):
            if one is not None and one.seq == pending.seq and not one.has_ended:
                one.waiter = one.waiter or pending.waiter
                return True
        return False

    def drop(self) -> list[PendingStatus]:
        """Take back everything that waits: others see to it.

        What is in flight ends by itself, and is not sent again: ``on_lost`` gets it if it fails.
        """
        dropped = []
        for device in tuple(self._devices.values()):
            if device.in_flight is not None:
                device.in_flight.is_lost = True
            if device.waiting is not None:
                dropped.append(device.waiting)
            device.waiting, device.must_reassert = None, False
            self.scheduler.schedule(device)
        return dropped

    def withdraw(self, pending: PendingStatus) -> bool:
        """Take back a status that is still waiting; False if it is not, or if another one made way for it."""
        device = self._devices.get(pending.device_id)
        if device is None or device.waiting is not pending or pending.has_replaced:
            return False
        device.waiting = None
        self.scheduler.schedule(device)
        return True

    def is_active(self, device_id: str) -> bool:
        """Whether something is to be done for this device."""
        device = self._devices.get(device_id)
        return device is not None and device.active

    def unsettled(self) -> list[PendingStatus]:
        """Give what was accepted and has no outcome yet."""
        return [
            pending
            for device in self._devices.values()
            for pending in (device.in_flight, device.waiting)
            if pending is not None and pending is not device.sent  # which is settled, and only sent again
        ]

    def fail(self, crash: BaseException) -> None:
        """End the work because of a bug, which those who wait for it or for a result raise."""
        self.occupancy.end(crash)
        for pending in self.unsettled():
            pending.abandon(crash)

    async def aclose(self) -> None:
        """End the workers at once. What is in flight ends by itself, at its deadline at the latest.

        Cancelling leaves nothing undone but the waiting.
        """
        self._core.circuit_watchers.discard(self.scheduler)
        self.scheduler.close()
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
        limiter, health, scheduler = self._core.limiter, self._core.health, self.scheduler
        while True:
            device = scheduler.take()
            if device is None:
                await scheduler.ready.park()
                continue
            if not limiter.try_acquire():
                closings = health.closings
                await limiter.acquire()
                if health.closings != closings or not scheduler.is_open():
                    limiter.release()
                    # While it waited for its turn, the host asked for a pause, or the lease ended.
                    scheduler.ready.devices.appendleft(device)
                    continue
            try:
                device.queued = False
                # Taken only now: a newer status may have come while this one waited for its turn.
                pending = device.next_status
                if pending is not None and not self._is_settled_unsent(device, pending):
                    device.waiting, device.in_flight = None, pending
                    self.in_flight += 1
                    try:
                        await self._send(device, pending)
                    finally:
                        self.in_flight -= 1
                    device.in_flight = None  # a worker that was ended leaves it: the status has no outcome
                scheduler.schedule(device)
            finally:
                limiter.release()

    def _is_settled_unsent(self, device: DeviceState, pending: PendingStatus) -> bool:
        """Settle a status that needs no request: one that came too late, or that the server has already."""
        if device.sent is None and self._policy.deadline_s is None:
            return False
        now_s = self._loop.time()
        if pending is not device.sent and self.scheduler.is_late(pending, now_s):
            # It was late when it came: from an outbox, in which it had to wait for its time.
            self._settle(pending, "failed", device.error or too_late(pending), None)
        elif device.is_unchanged(pending, self._policy, now_s=now_s):
            self._settle(pending, "sent", None, None)
        else:
            return False
        device.waiting = None
        return True

    async def _send(self, device: DeviceState, pending: PendingStatus) -> None:
        pending.attempts += 1
        self.requests += 1
        started_s = self._loop.time()
        is_probe = self._policy.patient and self._core.health.circuit == "open"
        try:
            await self._core.attempt(
                pending.call,
                self._answers.acknowledgement,
                attempt=pending.attempts,
                is_probe=is_probe,
                until_s=self.scheduler.ends_s,
            )
        except APIError as error:
            self._failed(device, pending, error, started_s)
        except PrintOSError as error:  # the client was closed, or its configuration forbids the request
            self._refused(device, pending, error)
        else:
            self._core.budget.refund(retried=device.has_token)
            again = pending is device.sent
            device.acknowledged(pending, self._policy, started_s=started_s)
            if not again:
                self._settle(pending, "sent", None, None)
            elif self._core.hooks:
                self._core.hooks.emit(StatusReasserted(device.device_id, pending.seq))
            if pending.is_lost:
                device.must_reassert = pending.is_lost = False
            if device.must_reassert:  # being sent once more counts anew
                pending.attempts, pending.exempt_attempts, pending.failed_s = 0, 0, None
        device.has_token = False

    def _failed(self, device: DeviceState, pending: PendingStatus, error: APIError, started_s: float) -> None:
        now_s = self._loop.time()
        error.attempts = pending.attempts
        device.failed(pending)
        if is_ambiguous(error):
            device.mark_uncertain(pending, self._policy, now_s=now_s)
        if pending.is_lost:
            pending.is_lost = False  # should it come back by a new claim, it is tried like any other
            if pending is not device.sent and self.on_lost is not None:
                self.on_lost(pending)
            return
        delay_s = self._retry_delay_s(pending, error, now_s)
        late = pending is not device.sent and self.scheduler.is_late(
            pending, now_s
        )  # what was sent was in time
        if delay_s is None or self._core.budget.capacity < 1 or late:
            if self._policy.min_interval_s:
                device.not_before_s = max(device.not_before_s, started_s + self._policy.min_interval_s)
            self._refused(device, pending, error)
            return
        device.error = error
        device.not_before_s = max(device.not_before_s, now_s + delay_s)
        device.failed_s = now_s
        # The budget protects the host from more than it is asked for: probes, newer statuses and what was never
        # sent are not more.
        device.retrying = (
            device.waiting is None
            and not is_local(error)
            and not (self._policy.patient and self._core.health.circuit == "open")
        )
        if pending is device.sent:
            return
        if device.waiting is None:
            device.waiting = pending
            self.scheduler.arm_deadline(device, pending)
        else:
            # A retry sends the newest, never the one that failed.
            device.waiting.has_replaced = True
            self._settle(pending, "superseded", None, device.waiting.seq)

    def _refused(self, device: DeviceState, pending: PendingStatus, error: PrintOSError) -> None:
        if pending is device.sent:
            device.must_reassert = False
            self._core.hooks.emit(ReassertionFailed(device.device_id, pending.seq, type(error).__name__))
        else:
            self._settle(pending, "failed", error, None)

    def _gave_up(self, pending: PendingStatus, error: PrintOSError | None) -> None:
        self._settle(pending, "failed", error, None)

    def _retry_delay_s(self, pending: PendingStatus, error: APIError, now_s: float) -> float | None:
        if not self._policy.patient:
            return self._core.retry_delay_s(pending.call, error, attempt=pending.attempts)
        health = self._core.health
        is_open = health.circuit == "open"
        is_first, previous_s = pending.failed_s is None, pending.failed_s or 0.0
        pending.failed_s = now_s
        # Where nothing has succeeded since this status failed before, it is the host that fails, not the status.
        host_fails = is_open or (not is_first and health.succeeded_s <= previous_s)
        is_exempt = host_fails or is_from_intermediary(error) or is_local(error)
        pending.exempt_attempts += is_exempt
        counted = pending.attempts - pending.exempt_attempts
        if counted >= self._core.max_attempts and not is_exempt and not is_first:
            return None
        delay_s = self._core.retry_delay_s(pending.call, error, attempt=pending.attempts, patient=True)
        return 0.0 if delay_s is not None and is_open else delay_s

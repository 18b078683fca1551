"""Senders: tasks that take devices from the scheduler and send their newest status."""

from __future__ import annotations

import asyncio
import contextvars
import math
from typing import TYPE_CHECKING

from printos_async._auth.account import FIRST_PROBE_S, MAX_PROBE_S
from printos_async._errors import APIError, PrintOSError
from printos_async._events import ReassertionFailed, StatusReasserted
from printos_async._execution.retry import is_ambiguous, is_from_intermediary, is_local

from .device_state import SENT, Outcome
from .scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable

    from printos_async._execution.channel import Channel

    from .device_state import DeliveryPolicy, DeviceState, PendingStatus, Settle


class Senders:
    """Sends what the scheduler has ready, in as many tasks as the concurrency limit allows.

    ``on_crash`` is called with the bug that ended one of the tasks.

    Attributes:
        scheduler: The devices.
        in_flight: Requests in flight.
        requests: Requests so far.
    """

    def __init__(
        self,
        channel: Channel,
        policy: DeliveryPolicy,
        *,
        settle: Settle,
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self._executor = executor = channel.executor
        self._limiter = executor.limiter
        self._answers = channel.answers
        self._policy = policy
        self._settle = settle
        self._on_crash = on_crash
        self._loop = asyncio.get_running_loop()
        # The context of the engine's creator: a task outlives the caller whose ``put`` started it.
        self._context = contextvars.copy_context()
        self._tasks: set[asyncio.Task[None]] = set()
        self.scheduler = Scheduler(executor, policy, settle=settle, add_sender=self._add)
        self.in_flight = 0
        self.requests = 0

    async def aclose(self) -> None:
        """End the tasks at once. Cancelling only stops the waiting."""
        self.scheduler.close()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def supersede(self, pending: PendingStatus, newer: PendingStatus) -> None:
        """Settle a status, because a newer one of its device takes its place."""
        newer.has_replaced = True
        self._settle(pending, Outcome("superseded", superseded_by=newer.seq))

    def _add(self) -> None:
        if len(self._tasks) < self._limiter.limit + self._limiter.overdue:
            task = self._loop.create_task(self._work(), context=self._context.copy())
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        # A sender ends by cancellation only, unless there is a bug: then nobody must wait for its work.
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_crash(error)

    async def _work(self) -> None:
        limiter, scheduler = self._limiter, self.scheduler
        accounts, policy = self._executor.accounts, self._policy
        while not scheduler.is_closed:  # a lookup of credentials may swallow the cancellation
            if not scheduler.ready.devices:
                await scheduler.ready.park()
                continue
            # The permit first: what the circuit breaker admits has to be sent at once.
            if not limiter.try_acquire():  # without a coroutine: nearly always there is one
                await limiter.acquire()
            try:
                now_s = self._loop.time()
                device = scheduler.take(now_s=now_s)
                if device is not None:
                    if accounts.held and policy.patient:
                        await self._executor.find_account(device.device_id, until_s=scheduler.lease_ends_s)
                        now_s = self._loop.time()
                    device.queued = False
                    # Read only now: a newer status may have come while the credentials were looked up.
                    pending = device.next_status
                    if (
                        pending is not None
                        and not scheduler.settle_unsent(device)
                        and (not accounts.held or not policy.patient or scheduler.held.admit(device))
                    ):
                        await self._send(device, pending, started_s=now_s)
                    scheduler.schedule(device)
            finally:
                limiter.release()
            if device is None:
                await scheduler.ready.park()

    async def _send(self, device: DeviceState, pending: PendingStatus, *, started_s: float) -> None:
        device.waiting, device.in_flight = None, pending
        pending.attempts += 1
        self.in_flight += 1
        self.requests += 1
        is_probe = self._policy.patient and self._executor.circuit_breaker.circuit == "open"
        try:
            await self._executor.attempt(
                pending.call,
                self._answers.acknowledgement,
                attempt=pending.attempts,
                is_probe=is_probe,
                until_s=self.scheduler.lease_ends_s,
            )
        except APIError as error:
            self._failed(device, pending, error, started_s)
        except PrintOSError as error:  # the client was closed, or its configuration forbids the request
            self._give_up(device, pending, error)
        else:
            self._executor.budget.refund(retried=device.has_token)
            again = pending is device.sent
            device.acknowledged(pending, self._policy, started_s=started_s)
            if not again:
                self._settle(pending, SENT)
            elif self._executor.hooks:
                self._executor.hooks.emit(StatusReasserted(device.device_id, pending.seq))
            if pending.is_lost:
                device.must_reassert = device.sent_stands = pending.is_lost = False
            if device.must_reassert:  # sending it again has a count of its own
                pending.attempts, pending.exempt_attempts, pending.failed_s = 0, 0, None
        finally:
            self.in_flight -= 1
            if self.scheduler.held.probes:
                self.scheduler.held.end_probe(device)
        device.has_token = False
        device.in_flight = None  # a cancelled sender leaves it: the status has no outcome

    def _failed(self, device: DeviceState, pending: PendingStatus, error: APIError, started_s: float) -> None:
        now_s = self._loop.time()
        error.attempts = pending.attempts
        device.failed(pending)
        if is_ambiguous(error):
            device.mark_uncertain(pending, self._policy, now_s=now_s)
        if pending.is_lost:
            self._leave_to_others(device, pending)
            return
        keeps = self._policy.patient and self._executor.accounts.keeps(pending.call, error)
        delay_s = (
            self._refused_delay_s(device, pending) if keeps else self._retry_delay_s(pending, error, now_s)
        )
        # What was sent was in time.
        late = pending is not device.sent and pending.is_late(self._policy, now_s=now_s)
        if delay_s is None or (self._executor.budget.capacity < 1 and not keeps) or late:
            if self._policy.min_interval_s:
                device.not_before_s = max(device.not_before_s, started_s + self._policy.min_interval_s)
            self._give_up(device, pending, error)
            return
        pending.error = error
        device.not_before_s = max(device.not_before_s, now_s + delay_s)
        device.failed_s = -math.inf if keeps else now_s  # the host works
        # The budget protects the host from additional requests. Probes, newer statuses, and requests that were
        # never sent are none.
        device.retrying = (
            not keeps
            and device.waiting is None
            and not is_local(error)
            and not (self._policy.patient and self._executor.circuit_breaker.circuit == "open")
        )
        if not keeps and device.waiting is None:
            self._executor.retry_scheduled(pending.call, error, attempt=pending.attempts, delay_s=delay_s)
        if pending is device.sent:
            return
        if device.waiting is None:
            device.waiting = pending
            self.scheduler.arm_deadline(device, pending)
        else:
            # A retry sends the newest status, never the one that failed.
            self.supersede(pending, device.waiting)

    def _leave_to_others(self, device: DeviceState, pending: PendingStatus) -> None:
        """Do not send a status again: the lease on its device was lost while it was in flight."""
        pending.is_lost = False  # claimed again, it is tried like any other
        if pending is device.sent:
            return
        if device.waiting is not None and device.waiting.seq != pending.seq:
            self.supersede(pending, device.waiting)
        elif self.scheduler.watcher is not None:
            self.scheduler.watcher.lost(pending)

    def _refused_delay_s(self, device: DeviceState, pending: PendingStatus) -> float:
        """Return how long a device waits whose credentials were refused: usually its account is held, which is enough."""
        pending.exempt_attempts += 1
        if self._executor.accounts.is_held(device.device_id):
            return 0.0
        device.refusals += 1
        return min(FIRST_PROBE_S * 2.0 ** min(device.refusals - 1, 6), MAX_PROBE_S)

    def _give_up(self, device: DeviceState, pending: PendingStatus, error: PrintOSError) -> None:
        if pending is device.sent:
            device.must_reassert = False
            self._executor.hooks.emit(ReassertionFailed(device.device_id, pending.seq, type(error).__name__))
        else:
            self._settle(pending, Outcome("failed", error))

    def _retry_delay_s(self, pending: PendingStatus, error: APIError, now_s: float) -> float | None:
        if not self._policy.patient:
            return self._executor.retry_delay_s(pending.call, error, attempt=pending.attempts)
        breaker = self._executor.circuit_breaker
        is_open = breaker.circuit == "open"
        is_first, previous_s = pending.failed_s is None, pending.failed_s or 0.0
        pending.failed_s = now_s
        # If no request has succeeded since this status failed before, the host is failing, not the status.
        host_fails = is_open or (not is_first and breaker.succeeded_s <= previous_s)
        # A login that fails says nothing about the status: other accounts may get through meanwhile.
        is_login = error.path != pending.call.path
        is_exempt = host_fails or is_login or is_from_intermediary(error) or is_local(error)
        pending.exempt_attempts += is_exempt
        counted = pending.attempts - pending.exempt_attempts
        if counted >= self._executor.retry.max_attempts and not is_exempt and not is_first:
            return None
        delay_s = self._executor.retry_delay_s(pending.call, error, attempt=pending.attempts, patient=True)
        return 0.0 if delay_s is not None and is_open else delay_s

"""Executor: runs each call of a client with a permit, an event for each attempt, and retries."""

from __future__ import annotations

import asyncio
import math
import random
from typing import TYPE_CHECKING, Literal, TypeVar

from printos_async._api.body import DecodeError
from printos_async._api.errors import decode_error, pause_error
from printos_async._api.requests import make_endpoint
from printos_async._errors import APIError, ResponseDecodeError, StatusError
from printos_async._events import AttemptFinished, LimitChanged, RetryScheduled

from .account_monitor import AccountMonitor, is_refusal
from .attempt import may_repeat
from .circuit_breaker import CircuitBreaker
from .concurrency import ConcurrencyLimit, Limiter, is_overload
from .host_monitor import HostMonitor
from .retry import RetryBudget, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from printos_async._api.requests import Call
    from printos_async._events import Endpoint, Hooks
    from printos_async._transport import RawResponse

    from .adaptive_limit import Reason
    from .attempt import AttemptRunner
    from .circuit_breaker import CircuitWatcher

T = TypeVar("T")


class Executor:
    """Runs the calls of one client, which share its limiter, retry budget and circuit breaker.

    Args:
        attempts: Makes single attempts.
        retry: Which failures are tried again, and when.
        limit: Bounds on the requests in flight.
        hooks: Receive the events.
        max_rate_per_s: Requests in each second at most; None for any number.
        clock: Returns the seconds from which latencies are taken.
    """

    def __init__(
        self,
        attempts: AttemptRunner,
        *,
        retry: RetryPolicy,
        limit: ConcurrencyLimit,
        hooks: Hooks,
        max_rate_per_s: float | None,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._attempts = attempts
        self.limiter = Limiter(limit, on_change=self._limit_changed, on_free=self._permit_freed)
        self.hooks = hooks
        self.budget = RetryBudget(retry)
        self.retry = retry
        self.circuit_watchers: set[CircuitWatcher] = set()
        self.circuit_breaker = CircuitBreaker(max_rate_per_s=max_rate_per_s)
        self._host = HostMonitor(attempts.origin.host, hooks, self.circuit_watchers, self.circuit_breaker)
        self.accounts = AccountMonitor(attempts.accounts, hooks)
        self._endpoints: dict[str, Endpoint] = {}
        # Of single calls that are not admitted at once. No turn is reserved: cancelling leaves the line.
        self._line = asyncio.Lock()

    async def run(
        self,
        call: Call,
        decode: Callable[[RawResponse], Awaitable[T]],
        *,
        recover: Callable[[APIError], Awaitable[T | None]] | None = None,
        repeat: bool = False,
    ) -> T:
        """Make a call, with retries, each attempt with a permit of its own.

        Args:
            call: What to send.
            decode: Returns the result of a 2xx answer; raises ``DecodeError``.
            recover: Called after each failed attempt and its delay, with the attempt's error. A result that it
                returns ends the call; after None the call is retried or fails as usual.
            repeat: A second request does no harm, because ``recover`` has looked first.

        Raises:
            APIError: The last attempt's error; ``attempts`` counts them all.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                result = await self._attempt_in_turn(call, decode, attempt=attempt)
            except APIError as error:
                error.attempts = attempt if error.attempts else attempt - 1
                failure = error
            else:
                self.budget.refund(retried=attempt > 1)
                return result
            # Outside the handler, so that this failure is not chained to those of the next attempts.
            delay_s = self.retry_delay_s(call, failure, attempt=attempt, repeat=repeat)
            if recover is not None:
                await asyncio.sleep(delay_s or 0.0)
                recovered = await recover(failure)
                if recovered is not None:
                    return recovered
                delay_s = None if delay_s is None else 0.0  # it is over
            if delay_s is None or not self.budget.take(now_s=asyncio.get_running_loop().time()):
                try:
                    raise failure
                finally:
                    del failure  # its traceback holds this frame: without this it is a reference cycle
            self.retry_scheduled(call, failure, attempt=attempt, delay_s=delay_s)
            await asyncio.sleep(delay_s)

    async def find_account(self, device_id: str, *, until_s: float = math.inf) -> None:
        """Look a device's credentials up unless they are known, so that it is known whether they are held.

        The caller holds a permit, which passes to another request if the lookup hangs.
        """
        attempts = self._attempts
        if attempts.accounts.known(device_id) is not None:
            return
        number = self.limiter.begin()
        try:
            await attempts.accounts.find(device_id, deadline_s=attempts.deadline_s(until_s))
        finally:
            self.limiter.end(number)

    async def _attempt_in_turn(
        self, call: Call, decode: Callable[[RawResponse], Awaitable[T]], *, attempt: int
    ) -> T:
        """Wait for a permit and until the host admits a request, and make one attempt.

        Raises:
            APIError: Of the class that fits; ``attempts`` is 0 where the pause is too long to wait for.
        """
        self._attempts.open()  # the permits and the line belong to its event loop
        if self.circuit_breaker.caps_rate:
            await self._wait_for_pause(call)  # one that is too long is an error at once, not only at its turn
            async with self._line:
                await self._acquire_permit(call)
        else:
            await self._acquire_permit(call)
        try:
            return await self.attempt(call, decode, attempt=attempt)
        finally:
            self.limiter.release()

    async def _acquire_permit(self, call: Call) -> None:
        """Take a permit, and keep it if the host admits a request now; else wait without one.

        What the circuit breaker admits has to be sent at once, so the permit comes first.

        Raises:
            APIError: The pause is too long to wait for.
        """
        breaker, limiter = self.circuit_breaker, self.limiter
        while True:
            await self._wait_for_pause(call)
            await limiter.acquire()
            now_s = self._attempts.now_s()
            again_s = breaker.admit(now_s=now_s, patient=False, caller=self)
            if again_s <= now_s:
                return
            limiter.release()
            if breaker.pause_s(now_s=now_s) <= 0:
                await asyncio.sleep(again_s - now_s)

    async def _wait_for_pause(self, call: Call) -> None:
        while (pause_s := self.circuit_breaker.pause_s(now_s=self._attempts.now_s())) > 0:
            if pause_s > self.retry.max_delay_s:
                raise pause_error(call, pause_s)
            await asyncio.sleep(pause_s)

    async def attempt(
        self,
        call: Call,
        decode: Callable[[RawResponse], Awaitable[T]],
        *,
        attempt: int,
        is_probe: bool = False,
        until_s: float = math.inf,
    ) -> T:
        """Make one attempt, and report it to the limiter and the hooks; the caller holds a permit.

        ``until_s`` is that of ``AttemptRunner.run``.

        A failed probe leaves the limit alone: one request a second is no load, and an outage must not end with
        a limit of one, behind which hanging probes hold up all others.

        Raises:
            APIError: Of the class that fits.
        """
        limiter = self.limiter
        number = limiter.begin()  # 0 where the limit is fixed: then the limiter has nothing to learn
        started_s = self._clock()
        try:
            try:
                response = await self._attempts.run(call, until_s=until_s)
            finally:
                if number:
                    limiter.end(number)
            undecodable: ResponseDecodeError | None = None
            try:
                result = await decode(response)
            except DecodeError as error:
                undecodable = decode_error(call, response, error)
            if undecodable is not None:  # outside the handler, so that what was read is not chained to it
                raise undecodable
        except APIError as error:
            self._failed(call, error, attempt=attempt, started_s=started_s, is_probe=is_probe)
            raise
        if self.circuit_breaker.succeeded(now_s=self._attempts.now_s()):
            self._host.more_admitted()
        if self.accounts.troubled:
            self.accounts.succeeded(call)
        now_s = self._clock()
        latency_s = now_s - started_s
        if number:
            # The time of a list is that of its length, and logins wait for each other.
            load_s = None if call.method == "GET" or response.had_login else latency_s
            limiter.record(started_s=started_s, now_s=now_s, latency_s=load_s, overloaded=False)
        if self.hooks:
            self._emit_attempt(call, attempt, latency_s, response.status)
        return result

    def _failed(self, call: Call, error: APIError, *, attempt: int, started_s: float, is_probe: bool) -> None:
        self.accounts.failed(call, error)
        if not error.attempts:
            return  # nothing was sent: there are no credentials, or another request has logged in to no avail
        now_s = self._clock()
        is_login_of_one = self.accounts.is_login_of_one(call, error)
        # A login that is told to wait, by a 429 or 503, waits by itself: other accounts need not.
        has_own_pause = is_login_of_one and isinstance(error, StatusError) and bool(error.retry_after_s)
        # A refusal is neither a sign of a working host nor of a failing one.
        if not is_refusal(call, error) and not has_own_pause:
            self._host.failed(error, is_login=error.path != call.path and not is_login_of_one)
        # A failure may come early or late for any reason: its time says nothing about the server's load.
        if not (is_probe or is_login_of_one):
            self.limiter.record(
                started_s=started_s, now_s=now_s, latency_s=None, overloaded=is_overload(error)
            )
        if self.hooks:
            status = error.status if isinstance(error, (StatusError, ResponseDecodeError)) else None
            self._emit_attempt(call, attempt, now_s - started_s, status, error)

    def retry_delay_s(
        self, call: Call, error: APIError, *, attempt: int, repeat: bool = False, patient: bool = False
    ) -> float | None:
        """Return the seconds until the next attempt, or None if there must not be one.

        ``repeat`` says that a second request does no harm whatever the operation; ``patient`` that neither the number
        of attempts nor a long pause ends them, and that an intermediary's page is retried.
        """
        delay_s = self.retry.delay_s(
            error,
            attempt=attempt,
            may_repeat=repeat or may_repeat(call, error),
            draw=random.random(),  # noqa: S311  # jitter, not a secret
            patient=patient,
        )
        if patient and delay_s is not None and self.circuit_breaker.overlong_s is not None:
            # No caller is held for longer than this.
            delay_s = min(delay_s, self.circuit_breaker.held_until_s - asyncio.get_running_loop().time())
        return delay_s

    def retry_scheduled(self, call: Call, error: APIError, *, attempt: int, delay_s: float) -> None:
        """Emit the event of a retry."""
        if self.hooks:
            cause = type(error).__name__
            self.hooks.emit(RetryScheduled(call.operation, call.device_id, attempt, delay_s, cause))

    def _emit_attempt(
        self, call: Call, attempt: int, latency_s: float, status: int | None, error: APIError | None = None
    ) -> None:
        endpoint = self._endpoints.get(call.operation)
        if endpoint is None:
            endpoint = self._endpoints[call.operation] = make_endpoint(call, self._attempts.origin)
        outcome: Literal["ok", "error", "transport"]
        outcome = "ok" if error is None else "transport" if status is None else "error"
        name = None if error is None else type(error).__name__
        self.hooks.emit(
            AttemptFinished(
                call.operation, call.device_id, attempt, latency_s, status, outcome, name, endpoint
            )
        )

    def _limit_changed(self, old: int, new: int, reason: Reason) -> None:
        if self.hooks:
            self.hooks.emit(LimitChanged(old, new, reason))

    def _permit_freed(self) -> None:
        for watcher in tuple(self.circuit_watchers):
            watcher.permit_freed()

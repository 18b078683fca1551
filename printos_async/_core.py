"""What every operation goes through: a slot, an attempt, an event, and another attempt where that may help."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Literal, TypeVar

from ._decode import DecodeError
from ._errors import APIError, ResponseDecodeError, StatusError
from ._events import AttemptFinished, RetryScheduled
from ._exchange import may_repeat
from ._limits import ConcurrencyLimit, Limiter, is_overload
from ._mapping import decode_error
from ._retry import RetryBudget, RetryPolicy, is_transient

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._encode import Call
    from ._events import Hooks
    from ._exchange import Exchange
    from ._wire import WireResponse

T = TypeVar("T")

# At 30 % random failures a run of this many comes once in about 170,000 attempts.
DOWN_AFTER_FAILURES = 10


class Core:
    """The parts that one client's operations share."""

    def __init__(
        self, exchange: Exchange, *, retry: RetryPolicy, limit: ConcurrencyLimit, hooks: Hooks
    ) -> None:
        self.exchange = exchange
        self.limiter = Limiter(limit)
        self.hooks = hooks
        self.budget = RetryBudget(retry, now_s=time.monotonic())
        self.failures_in_a_row = 0
        self._retry = retry

    async def run(self, call: Call, decode: Callable[[WireResponse], T]) -> T:
        """Make a call, with retries, each attempt in a slot of its own.

        Raises:
            APIError: The last attempt's error; ``attempts`` counts them all.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                async with self.limiter:
                    result = await self.attempt(call, decode, attempt=attempt)
            except APIError as error:
                delay_s = self.retry_delay_s(call, error, attempt=attempt)
                if delay_s is None or not self.budget.take(now_s=time.monotonic()):
                    error.attempts = attempt
                    raise
            else:
                self.budget.refund(attempts=attempt)
                return result
            await asyncio.sleep(delay_s)

    async def attempt(self, call: Call, decode: Callable[[WireResponse], T], *, attempt: int) -> T:
        """Make one attempt, and report it to the limiter and the hooks; the caller holds a slot.

        Raises:
            APIError: Of the class that fits.
        """
        started_s = time.perf_counter()
        try:
            result = await self._attempt(call, decode)
        except APIError as error:
            now_s = time.perf_counter()
            # A failure may come early or late for any reason: its time says nothing about the server's load.
            self.limiter.record(
                started_s=started_s, now_s=now_s, latency_s=None, overloaded=is_overload(error)
            )
            if self.hooks:
                self._emit_failure(call, error, attempt=attempt, latency_s=now_s - started_s)
            raise
        now_s = time.perf_counter()
        latency_s = now_s - started_s
        # The time of a list is that of its length.
        load_s = None if call.method == "GET" else latency_s
        self.limiter.record(started_s=started_s, now_s=now_s, latency_s=load_s, overloaded=False)
        if self.hooks:
            self.hooks.emit(AttemptFinished(call.operation, call.device_id, attempt, latency_s, None, "ok"))
        return result

    def _emit_failure(self, call: Call, error: APIError, *, attempt: int, latency_s: float) -> None:
        status = error.status if isinstance(error, (StatusError, ResponseDecodeError)) else None
        outcome: Literal["error", "transport"] = "transport" if status is None else "error"
        self.hooks.emit(AttemptFinished(call.operation, call.device_id, attempt, latency_s, status, outcome))

    @property
    def seems_down(self) -> bool:
        """Whether so many attempts failed in a row that it is no coincidence."""
        return self.failures_in_a_row >= DOWN_AFTER_FAILURES

    def retry_delay_s(
        self, call: Call, error: APIError, *, attempt: int, repeat: bool = False
    ) -> float | None:
        """Give the seconds until the next attempt, or None if there must not be one.

        ``repeat`` says that the caller makes sure that a second request does no harm.
        """
        delay_s = self._retry.delay_s(
            error,
            attempt=attempt,
            may_repeat=repeat or may_repeat(call, error),
            draw=random.random(),  # noqa: S311  # jitter, not a secret
        )
        if delay_s is not None and self.hooks:
            cause = type(error).__name__
            self.hooks.emit(RetryScheduled(call.operation, call.device_id, attempt, delay_s, cause))
        return delay_s

    async def _attempt(self, call: Call, decode: Callable[[WireResponse], T]) -> T:
        try:
            response = await self.exchange.attempt(call)
        except APIError as error:
            if is_transient(error):
                self.failures_in_a_row += 1
            raise
        self.failures_in_a_row = 0
        try:
            return decode(response)
        except DecodeError as error:
            failure = decode_error(call, response, error)
        raise failure

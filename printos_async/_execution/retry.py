"""Retry policy and retry budget. No I/O, no clock of its own."""

from __future__ import annotations

from attrs import field, frozen

from printos_async._common.checks import at_least
from printos_async._errors import APIError, ProxyError, ResponseDecodeError, StatusError, TransportError

# Answers of a gateway that does not know what the server did with the request.
_GATEWAY_STATUSES = frozenset({502, 504, 520, 522, 524})
_RETRYABLE_STATUSES = frozenset({408, 429})
# A retry takes one token. A request that took a token and succeeds gives it back, any other success a fifth, as in
# the standard retry mode of the AWS SDKs: the bucket empties only when retries do not help.
_REFUND_AFTER_RETRY = 1.0
_REFUND_AT_ONCE = 0.2


@frozen(kw_only=True)
class RetryPolicy:
    """Retries of failed requests: their number, delays and budget.

    PUT and GET are retried after a transport error, 408, 429 and 5xx; a POST only if it certainly did not reach the
    server. The delay before attempt *n* + 1 is a random time between 0 and
    ``min(max_delay_s, base_delay_s * 2 ** (n - 1))`` (full jitter), but never less than the server's ``Retry-After``.
    If the server asks for more than ``max_delay_s``, the call fails at once, with the pause in the error's
    ``retry_after_s``.

    Attributes:
        max_attempts: Maximum number of requests for one call, the first one included; 1 turns retries off.
        base_delay_s: Upper bound of the first delay, in seconds.
        max_delay_s: Upper bound of every delay, in seconds.
        budget: Size of the token bucket that all calls of the client share. Each retry takes a token. Successes return
            tokens, and ``budget / max_delay_s`` tokens return each second. If no token is left, a single call fails
            with its last error, and a pushed status waits for a token.

    Raises:
        ConfigurationError: A value is out of range.

    Source: M. Brooker, "Exponential Backoff And Jitter"; RFC 9110, section 10.2.3; AWS SDKs, standard retry mode.
    """

    max_attempts: int = field(default=5, validator=at_least(1))
    base_delay_s: float = field(default=0.5, validator=at_least(0.0))
    max_delay_s: float = field(default=60.0, validator=at_least(0.001))
    budget: float = field(default=100, validator=at_least(0.0))

    def delay_s(
        self, error: APIError, *, attempt: int, may_repeat: bool, draw: float, patient: bool = False
    ) -> float | None:
        """Return the seconds to wait before the next attempt, or None if there must not be one.

        Args:
            error: The failed attempt's error.
            attempt: 1 for the first request of a call.
            may_repeat: The operation may be applied twice (PUT, GET), or this attempt did not reach the server.
            draw: A random number from 0 to 1.
            patient: Neither ``max_attempts`` nor a long ``Retry-After`` ends it: the host fails, not the call.
        """
        if not may_repeat or (attempt >= self.max_attempts and not patient):
            return None
        if not is_transient(error) and not (patient and is_from_intermediary(error)):
            return None
        # The exponent is bounded: 2.0 ** 1024 overflows.
        delay_s = draw * min(self.max_delay_s, self.base_delay_s * 2.0 ** min(attempt - 1, 60))
        retry_after_s = error.retry_after_s if isinstance(error, StatusError) else None
        if retry_after_s is None:
            return delay_s
        return None if retry_after_s > self.max_delay_s and not patient else max(delay_s, retry_after_s)


def is_ambiguous(error: APIError) -> bool:
    """Return whether the write may still be applied later, by a proxy's queue or a slow server."""
    if isinstance(error, StatusError):
        return error.status in _GATEWAY_STATUSES
    return isinstance(error, TransportError) and error.may_have_arrived


def is_transient(error: APIError) -> bool:
    """Return whether the same request may succeed later."""
    if isinstance(error, StatusError):
        return error.status in _RETRYABLE_STATUSES or 500 <= error.status <= 599
    return isinstance(error, TransportError) and not is_proxy_refusal(error)


def is_from_intermediary(error: APIError) -> bool:
    """Return whether an intermediary's page came in place of PrintOS's answer: the request's fate is unknown."""
    return isinstance(error, ResponseDecodeError) and error.from_intermediary


def is_proxy_refusal(error: APIError) -> bool:
    """Return whether the proxy refused its credentials, which says nothing about the status or the host."""
    return isinstance(error, ProxyError) and error.status == 407


def is_local(error: APIError) -> bool:
    """Return whether this machine failed: nothing was sent, and nothing is known of the server."""
    return isinstance(error, TransportError) and error.local


class RetryBudget:
    """A token bucket that all retries of one client share."""

    def __init__(self, policy: RetryPolicy) -> None:
        self.capacity = float(policy.budget)
        self._per_second = self.capacity / policy.max_delay_s
        self._tokens = self.capacity
        self._at_s: float | None = None

    def take(self, *, now_s: float) -> bool:
        """Take a token for one retry; return False where there is none."""
        if self._at_s is not None:
            self._tokens = min(self.capacity, self._tokens + (now_s - self._at_s) * self._per_second)
        self._at_s = now_s
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def refund(self, *, retried: bool) -> None:
        """Refund for a success; ``retried`` says that its request took a token."""
        if self._tokens < self.capacity:
            refund = _REFUND_AFTER_RETRY if retried else _REFUND_AT_ONCE
            self._tokens = min(self.capacity, self._tokens + refund)

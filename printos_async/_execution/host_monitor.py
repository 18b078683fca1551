"""Host monitor: judges by each attempt whether the host works, and announces what its circuit breaker does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from attrs import define, field

from printos_async._errors import RateLimitError, ResponseDecodeError, StatusError
from printos_async._events import CircuitChanged, RetryAfterCapped

from .circuit_breaker import MAX_HOLD_S
from .retry import is_from_intermediary, is_local, is_transient

if TYPE_CHECKING:
    from collections.abc import Iterable

    from printos_async._errors import APIError
    from printos_async._events import Hooks

    from .circuit_breaker import Circuit, CircuitBreaker, CircuitWatcher

_HOLDING_STATUSES = frozenset({429, 503})


@define(eq=False)
class HostMonitor:
    """Feeds the circuit breaker of one client's host, with an event and a notice to the watchers for each change.

    Args:
        name: The host, for events.
        hooks: Receive the events.
        watchers: Receive the notices.
        circuit_breaker: What is known of the host.
    """

    _name: str
    _hooks: Hooks
    _watchers: Iterable[CircuitWatcher]
    _circuit_breaker: CircuitBreaker
    _announced: Circuit = field(default="closed", init=False)

    def more_admitted(self) -> None:
        """Announce that more may be sent than before. To be called where ``succeeded`` has returned True."""
        if not any(watcher.has_waiting() for watcher in self._watchers):
            self._circuit_breaker.close()  # nothing to probe with: no more evidence will come
        self._announce()
        for watcher in tuple(self._watchers):
            watcher.more_admitted()

    def failed(self, error: APIError, *, is_login: bool) -> None:
        """Note a failed attempt: it may open the circuit, or show all the same that the host works.

        ``is_login`` says that a login failed without which no status gets through.
        """
        breaker, now_s = self._circuit_breaker, asyncio.get_running_loop().time()
        if not is_transient(error) and not is_from_intermediary(error):
            # It refuses this request, such as that of a device that is gone, or its answer is not what the
            # specification says. Redirects and the proxy's 407 say nothing about the host.
            is_from_host = isinstance(error, ResponseDecodeError) or (
                isinstance(error, StatusError) and 400 <= error.status <= 499
            )
            if is_from_host and breaker.succeeded(now_s=now_s):
                self.more_admitted()
            return
        if is_local(error):
            return
        was_overlong = breaker.overlong_s is not None
        retry_after_s = None
        if isinstance(error, StatusError) and error.status in _HOLDING_STATUSES:
            retry_after_s = error.retry_after_s
        breaker.failed(
            now_s=now_s,
            retry_after_s=retry_after_s,
            is_rate_limited=isinstance(error, RateLimitError),
            is_login=is_login,
        )
        # Both events are emitted without a hook too: they are logged.
        if breaker.overlong_s is not None and not was_overlong:
            self._hooks.emit(RetryAfterCapped(breaker.overlong_s, MAX_HOLD_S, self._name))
        if self._announce():
            for watcher in tuple(self._watchers):
                watcher.circuit_opened()

    def _announce(self) -> bool:
        """Emit an event if the circuit has changed, and return whether it has."""
        circuit = self._circuit_breaker.circuit
        if circuit == self._announced:
            return False
        self._announced = circuit
        self._hooks.emit(CircuitChanged(circuit, self._name))
        return True

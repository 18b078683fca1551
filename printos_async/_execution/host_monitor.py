"""Host monitor: judges by each attempt whether the host works, and announces what its circuit breaker does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from printos_async._errors import RateLimitError, ResponseDecodeError, StatusError, TransportError
from printos_async._events import CircuitChanged, RetryAfterCapped

from .circuit_breaker import MAX_HOLD_S, HostHealth
from .retry import is_local, is_proxy_refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from printos_async._errors import APIError
    from printos_async._events import Hooks

    from .circuit_breaker import CircuitWatcher

_HOLDING_STATUSES = frozenset({429, 503})


class HostMonitor:
    """Health of one client's host, with an event and a notice to the watchers for each change.

    Args:
        name: The host, for events.
        hooks: Receive the events.
        watchers: Receive the notices.
        max_rate_per_s: As in ``HostHealth``.

    Attributes:
        health: What is known of the host.
    """

    def __init__(
        self, name: str, hooks: Hooks, watchers: Iterable[CircuitWatcher], *, max_rate_per_s: float | None
    ) -> None:
        self.health = HostHealth(max_rate_per_s=max_rate_per_s)
        self._name = name
        self._hooks = hooks
        self._watchers = watchers
        self._announced = self.health.circuit

    def more_admitted(self) -> None:
        """Announce that more may be sent than before. To be called where ``health.succeeded`` has returned True."""
        if not any(watcher.has_waiting() for watcher in self._watchers):
            self.health.close()  # nothing to probe with: no more evidence will come
        self._announce()
        for watcher in tuple(self._watchers):
            watcher.more_admitted()

    def failed(self, error: APIError, *, is_login: bool) -> None:
        """Note a failed attempt: it may open the circuit, or show all the same that the host works.

        ``is_login`` says that a login failed without which no status gets through.
        """
        if _is_fault(error):
            self._note_fault(error, is_login=is_login)
        elif _shows_working_host(error) and self.health.succeeded(now_s=_now_s()):
            self.more_admitted()

    def _note_fault(self, error: APIError, *, is_login: bool) -> None:
        retry_after_s = None
        if isinstance(error, StatusError) and error.status in _HOLDING_STATUSES:
            retry_after_s = error.retry_after_s
        health = self.health
        was_overlong = health.overlong_s is not None
        health.failed(
            now_s=_now_s(),
            retry_after_s=retry_after_s,
            is_refusal=isinstance(error, RateLimitError),
            is_login=is_login,
        )
        # Both events are emitted without a hook too: they are logged.
        if health.overlong_s is not None and not was_overlong:
            self._hooks.emit(RetryAfterCapped(health.overlong_s, MAX_HOLD_S, self._name))
        if self._announce():
            for watcher in tuple(self._watchers):
                watcher.circuit_opened()

    def _announce(self) -> bool:
        """Emit an event if the circuit has changed, and return whether it has."""
        circuit = self.health.circuit
        if circuit == self._announced:
            return False
        self._announced = circuit
        self._hooks.emit(CircuitChanged(circuit, self._name))
        return True


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _is_fault(error: APIError) -> bool:
    """Return whether the host, or what is between, failed or has too much to do."""
    if isinstance(error, StatusError):
        return 500 <= error.status <= 599 or error.status in {408, 429}
    if isinstance(error, ResponseDecodeError):
        return error.from_intermediary
    return isinstance(error, TransportError) and not is_local(error) and not is_proxy_refusal(error)


def _shows_working_host(error: APIError) -> bool:
    """Return whether a failure that is no fault came from the host itself.

    It refuses this request, such as that of a device that is gone, or its answer is not what the specification says.
    """
    return isinstance(error, ResponseDecodeError) or (
        isinstance(error, StatusError) and 400 <= error.status <= 499
    )

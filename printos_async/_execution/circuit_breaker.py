"""Circuit breaker of the host, with the hold for Retry-After and the cap on the rate.

Pure: no clock of its own, no I/O.
"""

from __future__ import annotations

import math
from typing import Literal, Protocol

# Failures in a row, and the seconds over which nothing else came, that open the circuit. A host that fails 85 % of
# its requests at random passes the first once in 70 million requests; by the number alone 10 in a row would be every
# fifth run. Slower traffic needs the time instead, and a device on its own makes no more than a few attempts.
_EVIDENCE_OF_OUTAGE = ((100, 0.0), (20, 2.0), (5, 3.0))
# The circuit closes after so many successes, unless so many probes in a row fail between them: a host that serves
# 15 % comes back within half a minute, one that serves 3 % stays open.
_SUCCESSES_TO_CLOSE = 3
_FAILURES_TO_START_OVER = 10
_PROBE_INTERVAL_S = 1.0
# No status gets through without a login: a few that are refused, or answered by an intermediary, are enough.
_LOGIN_FAILURE_WEIGHT = 50
# A bulk push gives up what has no retry token after so many failures in a row.
_FAILURES_THAT_SEEM_DOWN = 10
# Longer pauses are mistakes, of a clock or a configuration: a pusher probes whether they still hold.
MAX_HOLD_S = 3600.0
_LONG_PAUSE_PROBE_INTERVAL_S = 60.0
# Lateness of a timer that the cap on the rate makes up for, and for which a turn is kept.
_LATENESS_S = 0.02

Circuit = Literal["closed", "open"]


class CircuitWatcher(Protocol):
    """Receives a notice when the circuit breaker or an overdue request changes what may be sent."""

    def circuit_opened(self) -> None:
        """Note that only probes are sent from now on."""

    def has_waiting(self) -> bool:
        """Return whether something waits to be sent."""

    def more_admitted(self) -> None:
        """Note that requests may be admitted that were not before."""

    def permit_freed(self) -> None:
        """Send one more request if one is ready."""


class CircuitBreaker:
    """Admits requests to the host, by the outcomes of all attempts of one client and the cap on their rate.

    Args:
        max_rate_per_s: Requests admitted in each second at most; None for any number.

    Attributes:
        caps_rate: There is a cap on the rate.
        circuit: ``"open"`` while the host seems down: only probes are sent. Half-open counts as open.
        succeeded_s: When an answer last showed a working host.
        held_until_s: Until then nothing is sent, because the host asked for a pause.
        overlong_s: The pause that the host asked for, where that is longer than it is held; else None.

    Source: M. Nygard, "Release It!", circuit breaker; RFC 9110, section 10.2.3.
    """

    def __init__(self, *, max_rate_per_s: float | None = None) -> None:
        self.caps_rate = max_rate_per_s is not None
        self._interval_s = 0.0 if max_rate_per_s is None else 1.0 / max_rate_per_s
        self._next_start_s = -math.inf
        self._line: dict[object, None] = {}  # callers that wait for the cap on the rate, first come first
        self.circuit: Circuit = "closed"
        self.succeeded_s = -math.inf
        self.held_until_s = 0.0
        self.overlong_s: float | None = None
        self._asked_until_s = 0.0
        self._probes_long_pause = False
        self._failures = 0
        self._faults = 0  # failures in a row but for 429
        self._first_failure_s = 0.0
        self._successes = 0  # half-open: since the circuit opened
        self._free_probes = 0  # half-open: probes that need not wait for the interval
        self._next_probe_s = 0.0

    @property
    def seems_down(self) -> bool:
        """Whether too many attempts failed in a row for a coincidence; refusals for load do not count."""
        return self._failures > 0 and self._faults >= _FAILURES_THAT_SEEM_DOWN

    def succeeded(self, *, now_s: float) -> bool:
        """Note an answer that shows a working host; True if more may be sent now than before."""
        self.succeeded_s = now_s
        self._failures = 0
        if self.circuit == "closed" and not self._probes_long_pause:
            return False
        if self._probes_long_pause:
            self._end_long_pause(now_s)
        if self.circuit == "open":
            self._successes += 1
            self._free_probes += 2
            if self._successes >= _SUCCESSES_TO_CLOSE:
                self.close()
        return True

    def close(self) -> None:
        """Close the circuit; by itself it closes after several successes."""
        self.circuit = "closed"

    def failed(
        self,
        *,
        now_s: float,
        retry_after_s: float | None,
        is_rate_limited: bool = False,
        is_login: bool = False,
    ) -> None:
        """Note a transport error, an intermediary's page, a 408, 429 or 5xx; it may open the circuit.

        A host that says when to come back is no broken host: it is held, not taken for down. With a
        ``Retry-After`` of 0 it says nothing of the kind.

        Args:
            now_s: When.
            retry_after_s: The pause that a 429 or 503 asked for.
            is_rate_limited: It is a 429: the host is there, and wants fewer requests.
            is_login: It is a login that was answered so.
        """
        self._free_probes = 0
        if self._probes_long_pause and (retry_after_s or 0.0) <= MAX_HOLD_S:
            self._end_long_pause(now_s)
        if retry_after_s:
            self._hold(now_s, retry_after_s)
            return
        if not self._failures:
            self._first_failure_s, self._faults = now_s, 0
        self._failures += _LOGIN_FAILURE_WEIGHT if is_login else 1
        self._faults += not is_rate_limited
        if self.circuit == "open":
            if self._failures >= _FAILURES_TO_START_OVER:
                self._successes = 0
            return
        lasted_s = now_s - self._first_failure_s
        if any(self._failures >= count and lasted_s >= span_s for count, span_s in _EVIDENCE_OF_OUTAGE):
            self.circuit = "open"
            self._successes = 0
            self._next_probe_s = now_s + _PROBE_INTERVAL_S

    def pause_s(self, *, now_s: float) -> float:
        """Return how long the pause still lasts that the host asked for; 0 or less without one."""
        return self._asked_until_s - now_s if self.held_until_s > now_s else 0.0

    def admit(self, *, now_s: float, patient: bool, caller: object = None) -> float:
        """Return when one request may be sent: admitted if that is not after ``now_s``, else the time to ask again.

        Callers that are not ``patient`` honour ``Retry-After``, for as long as the host asked, but ignore an open circuit.
        The cap on the rate admits one request after the other and reserves none, so that a caller that gives up costs
        the others nothing. Those that wait for it take turns; ``caller`` tells them apart.
        """
        if self.held_until_s > now_s:
            return self.held_until_s if patient else self._asked_until_s
        if self.caps_rate and (turn_s := self._turn_s(now_s, caller)) > now_s:
            return turn_s
        if self.overlong_s is not None:
            self._probes_long_pause = True
            self.held_until_s = now_s + _LONG_PAUSE_PROBE_INTERVAL_S
        elif self.circuit == "open" and patient:
            if self._free_probes:
                self._free_probes -= 1
            elif self._next_probe_s > now_s:
                return self._next_probe_s
            self._next_probe_s = now_s + _PROBE_INTERVAL_S
        if self.caps_rate:
            # A timer that came late is made up for, within bounds: else the rate would stay below the cap.
            self._next_start_s = max(self._next_start_s, now_s - _LATENESS_S) + self._interval_s
        return now_s

    def _turn_s(self, now_s: float, caller: object) -> float:
        """Return when the cap on the rate lets a caller ask again; ``now_s`` if it is its turn."""
        line, start_s = self._line, self._next_start_s
        if start_s <= now_s and next(iter(line), caller) is caller:
            line.pop(caller, None)
            return now_s
        if start_s + _LATENESS_S <= now_s:
            line.clear()  # the first has given up; the others ask again
            return now_s
        line[caller] = None
        turn_s = start_s + tuple(line).index(caller) * self._interval_s
        return turn_s if turn_s > now_s else start_s + _LATENESS_S

    def _hold(self, now_s: float, retry_after_s: float) -> None:
        self._asked_until_s = max(self._asked_until_s, now_s + retry_after_s)
        if retry_after_s > MAX_HOLD_S:
            self.overlong_s = retry_after_s
            retry_after_s = _LONG_PAUSE_PROBE_INTERVAL_S if self._probes_long_pause else MAX_HOLD_S
        self.held_until_s = max(self.held_until_s, now_s + retry_after_s)

    def _end_long_pause(self, now_s: float) -> None:
        self._probes_long_pause, self.overlong_s = False, None
        self.held_until_s = self._asked_until_s = now_s

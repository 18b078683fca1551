"""Whether the host wants requests now: a gate that Retry-After closes, and a circuit that failures open.

Pure: no clock of its own, no I/O.
"""

from __future__ import annotations

import math
from typing import Literal

# At 30 % random failures a run of this many comes once in about 170,000 attempts.
FAILURES_TO_OPEN = 10
# A small fleet makes few attempts: fewer failures are enough if nothing succeeded for a while.
FEW_FAILURES_TO_OPEN = 3
FEW_FAILURES_SPAN_S = 2.0
PROBE_INTERVAL_S = 1.0

Circuit = Literal["closed", "open"]


class HostHealth:
    """What the outcomes of all attempts of one client say about the host.

    Source: M. Nygard, "Release It!", circuit breaker; RFC 9110, section 10.2.3.
    """

    def __init__(self) -> None:
        self.circuit: Circuit = "closed"
        self.closings = 0  # of the gate or opening of the circuit: who was admitted before has to ask again
        self.held_until_s = 0.0
        self.succeeded_s = -math.inf
        self._failures = 0
        self._first_failure_s = 0.0
        self._next_probe_s = 0.0

    @property
    def seems_down(self) -> bool:
        """Whether so many attempts failed in a row that it is no coincidence."""
        return self._failures >= FAILURES_TO_OPEN

    def succeeded(self, *, now_s: float) -> bool:
        """Note an answer that shows a working host; True if that closed the circuit."""
        self.succeeded_s = now_s
        self._failures = 0
        if self.circuit == "closed":
            return False
        self.circuit = "closed"
        return True

    def failed(self, *, now_s: float, retry_after_s: float | None) -> bool:
        """Note a transport error, a 429 or a 5xx; True if that opened the circuit.

        A host that says when to come back is no broken host: it is held, not taken for down.
        """
        if retry_after_s is not None:
            self.held_until_s = max(self.held_until_s, now_s + retry_after_s)
            self.closings += 1
            return False
        if not self._failures:
            self._first_failure_s = now_s
        self._failures += 1
        few = self._failures >= FEW_FAILURES_TO_OPEN and now_s - self._first_failure_s >= FEW_FAILURES_SPAN_S
        if self.circuit == "open" or not (few or self.seems_down):
            return False
        self.circuit = "open"
        self.closings += 1
        self._next_probe_s = now_s + PROBE_INTERVAL_S
        return True

    def admit(self, *, now_s: float) -> float:
        """Ask to send one request: admitted if the answer is not after ``now_s``, else the time to ask again."""
        if self.held_until_s > now_s:
            return self.held_until_s
        if self.circuit == "closed":
            return now_s
        if self._next_probe_s > now_s:
            return self._next_probe_s
        self._next_probe_s = now_s + PROBE_INTERVAL_S
        return now_s

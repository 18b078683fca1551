"""Under what the rivals are measured, and what `push_statuses` has to reach there."""

from __future__ import annotations

import sys
from dataclasses import dataclass

# The interpreter's own descriptors, the event loop's and the standard streams.
_OTHER_DESCRIPTORS = 64


@dataclass(frozen=True)
class Scenario:
    """So many statuses in flight against a server that takes so long."""

    in_flight: int
    latency_ms: float = 0.0

    @property
    def title(self) -> str:
        """What a table says above it."""
        latency = f"{self.latency_ms:g} ms latency" if self.latency_ms else "no latency"
        return f"{self.in_flight:,} in flight, {latency}"

    @property
    def ideal_rate(self) -> float | None:
        """Statuses per second of a client that takes no time itself; None without latency."""
        return self.in_flight / self.latency_ms * 1000 if self.latency_ms else None


NO_LATENCY = Scenario(64)
WITH_LATENCY = Scenario(256, 50.0)
MANY_IN_FLIGHT = Scenario(1000, 50.0)


@dataclass(frozen=True)
class Threshold:
    """The least that a rival's rate must be, as a multiple of another rival's or of the ``ideal``."""

    scenario: Scenario
    rival: str
    minimum: float
    relative_to: str


THRESHOLDS = (
    Threshold(NO_LATENCY, "push_statuses", 8.0, "generated"),
    Threshold(WITH_LATENCY, "push_statuses", 0.8, "ideal"),
)


def allow_descriptors(scenario: Scenario) -> bool:
    """Raise this process's limit of open files for a scenario, which children inherit; False if it cannot be."""
    if sys.platform == "win32":  # it has no such limit
        return True
    import resource  # noqa: PLC0415 - not on Windows

    needed = scenario.in_flight + _OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return True
    if hard != resource.RLIM_INFINITY and hard < needed:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return True

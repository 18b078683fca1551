"""Scenarios of the benchmarks, and the thresholds of `push_statuses`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .loops import Loop

# For the interpreter, the event loop and the standard streams.
_OTHER_DESCRIPTORS = 64


@dataclass(frozen=True)
class Scenario:
    """Number of statuses in flight, latency and protocol of the server."""

    in_flight: int
    latency_ms: float = 0.0
    protocol: Literal["HTTP/1.1", "HTTP/1.1 over TLS", "HTTP/2 over TLS"] = "HTTP/1.1"

    @property
    def title(self) -> str:
        """The title of its table."""
        latency = f"{self.latency_ms:g} ms latency" if self.latency_ms else "no latency"
        protocol = f", {self.protocol}" if self.has_tls else ""
        return f"{self.in_flight:,} in flight, {latency}{protocol}"

    @property
    def has_tls(self) -> bool:
        """Whether the server speaks TLS; every client checks its certificate."""
        return self.protocol != "HTTP/1.1"

    @property
    def is_http2(self) -> bool:
        """Whether the protocol is HTTP/2; other clients do not take part."""
        return self.protocol == "HTTP/2 over TLS"

    @property
    def ideal_rate(self) -> float | None:
        """Statuses per second of a client that needs no time itself; None without latency."""
        return self.in_flight / self.latency_ms * 1000 if self.latency_ms else None


NO_LATENCY = Scenario(64)
WITH_LATENCY = Scenario(256, 50.0)
MANY_IN_FLIGHT = Scenario(1000, 50.0)
TLS = Scenario(64, protocol="HTTP/1.1 over TLS")
HTTP2 = Scenario(64, protocol="HTTP/2 over TLS")
SCENARIOS = {
    "no-latency": NO_LATENCY,
    "latency": WITH_LATENCY,
    "many": MANY_IN_FLIGHT,
    "tls": TLS,
    "http2": HTTP2,
}


@dataclass(frozen=True)
class Threshold:
    """A limit for a rival, relative to another rival or to the ``ideal`` rate.

    Attributes:
        scenario: The scenario.
        rival: The rival.
        relative_to: Another rival, or ``ideal``.
        at_least: Minimum of its rate, as a multiple of the other's.
        cpu_more: Maximum of its additional CPU time for each status, as a multiple of the other's CPU time. Microseconds
            would depend more on the machine than on the client.
        loop: The event loop to which it applies; None for all.
    """

    scenario: Scenario
    rival: str
    relative_to: str
    at_least: float | None = None
    cpu_more: float | None = None
    loop: Loop | None = None


THRESHOLDS = (
    Threshold(NO_LATENCY, "push_statuses", "generated", at_least=40.0),
    Threshold(NO_LATENCY, "push_statuses", "aiohttp", at_least=2.0, loop="uvloop"),
    Threshold(NO_LATENCY, "push_statuses", "aiohttp", at_least=1.5, loop="asyncio"),
    Threshold(NO_LATENCY, "push_statuses", "transport", cpu_more=1.35, loop="uvloop"),
    Threshold(NO_LATENCY, "push_statuses", "transport", cpu_more=1.25, loop="asyncio"),
    Threshold(WITH_LATENCY, "push_statuses", "ideal", at_least=0.9),
    Threshold(MANY_IN_FLIGHT, "push_statuses", "ideal", at_least=0.9),
)


def allow_descriptors(scenario: Scenario) -> bool:
    """Raise this process's limit of open files for a scenario; children inherit it. Return False if that fails."""
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

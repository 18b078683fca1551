"""Under what the rivals are measured, and what `push_statuses` has to reach there."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .loops import Loop

# The interpreter's own descriptors, the event loop's and the standard streams.
_OTHER_DESCRIPTORS = 64


@dataclass(frozen=True)
class Scenario:
    """So many statuses in flight against a server that takes so long and speaks this protocol."""

    in_flight: int
    latency_ms: float = 0.0
    protocol: Literal["HTTP/1.1", "HTTP/1.1 over TLS", "HTTP/2 over TLS"] = "HTTP/1.1"

    @property
    def title(self) -> str:
        """What a table says above it."""
        latency = f"{self.latency_ms:g} ms latency" if self.latency_ms else "no latency"
        protocol = f", {self.protocol}" if self.has_tls else ""
        return f"{self.in_flight:,} in flight, {latency}{protocol}"

    @property
    def has_tls(self) -> bool:
        """Whether the server has a certificate, which every client checks."""
        return self.protocol != "HTTP/1.1"

    @property
    def is_http2(self) -> bool:
        """Whether only clients that speak HTTP/2 take part."""
        return self.protocol == "HTTP/2 over TLS"

    @property
    def ideal_rate(self) -> float | None:
        """Statuses per second of a client that takes no time itself; None without latency."""
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
    """What a rival has to reach, compared with another rival or with the ``ideal``.

    Attributes:
        scenario: Where.
        rival: Who.
        relative_to: Another rival, or ``ideal``.
        at_least: The least that its rate must be, as a multiple of the other's.
        cpu_more: The most CPU time that it may take beyond the other's for each status, as a multiple of the other's:
            microseconds would say more of the machine than of the client.
        loop: The event loop that it is for; all if None.
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

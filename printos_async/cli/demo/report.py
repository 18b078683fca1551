"""Reports of ``printos demo``."""

from __future__ import annotations

from collections import Counter
from typing import Any

from attrs import Factory, define

from printos_async.cli.terminal.output import counted


@define(kw_only=True)
class DemoReport:
    """The report of one demonstration.

    Attributes:
        seed: The faults' seed.
        url: Where the server was.
        devices: How many were registered.
        statuses: How many were put.
        events: The client's events by name, ``CircuitOpened`` and ``CircuitClosed`` among them.
        requests: Requests that the server received.
        pushing_s: Seconds that the rounds took.
        latencies_s: Of every status sent: seconds from its acceptance to its acknowledgement, sorted.
        faults: Faults that the server injected, by kind.
        problems: Violated promises; empty if there are none.
        limits: The concurrency limit of the long-lived pusher, and what it changed to; empty without such a pusher.
        late_writes: Writes that the server applied after its answer was an error or lost.
        overwritten: Of these, those that landed on a newer status.
        refused: Requests that the server refused because of the revoked key.
    """

    seed: int
    url: str = ""
    devices: int = 0
    statuses: int = 0
    events: Counter[str] = Factory(Counter)
    requests: int = 0
    pushing_s: float = 0.0
    latencies_s: list[float] = Factory(list)
    faults: dict[str, int] = Factory(dict)
    problems: list[str] = Factory(list)
    limits: list[int] = Factory(list)
    late_writes: int = 0
    overwritten: int = 0
    refused: int = 0

    @property
    def settled(self) -> int:
        """Statuses with an outcome."""
        return self.events["StatusSent"] + self.events["StatusSuperseded"] + self.events["StatusFailed"]

    @property
    def rate_per_s(self) -> float:
        """Statuses acknowledged in a second."""
        return self.events["StatusSent"] / self.pushing_s if self.pushing_s else 0.0

    def latency_s(self, percent: int) -> float:
        """Return a percentile of the latencies, by nearest rank."""
        if not self.latencies_s:
            return 0.0
        return self.latencies_s[-(-len(self.latencies_s) * percent // 100) - 1]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "ok": not self.problems,
            "problems": self.problems,
            "seed": self.seed,
            "devices": self.devices,
            "statuses": self.statuses,
            "sent": self.events["StatusSent"],
            "superseded": self.events["StatusSuperseded"],
            "failed": self.events["StatusFailed"],
            "retries": self.events["RetryScheduled"],
            "requests": self.requests,
            "faults": self.faults,
            **({"engine": self._engine_to_json()} if self.limits else {}),
            "elapsedS": round(self.pushing_s, 6),
            "ratePerS": round(self.rate_per_s, 1),
            "latencyS": {f"p{percent}": round(self.latency_s(percent), 6) for percent in (50, 95, 99)},
        }

    def _engine_to_json(self) -> dict[str, Any]:
        return {
            "lateWrites": self.late_writes,
            "overwritten": self.overwritten,
            "reasserted": self.events["StatusReasserted"],
            "circuitOpened": self.events["CircuitOpened"],
            "refused": self.refused,
            "accountHeld": self.events["AccountHeld"],
            "accountResumed": self.events["AccountResumed"],
            "limit": {
                "first": self.limits[0],
                "fewest": min(self.limits),
                "most": max(self.limits),
                "changes": len(self.limits) - 1,
            },
        }

    def lines(self) -> list[str]:
        """Return the report as lines for people."""
        count = self.events
        p50, p95, p99 = (f"{self.latency_s(percent) * 1000:,.1f} ms" for percent in (50, 95, 99))
        faults = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.faults.items()))
        rows = [
            ("devices", f"{self.devices:,}, registered and signed for at {self.url}"),
            (
                "statuses",
                f"{self.statuses:,} given, {count['StatusSent']:,} sent, {count['StatusFailed']:,} failed",
            ),
            ("coalesced", f"{count['StatusSuperseded']:,} replaced by a newer one before they were sent"),
            ("rate", f"{self.rate_per_s:,.0f} statuses/s over {self.pushing_s:.2f} s"),
            ("latency", f"p50 {p50}, p95 {p95}, p99 {p99}, from acceptance to acknowledgement"),
            ("faults", faults or "none"),
            ("retries", f"{count['RetryScheduled']:,} of {counted(self.requests, 'request')}"),
            *(self._engine_rows() if self.limits else ()),
        ]
        verdict = (
            "Something is wrong:"
            if self.problems
            else "Every device ended with its newest status; never was more than one request per device in flight."
        )
        return [*(f"{name:<10} {text}" for name, text in rows), "", verdict]

    def _engine_rows(self) -> list[tuple[str, str]]:
        first, *changed = self.limits
        changes = f"{min(self.limits):,} to {max(self.limits):,} in {counted(len(changed), 'change')}"
        reasserted = counted(self.events["StatusReasserted"], "newest status was", "newest statuses were")
        opened = counted(self.events["CircuitOpened"], "time")
        held = (
            "the account was held, its statuses waited, and it resumed with the key"
            if self.events["AccountHeld"]
            else "the account was never held"
        )
        return [
            (
                "too late",
                f"{counted(self.late_writes, 'write')}, {self.overwritten:,} of them over a newer status",
            ),
            (
                "reasserted",
                f"{reasserted} sent once more, so that no device stays wrong",
            ),
            ("limit", f"{counted(first, 'request')} in flight, then {changes}"),
            ("circuit", f"opened {opened}: open, the server counts as down and is asked once a second"),
            ("key", f"revoked for a moment: {counted(self.refused, 'request')} refused; {held}"),
        ]

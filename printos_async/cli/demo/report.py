"""Reports of ``printos demo``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import Factory, define

from printos_async.cli.terminal.output import counted, members

if TYPE_CHECKING:
    from collections.abc import Sequence


@define
class EngineReport:
    """Measures that a long-lived pusher took against faults.

    Attributes:
        late_writes: Writes that the server applied after its answer was an error or lost.
        overwritten: Of these, those that landed on a newer status.
        reasserted: Newest statuses that were sent again because an older one may have overwritten them.
        circuit_opened: How often the circuit opened.
        refused: Requests that the server refused because of the revoked key.
        account_held: How often the account was held because of that.
        account_resumed: How often it resumed.
        limits: The concurrency limit, and what it was seen to change to.
    """

    late_writes: int = 0
    overwritten: int = 0
    reasserted: int = 0
    circuit_opened: int = 0
    refused: int = 0
    account_held: int = 0
    account_resumed: int = 0
    limits: list[int] = Factory(list)

    def see_limit(self, limit: int) -> None:
        """Record the current concurrency limit."""
        if self.limits[-1:] != [limit]:
            self.limits.append(limit)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        report = members(self)
        limits = report.pop("limits")
        report["limit"] = {
            "first": limits[0],
            "fewest": min(limits),
            "most": max(limits),
            "changes": len(limits) - 1,
        }
        return report

    def rows(self) -> list[tuple[str, str]]:
        """Return the report as lines for people."""
        first, *changed = self.limits
        changes = (
            f", then {min(self.limits):,} to {max(self.limits):,} in {counted(len(changed), 'change')}"
            if changed
            else ""
        )
        times = {0: "never opened", 1: "opened once"}.get(
            self.circuit_opened, f"opened {self.circuit_opened:,} times"
        )
        held = "the account was never held"
        if self.account_held:
            held = "the account was held, its statuses waited, and it resumed with the key"
        return [
            ("too late", f"{self.late_writes:,} writes, {self.overwritten:,} of them over a newer status"),
            (
                "reasserted",
                f"{self.reasserted:,} newest statuses were sent once more, so that no device stays wrong",
            ),
            ("limit", f"{first:,} requests in flight{changes}"),
            (
                "circuit",
                f"{times}: open, the server counts as down and is asked once a second",
            ),
            (
                "key",
                f"revoked for a moment: {counted(self.refused, 'request')} refused; {held}",
            ),
        ]


@define(kw_only=True)
class DemoReport:
    """The report of one demonstration.

    Attributes:
        seed: The faults' seed.
        url: Where the server was.
        devices: How many were registered.
        statuses: How many were put.
        sent: How many the server acknowledged.
        superseded: How many a newer one of their device replaced.
        failed: How many failed.
        retries: Requests that were tried again, provisioning included.
        pushing_s: Seconds that the rounds took.
        latencies_s: Of every status sent: seconds from its acceptance to its acknowledgement, sorted.
        faults: Faults that the server injected, by kind.
        problems: Violated promises; empty if there are none.
        engine: The report on the long-lived pusher, if there was one.
    """

    seed: int
    url: str = ""
    devices: int = 0
    statuses: int = 0
    sent: int = 0
    superseded: int = 0
    failed: int = 0
    retries: int = 0
    requests: int = 0
    pushing_s: float = 0.0
    latencies_s: Sequence[float] = ()
    faults: dict[str, int] = Factory(dict)
    problems: list[str] = Factory(list)
    engine: EngineReport | None = None

    @property
    def rate_per_s(self) -> float:
        """Statuses acknowledged in a second."""
        return self.sent / self.pushing_s if self.pushing_s else 0.0

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
            "sent": self.sent,
            "superseded": self.superseded,
            "failed": self.failed,
            "retries": self.retries,
            "requests": self.requests,
            "faults": self.faults,
            **({} if self.engine is None else {"engine": self.engine.to_json()}),
            "elapsedS": round(self.pushing_s, 6),
            "ratePerS": round(self.rate_per_s, 1),
            "latencyS": {f"p{percent}": round(self.latency_s(percent), 6) for percent in (50, 95, 99)},
        }

    def lines(self) -> list[str]:
        """Return the report as lines for people."""
        p50, p95, p99 = (f"{self.latency_s(percent) * 1000:,.1f} ms" for percent in (50, 95, 99))
        faults = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.faults.items()))
        rows = [
            ("devices", f"{self.devices:,}, registered and signed for at {self.url}"),
            ("statuses", f"{self.statuses:,} given, {self.sent:,} sent, {self.failed:,} failed"),
            ("coalesced", f"{self.superseded:,} replaced by a newer one before they were sent"),
            ("rate", f"{self.rate_per_s:,.0f} statuses/s over {self.pushing_s:.2f} s"),
            ("latency", f"p50 {p50}, p95 {p95}, p99 {p99}, from acceptance to acknowledgement"),
            ("faults", faults or "none"),
            ("retries", f"{self.retries:,} of {self.requests:,} requests"),
            *([] if self.engine is None else self.engine.rows()),
        ]
        verdict = (
            "Something is wrong:"
            if self.problems
            else "Every device ended with its newest status; never was more than one request per device in flight."
        )
        return [*(f"{name:<10} {text}" for name, text in rows), "", verdict]

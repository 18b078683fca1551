"""Metrics in Prometheus' format. Needs the extra ``metrics``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder

from printos_async._events import AttemptFinished, LeaseLost, RetryScheduled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from printos_async._delivery.pusher import PusherStats
    from printos_async._events import Event
    from printos_async.outbox import OutboxStats
    from printos_async.outbox.sampling import StatsSampler

    from .monitor import Heartbeat

# Those of OpenTelemetry's semantic conventions for HTTP clients, as in printos_async.otel.
_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)


class Metrics:
    """Metrics of one command, in a registry of its own; no label names a device.

    The counts of statuses are the pusher's own. Requests are counted here.
    """

    def __init__(self, heartbeat: Heartbeat) -> None:
        self.heartbeat = heartbeat
        self.outbox: StatsSampler | None = None
        self._registry = registry = CollectorRegistry(auto_describe=False)
        # They would come beside each counter and histogram, and nobody asks when those began.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        ProcessCollector(registry=registry)
        registry.register(self)
        self._durations = Histogram(
            "printos_request_duration_seconds",
            "Durations of requests to PrintOS; the code is none where no complete answer came.",
            labelnames=["operation", "code"],
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._retries = Counter("printos_request_retries", "Retries scheduled.", registry=registry)
        self._lease_losses = Counter(
            "printos_lease_losses",
            "Leases on the outbox that were not renewed in time.",
            registry=registry,
        )

    def on_event(self, event: Event) -> None:
        """Count an event; a hook of the client."""
        match event:
            case AttemptFinished():
                self._durations.labels(event.operation, event.status or "none").observe(event.latency_s)
            case RetryScheduled():
                self._retries.inc()
            case LeaseLost():
                self._lease_losses.inc()

    def render(self, accept: str) -> tuple[str, bytes]:
        """Return the content type and the text of all metrics, as the header ``Accept`` asks."""
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # a version that is none
            encode, content_type = choose_encoder("")
        return content_type, encode(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Return the metrics of what is sampled; called by the registry."""
        sample = self.heartbeat.latest
        is_ready = not sample.reasons and not self.heartbeat.stalled()
        yield _gauge("printos_ready", "1 while statuses get through, as /readyz says.", int(is_ready))
        if sample.stats is not None:
            yield from _of_pusher(sample.stats, taken_s=time.time() - sample.age_s)
        if self.outbox is not None:
            stats = self.outbox.latest
            yield _gauge("printos_outbox_up", "1 while the outbox can be read.", int(stats is not None))
            if stats is not None:
                yield from _of_outbox(stats)


def _of_pusher(stats: PusherStats, *, taken_s: float) -> Iterator[Metric]:
    yield CounterMetricFamily("printos_statuses_accepted", "Statuses accepted.", stats.accepted)
    outcomes = CounterMetricFamily("printos_statuses", "Statuses by outcome.", labels=["outcome"])
    for outcome in ("sent", "superseded", "failed"):
        outcomes.add_metric([outcome], getattr(stats, outcome))
    yield outcomes
    yield _gauge("printos_statuses_pending", "Statuses that wait or are in flight here.", stats.pending)
    yield _gauge("printos_devices_active", "Devices with something to be done here.", stats.active_devices)
    yield _gauge("printos_requests_in_flight", "Requests in flight.", stats.in_flight)
    yield _gauge("printos_concurrency_limit", "Requests allowed in flight.", stats.limit)
    yield _gauge("printos_circuit_open", "1 while PrintOS seems down.", int(stats.circuit == "open"))
    yield _gauge("printos_accounts_held", "Accounts whose credentials PrintOS refuses.", stats.held_accounts)
    if stats.since_success_s is not None:
        yield _gauge(
            "printos_last_success_timestamp_seconds",
            "When PrintOS last accepted a request, in Unix time.",
            taken_s - stats.since_success_s,
        )


def _of_outbox(stats: OutboxStats) -> Iterator[Metric]:
    yield _gauge("printos_outbox_waiting", "Devices with a status that waits in the outbox.", stats.waiting)
    yield _gauge("printos_outbox_claimed", "Of these, those that a worker has.", stats.claimed)
    yield _gauge("printos_outbox_failed", "Devices whose newest status was given up.", stats.failed)
    yield _gauge("printos_outbox_workers", "Workers whose lease runs.", stats.workers)
    yield _gauge(
        "printos_outbox_oldest_waiting_seconds",
        "Time for which the device that waits longest has waited; 0 if none waits.",
        stats.oldest_waiting_s or 0.0,
    )


def _gauge(name: str, description: str, value: float) -> Metric:
    return GaugeMetricFamily(name, description, value)

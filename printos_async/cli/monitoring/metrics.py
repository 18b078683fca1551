"""Metrics in Prometheus' format. Needs the extra ``metrics``."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
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
_BOUNDS = (*(str(float(bound)) for bound in _BUCKETS_S), "+Inf")


class Metrics:
    """Metrics of one command, in a registry of its own; no label names a device.

    The counts of statuses are the pusher's own. Requests are counted here, on the event loop, without the locks that
    each addition to a histogram of prometheus-client takes: there are thousands a second.
    """

    def __init__(self, heartbeat: Heartbeat) -> None:
        self.heartbeat = heartbeat
        self._durations: defaultdict[tuple[str, int | None], _Durations] = defaultdict(_Durations)
        self._retries = 0
        self._lease_losses = 0
        self.outbox: StatsSampler | None = None
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def on_event(self, event: Event) -> None:
        """Count an event; a hook of the client."""
        kind = type(event)
        if kind is AttemptFinished:
            self._durations[event.operation, event.status].add(event.latency_s)  # type: ignore[union-attr]
        elif kind is RetryScheduled:
            self._retries += 1
        elif kind is LeaseLost:
            self._lease_losses += 1

    def render(self, accept: str) -> tuple[str, bytes]:
        """Return the content type and the text of all metrics, as the header ``Accept`` asks."""
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # a version that is none
            encode, content_type = choose_encoder("")
        return content_type, encode(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Return the metrics; called by the registry."""
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
        durations = HistogramMetricFamily(
            "printos_request_duration_seconds",
            "Durations of requests to PrintOS; the code is none where no complete answer came.",
            labels=["operation", "code"],
        )
        # A copy: the event loop may add to it meanwhile.
        for (operation, status), one in list(self._durations.items()):
            durations.add_metric([operation, str(status or "none")], *one.read())
        yield durations
        yield CounterMetricFamily("printos_request_retries", "Retries scheduled.", self._retries)
        yield CounterMetricFamily(
            "printos_lease_losses", "Leases on the outbox that were not renewed in time.", self._lease_losses
        )


class _Durations:
    """A histogram that one thread adds to and any thread reads."""

    __slots__ = ("_counts", "_sum_s")

    def __init__(self) -> None:
        self._counts = [0] * len(_BOUNDS)
        self._sum_s = 0.0

    def add(self, duration_s: float) -> None:
        self._counts[bisect_left(_BUCKETS_S, duration_s)] += 1
        self._sum_s += duration_s

    def read(self) -> tuple[list[tuple[str, float]], float]:
        """Return the cumulative counts with their bounds, and the sum."""
        return list(zip(_BOUNDS, accumulate(list(self._counts)), strict=True)), self._sum_s


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

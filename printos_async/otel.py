"""Events as OpenTelemetry metrics and spans.

Needs the extra ``otel``: ``pip install 'printos-async[otel]'``. The extra brings the API only; the application
chooses the SDK and the exporters.
"""

from __future__ import annotations

import time
import weakref
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeAlias

from ._api.requests import device_path
from ._common.checks import require_number
from ._events import (
    AttemptFinished,
    CircuitChanged,
    FieldUnreadable,
    LeaseLost,
    LimitChanged,
    ReassertionFailed,
    RetryAfterCapped,
    RetryScheduled,
    StatusAccepted,
    StatusFailed,
    StatusReasserted,
    StatusSent,
    StatusSuperseded,
    StatusWithdrawn,
)
from ._transport import Origin
from .outbox.sampling import StatsSampler

try:
    from opentelemetry.metrics import Observation, get_meter
    from opentelemetry.trace import NoOpTracer, SpanKind, Status, StatusCode, get_tracer
except ModuleNotFoundError as failure:
    if (failure.name or "").partition(".")[0] != "opentelemetry":
        raise
    message = "printos_async.otel needs its extra: pip install 'printos-async[otel]'"
    raise ModuleNotFoundError(message, name=failure.name) from failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider
    from opentelemetry.trace import TracerProvider

    from ._delivery.pusher import PusherStats, StatusPusher
    from ._events import Endpoint, Event
    from .outbox import OutboxAdministration, OutboxStats

__all__ = ["OpenTelemetryHook"]

_Attributes: TypeAlias = "dict[str, str | int]"

_NAME = "printos_async"
_SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
# Source: OpenTelemetry semantic conventions, http.client.request.duration.
_REQUEST_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
# A status may wait for an outage to end.
_DELIVERY_BUCKETS_S = (*_REQUEST_BUCKETS_S, 30, 60, 120, 300, 600, 1800, 3600)


class OpenTelemetryHook:
    """Turns the events of any number of clients into metrics and spans: ``PrintOSClient(..., hooks=[hook])``.

    Names and attributes of requests follow the semantic conventions for HTTP clients; all others begin with
    ``printos.``. A device's identifier is an attribute of spans only, because in a metric every device would become a
    time series. Headers, bodies and error texts are not recorded.

    Make one hook for each meter provider. The span of an attempt is created when the attempt has ended, with the
    attempt's start and end, and is a child of the span that is current then.

    Args:
        meter_provider: Provider of the metrics; by default the global one.
        tracer_provider: Provider of the spans; by default the global one. ``NoOpTracerProvider()`` turns spans off.

    Source: OpenTelemetry semantic conventions 1.44, HTTP.
    """

    def __init__(
        self, *, meter_provider: MeterProvider | None = None, tracer_provider: TracerProvider | None = None
    ) -> None:
        package_version = version("printos-async")
        self._tracer = get_tracer(_NAME, package_version, tracer_provider, _SCHEMA_URL)
        self._tracing = not isinstance(self._tracer, NoOpTracer)
        meter = get_meter(_NAME, package_version, meter_provider, _SCHEMA_URL)
        gauge, histogram, counter = meter.create_gauge, meter.create_histogram, partial(_Counter, meter)
        self._request_duration = histogram(
            "http.client.request.duration",
            "s",
            "Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=_REQUEST_BUCKETS_S,
        )
        self._delivery_duration = histogram(
            "printos.status.delivery.duration",
            "s",
            "Time from a status's acceptance to the server's acknowledgement.",
            explicit_bucket_boundaries_advisory=_DELIVERY_BUCKETS_S,
        )
        self._sent = counter("printos.status.sent", "{status}", "Statuses acknowledged, or unchanged.")
        self._failed = counter("printos.status.failed", "{status}", "Statuses given up.")
        self._counters: dict[type[Event], _Counter] = {
            StatusAccepted: counter("printos.status.accepted", "{status}", "Statuses accepted."),
            StatusSuperseded: counter(
                "printos.status.superseded", "{status}", "Statuses replaced by newer ones."
            ),
            StatusWithdrawn: counter("printos.status.withdrawn", "{status}", "Statuses without an outcome."),
            StatusReasserted: counter("printos.status.reasserted", "{status}", "Statuses sent once more."),
            ReassertionFailed: counter(
                "printos.status.reassertion_failures",
                "{status}",
                "Statuses that could not be sent once more.",
            ),
            LeaseLost: counter(
                "printos.outbox.lease_losses", "{lease}", "Leases on an outbox that were lost."
            ),
        }
        self._retries = counter("printos.request.retries", "{retry}", "Retries scheduled.")
        self._limit = gauge("printos.concurrency.limit", "{request}", "Requests allowed in flight.")
        self._limit_changes = counter("printos.concurrency.changes", "{change}", "Changes of the limit.")
        self._circuit_open = gauge("printos.circuit.open", "1", "1 while the circuit is open, 0 otherwise.")
        self._circuit_changes = counter("printos.circuit.changes", "{change}", "Changes of the circuit.")
        self._capped_pauses = counter(
            "printos.host.capped_pauses", "{pause}", "Pauses asked for that are longer than they are held."
        )
        self._unreadable = counter("printos.field.unreadable", "{field}", "Fields of answers left unset.")
        self._pushers: tuple[weakref.ref[StatusPusher], ...] = ()
        for name, unit, description, field in (
            ("printos.status.pending", "{status}", "Statuses waiting or in flight.", "pending"),
            ("printos.device.active", "{device}", "Devices with something to be done.", "active_devices"),
            ("printos.request.in_flight", "{request}", "Requests in flight.", "in_flight"),
        ):
            observe = partial(_observe, self._pusher_stats, sum, field)
            meter.create_observable_up_down_counter(name, [observe], unit, description)
        self._outboxes: tuple[StatsSampler, ...] = ()
        for name, unit, description, combine, field in (
            ("printos.outbox.waiting", "{device}", "Devices with a status that waits.", sum, "waiting"),
            ("printos.outbox.failed", "{device}", "Devices whose newest status was given up.", sum, "failed"),
            ("printos.outbox.oldest_waiting", "s", "The longest wait of a device.", max, "oldest_waiting_s"),
        ):
            # Gauges and no counters: every process that watches an outbox reports all of it.
            observe = partial(_observe, self._outbox_stats, combine, field)
            meter.create_observable_gauge(name, [observe], unit, description)
        self._ends: dict[tuple[Endpoint, int | None, str | None], _Attributes] = {}

    def observe(self, pusher: StatusPusher) -> None:
        """Add a pusher to the metrics of pending, active and in flight. The hook has only a weak reference to it."""
        # A new tuple each time: the thread that collects may be going through the old one.
        self._pushers = (*(ref for ref in self._pushers if ref() is not None), weakref.ref(pusher))
        stats = pusher.stats()
        self._limit.set(stats.limit)
        self._circuit_open.set(int(stats.circuit == "open"))

    async def watch_outbox(self, outbox: OutboxAdministration, *, every_s: float = 15.0) -> None:
        """Report an outbox in the gauges of waiting, failed and oldest waiting, until cancelled. Run it as a task.

        The outbox is read every ``every_s`` seconds, or less often if counting takes long. The gauges have the values
        that were read last. While the outbox cannot be read, or is not open, they have no value.

        Args:
            outbox: The outbox of a pusher or a spooler, which opens and closes it.
            every_s: Seconds between two reads.

        Raises:
            ConfigurationError: ``every_s`` is out of range.
        """
        require_number("every_s", every_s, 0.001)
        sampler = StatsSampler(outbox, every_s=every_s)
        self._outboxes = (*self._outboxes, sampler)
        try:
            await sampler.run()
        finally:
            self._outboxes = tuple(other for other in self._outboxes if other is not sampler)

    def __call__(self, event: Event, /) -> None:
        """Record one event."""
        if (counter := self._counters.get(type(event))) is not None:
            counter.add()
            return
        match event:
            case AttemptFinished():
                self._attempt_finished(event)
            case StatusSent():
                self._status_sent(event)
            case StatusFailed(cause=cause):
                self._failed.add(("error.type", cause))
            case RetryScheduled(operation=operation, cause=cause):
                self._retries.add(("printos.operation", operation), ("error.type", cause))
            case LimitChanged(new=limit, reason=reason):
                self._limit.set(limit)
                self._limit_changes.add(("printos.reason", reason))
            case CircuitChanged(circuit=circuit, host=host):
                self._circuit_open.set(int(circuit == "open"))
                self._circuit_changes.add(("printos.circuit", circuit), ("server.address", host))
            case RetryAfterCapped(host=host):
                self._capped_pauses.add(("server.address", host))
            case FieldUnreadable(operation=operation, field=field):
                self._unreadable.add(("printos.operation", operation), ("printos.field", field))

    def _status_sent(self, event: StatusSent) -> None:
        self._sent.add(("printos.unchanged", not event.attempts))
        if event.attempts:
            self._delivery_duration.record(event.latency_s)

    def _attempt_finished(self, event: AttemptFinished) -> None:
        endpoint = event.endpoint
        if endpoint is None:
            return  # an event that was made by hand: its request has no name
        end_ns = time.time_ns()
        end = endpoint, event.status, event.error
        attributes = self._ends.get(end)
        if attributes is None:
            attributes = self._ends[end] = self._describe_end(endpoint, event)
        self._request_duration.record(event.latency_s, attributes)
        if self._tracing:
            self._make_span(endpoint, event, attributes, end_ns)

    def _make_span(
        self, endpoint: Endpoint, event: AttemptFinished, attributes: _Attributes, end_ns: int
    ) -> None:
        span_attributes = {
            **attributes,
            "url.template": endpoint.route,
            "url.full": _url(endpoint, event.device_id),
            "printos.operation": event.operation,
        }
        if event.device_id is not None:
            span_attributes["printos.device.id"] = event.device_id
        if event.attempt > 1:
            span_attributes["http.request.resend_count"] = event.attempt - 1
        span = self._tracer.start_span(
            f"{endpoint.method} {endpoint.route}",
            kind=SpanKind.CLIENT,
            attributes=span_attributes,
            start_time=end_ns - int(event.latency_s * 1e9),
        )
        if event.error is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_ns)

    def _describe_end(self, endpoint: Endpoint, event: AttemptFinished) -> _Attributes:
        attributes: _Attributes = {
            "http.request.method": endpoint.method,
            "server.address": endpoint.host,
            "server.port": endpoint.port,
        }
        if event.status is not None:
            attributes["http.response.status_code"] = event.status
        if event.error is not None:
            refused = event.status is not None and not 200 <= event.status <= 299
            attributes["error.type"] = str(event.status) if refused else event.error
        return attributes

    def _pusher_stats(self) -> list[PusherStats]:
        return [pusher.stats() for ref in self._pushers if (pusher := ref()) is not None]

    def _outbox_stats(self) -> list[OutboxStats]:
        return [stats for sampler in self._outboxes if (stats := sampler.latest) is not None]


def _observe(
    read: Callable[[], list[Any]], combine: Callable[[list[Any]], float], field: str, _: CallbackOptions
) -> list[Observation]:
    found = [getattr(stats, field) or 0 for stats in read()]
    return [Observation(combine(found))] if found else []


class _Counter:
    """Counter that the SDK reads when it collects: each addition to the SDK's own takes microseconds."""

    def __init__(self, meter: Meter, name: str, unit: str, description: str) -> None:
        self._totals: dict[tuple[tuple[str, str | bool], ...], int] = {}
        meter.create_observable_counter(name, [self._observe], unit, description)

    def add(self, *attributes: tuple[str, str | bool]) -> None:
        self._totals[attributes] = self._totals.get(attributes, 0) + 1

    def _observe(self, _: CallbackOptions) -> Iterable[Observation]:
        # A copy: the thread that collects is another one than the event loop's.
        return [Observation(total, dict(attributes)) for attributes, total in list(self._totals.items())]


def _url(endpoint: Endpoint, device_id: str | None) -> str:
    origin = Origin(endpoint.scheme, endpoint.host, endpoint.port)
    return f"{origin}{device_path(endpoint.route, device_id)}"

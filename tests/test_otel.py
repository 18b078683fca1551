from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider, SpanKind, StatusCode

from printos_async import (
    APIError,
    AttemptFinished,
    CircuitChanged,
    ConfigurationError,
    FieldUnreadable,
    HmacAuth,
    LeaseLost,
    LimitChanged,
    PrintOSClient,
    PusherClosedError,
    ReassertionFailed,
    ResponseDecodeError,
    RetryAfterCapped,
    RetryPolicy,
    StatusReasserted,
)
from printos_async._api.requests import ROUTES, Operations, make_endpoint
from printos_async._models import DeviceProvisionRequest
from printos_async._transport import Origin
from printos_async.otel import OpenTelemetryHook
from printos_async.outbox import SqlOutbox
from printos_async.sandbox import Faults

from .conftest import KEY, QUICK_RETRY, SECRET, status
from .watching import exercise_parrot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from opentelemetry.sdk.trace import ReadableSpan

    from printos_async import Event
    from printos_async.sandbox import Sandbox

SPECIFICATION = Path(__file__).parents[1] / "spec" / "hp-printos-device-api-openapi.yml"


class Telemetry:
    """A hook with an SDK that keeps everything in memory."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.exporter = InMemorySpanExporter()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.hook = OpenTelemetryHook(meter_provider=self.meters, tracer_provider=self.tracers)

    def metrics(self) -> dict[str, list[tuple[dict[str, Any], Any]]]:
        """Return every metric's points: attributes with the value, for a histogram with the count."""
        data = self.reader.get_metrics_data()
        return {
            metric.name: [
                (dict(point.attributes or {}), getattr(point, "value", getattr(point, "count", None)))
                for point in metric.data.data_points
            ]
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def everything(self) -> str:
        data = self.reader.get_metrics_data()
        return " ".join([data.to_json() if data else "", *(span.to_json() for span in self.spans())])

    def shutdown(self) -> None:
        self.meters.shutdown()
        self.tracers.shutdown()


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    running = Telemetry()
    yield running
    running.shutdown()


@pytest.fixture
async def watched(sandbox: Sandbox, telemetry: Telemetry) -> AsyncIterator[PrintOSClient]:
    auth = HmacAuth(KEY, SECRET)
    async with PrintOSClient(sandbox.url, auth=auth, retry=QUICK_RETRY, hooks=[telemetry.hook]) as running:
        yield running


# Requests


async def test_requests_are_measured_under_the_conventions_names(
    watched: PrintOSClient, sandbox: Sandbox, telemetry: Telemetry
) -> None:
    sandbox.inject("server_error", operation="updateDeviceStatus")
    sandbox.inject("reset_after", operation="listDevices")
    await watched.update_device_status("dev-1", status())
    await watched.list_devices()
    common = {"server.address": "127.0.0.1", "server.port": sandbox.port}
    put, get = common | {"http.request.method": "PUT"}, common | {"http.request.method": "GET"}
    points = telemetry.metrics()["http.client.request.duration"]
    assert points == [
        (put | {"http.response.status_code": 503, "error.type": "503"}, 1),
        (put | {"http.response.status_code": 200}, 1),
        (get | {"error.type": "TransportError"}, 1),
        (get | {"http.response.status_code": 200}, 1),
    ]


async def test_durations_are_seconds_in_the_conventions_buckets(
    watched: PrintOSClient, telemetry: Telemetry
) -> None:
    await watched.list_devices()
    data: Any = telemetry.reader.get_metrics_data()
    [scope] = data.resource_metrics[0].scope_metrics
    assert scope.scope.name == "printos_async"
    [duration] = [metric for metric in scope.metrics if metric.name == "http.client.request.duration"]
    [point] = duration.data.data_points
    assert duration.unit == "s"
    bounds = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
    assert point.explicit_bounds == bounds
    [span] = telemetry.spans()
    assert span.end_time is not None
    assert span.start_time is not None
    assert span.end_time - span.start_time == pytest.approx(point.sum * 1e9, abs=1e4)


async def test_each_attempt_is_a_span_that_says_how_it_ended(
    watched: PrintOSClient, sandbox: Sandbox, telemetry: Telemetry
) -> None:
    sandbox.add_device("Gerät 1")
    sandbox.inject("server_error")
    await watched.update_device_status("Gerät 1", status())
    first, second = telemetry.spans()
    assert {first.name, second.name} == {"PUT /devices/{deviceId}/status"}
    assert {first.kind, second.kind} == {SpanKind.CLIENT}
    assert (first.status.status_code, second.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
    common = {
        "http.request.method": "PUT",
        "server.address": "127.0.0.1",
        "server.port": sandbox.port,
        "url.full": f"{sandbox.url}/devices/Ger%C3%A4t%201/status",
        "url.template": "/devices/{deviceId}/status",
        "printos.operation": "updateDeviceStatus",
        "printos.device.id": "Gerät 1",
    }
    assert dict(first.attributes or {}) == common | {"http.response.status_code": 503, "error.type": "503"}
    assert dict(second.attributes or {}) == common | {
        "http.response.status_code": 200,
        "http.request.resend_count": 1,
    }
    assert first.end_time is not None
    assert second.start_time is not None
    assert first.end_time <= second.start_time


async def test_a_span_belongs_to_the_callers(watched: PrintOSClient, telemetry: Telemetry) -> None:
    tracer = telemetry.tracers.get_tracer("service")
    with tracer.start_as_current_span("shift report") as outer:
        await watched.list_devices()
        await watched.push_statuses({"dev-1": status()})
    requests = [span for span in telemetry.spans() if span.kind is SpanKind.CLIENT]
    assert [span.parent for span in requests] == 2 * [outer.get_span_context()]


async def test_a_pushers_requests_belong_to_who_made_it_and_not_to_who_put_first(
    watched: PrintOSClient, telemetry: Telemetry
) -> None:
    tracer = telemetry.tracers.get_tracer("service")
    with tracer.start_as_current_span("service") as outer:
        pusher = watched.status_pusher()
    for name in ("first", "second"):
        with tracer.start_as_current_span(name):
            await pusher.push("dev-1", status())
    await pusher.aclose()
    requests = [span for span in telemetry.spans() if span.kind is SpanKind.CLIENT]
    assert [span.parent for span in requests] == 2 * [outer.get_span_context()]


async def test_a_success_that_cannot_be_read_is_an_error_of_its_own(
    watched: PrintOSClient, sandbox: Sandbox, telemetry: Telemetry
) -> None:
    sandbox.set_faults(Faults(malformed_kinds=("html",)))
    sandbox.inject("malformed")
    with pytest.raises(ResponseDecodeError):
        await watched.list_devices()
    [(attributes, count)] = telemetry.metrics()["http.client.request.duration"]
    assert (attributes["http.response.status_code"], count) == (200, 1)
    assert attributes["error.type"] == "ResponseDecodeError"
    assert [span.status.status_code for span in telemetry.spans()] == [StatusCode.ERROR]


async def test_a_devices_identifier_is_in_spans_and_never_in_metrics(
    watched: PrintOSClient, sandbox: Sandbox, telemetry: Telemetry
) -> None:
    sandbox.inject("server_error", times=3)
    await watched.push_statuses({f"dev-{n}": status(n) for n in range(10)})
    async with watched.status_pusher() as pusher:
        telemetry.hook.observe(pusher)
        for n in range(50):
            await pusher.put(f"dev-{n % 10}", status(n))
        await pusher.put("dev-unknown", status())
    data: Any = telemetry.reader.get_metrics_data()
    assert "dev-" not in data.to_json()
    assert {(span.attributes or {})["printos.device.id"] for span in telemetry.spans()} >= {
        f"dev-{n}" for n in range(10)
    }
    assert {span.name for span in telemetry.spans()} == {"PUT /devices/{deviceId}/status"}


def test_the_routes_are_those_of_the_specification() -> None:
    paths = yaml.safe_load(SPECIFICATION.read_text())["paths"]
    specified = {
        operation["operationId"]: (method.upper(), path)
        for path, item in paths.items()
        for method, operation in item.items()
        if isinstance(operation, dict) and "operationId" in operation
    }
    assert {name: path for name, (_, path) in specified.items()} == ROUTES
    operations, origin = Operations("/gateway/v1"), Origin("https", "::1", 8443)
    calls = [
        operations.list_devices(),
        operations.provision_device(DeviceProvisionRequest(model="m")),
        *(operations.update_device_status(name, status()) for name in ("devices", "status", "ä", "a b%2F{}")),
    ]
    for call in calls:
        endpoint = make_endpoint(call, origin)
        method, path = specified[call.operation]
        assert (endpoint.method, endpoint.route) == (method, f"/gateway/v1{path}")
        assert (endpoint.scheme, endpoint.host, endpoint.port) == ("https", "::1", 8443)


def test_an_address_of_ipv6_stands_in_brackets_and_a_usual_port_is_left_out(telemetry: Telemetry) -> None:
    for origin in (Origin("https", "::1", 8443), Origin("https", "printos.test", 443)):
        endpoint = make_endpoint(Operations("").list_devices(), origin)
        telemetry.hook(AttemptFinished("listDevices", None, 1, 0.1, 200, "ok", None, endpoint))
    urls = [(span.attributes or {})["url.full"] for span in telemetry.spans()]
    assert urls == ["https://[::1]:8443/devices", "https://printos.test/devices"]


# Statuses


async def test_the_counters_account_for_every_status(
    watched: PrintOSClient, sandbox: Sandbox, telemetry: Telemetry
) -> None:
    await sandbox.block("dev-1")
    async with watched.status_pusher(skip_unchanged=True) as pusher:
        telemetry.hook.observe(pusher)
        await pusher.put("dev-1", status(1))
        await sandbox.wait_for(lambda: sandbox.in_flight == 1)
        await pusher.put("dev-1", status(2))
        newest = asyncio.create_task(pusher.push("dev-1", status(3)))
        assert (await pusher.push("nobody", status())).outcome == "failed"
        during = telemetry.metrics()
        assert during["printos.status.pending"] == [({}, 2)]
        assert during["printos.device.active"] == [({}, 1)]
        assert during["printos.request.in_flight"] == [({}, 1)]
        assert during["printos.concurrency.limit"] == [({}, 64)]
        assert during["printos.circuit.open"] == [({}, 0)]
        await sandbox.release("dev-1")
        await newest
        await pusher.put("dev-1", status(3))
        stats = await pusher.drain(timeout_s=10)
    assert (stats.accepted, stats.sent, stats.superseded, stats.failed) == (5, 3, 1, 1)
    after = telemetry.metrics()
    assert after["printos.status.accepted"] == [({}, 5)]
    assert after["printos.status.sent"] == [
        ({"printos.unchanged": False}, 2),
        ({"printos.unchanged": True}, 1),
    ]
    assert after["printos.status.superseded"] == [({}, 1)]
    assert after["printos.status.failed"] == [({"error.type": "NotFoundError"}, 1)]
    assert after["printos.status.delivery.duration"] == [({}, 2)]
    assert after["printos.status.pending"] == [({}, 0)]


async def test_the_counters_account_for_push_statuses_too(
    watched: PrintOSClient, sandbox: Sandbox, telemetry: Telemetry
) -> None:
    await watched.push_statuses([("dev-1", status(1)), ("dev-1", status(2)), ("nobody", status())])
    await sandbox.block()
    push = asyncio.create_task(watched.push_statuses({"dev-2": status(), "dev-3": status()}))
    await sandbox.wait_for(lambda: sandbox.in_flight == 2)
    push.cancel()
    await asyncio.gather(push, return_exceptions=True)
    metrics = telemetry.metrics()
    names = ("accepted", "sent", "superseded", "failed", "withdrawn")
    counts = {name: metrics[f"printos.status.{name}"][0][1] for name in names}
    assert counts == {"accepted": 5, "sent": 1, "superseded": 1, "failed": 1, "withdrawn": 2}


async def test_a_limit_that_moves_is_told(
    watched: PrintOSClient, sandbox: Sandbox, telemetry: Telemetry
) -> None:
    sandbox.inject("rate_limited", times=3)
    async with watched.status_pusher() as pusher:
        for n in range(10):
            await pusher.put(f"dev-{n}", status(n))
        limit = (await pusher.drain(timeout_s=10)).limit
    metrics = telemetry.metrics()
    assert metrics["printos.concurrency.limit"] == [({}, limit)]
    reasons = [attributes["printos.reason"] for attributes, _ in metrics["printos.concurrency.changes"]]
    assert "overload" in reasons


async def test_retries_and_withdrawn_statuses_are_counted(
    watched: PrintOSClient, sandbox: Sandbox, telemetry: Telemetry
) -> None:
    sandbox.inject("server_error", device_id="dev-1", times=2)
    pusher = watched.status_pusher()
    await pusher.push("dev-1", status())
    await sandbox.block()
    push = asyncio.create_task(pusher.push("dev-2", status()))
    await sandbox.wait_for(lambda: sandbox.in_flight == 1)
    await pusher.aclose()
    with pytest.raises(PusherClosedError):
        await push
    metrics = telemetry.metrics()
    assert metrics["printos.request.retries"] == [
        ({"printos.operation": "updateDeviceStatus", "error.type": "ServerError"}, 2)
    ]
    assert metrics["printos.status.withdrawn"] == [({}, 1)]


async def test_an_outage_opens_the_circuit_and_its_end_closes_it(
    sandbox: Sandbox, telemetry: Telemetry
) -> None:
    retry = RetryPolicy(max_attempts=1)
    auth = HmacAuth(KEY, SECRET)
    async with PrintOSClient(sandbox.url, auth=auth, retry=retry, hooks=[telemetry.hook]) as client:
        sandbox.inject("server_error", times=100)
        for _ in range(100):
            with pytest.raises(APIError):
                await client.list_devices()
        assert telemetry.metrics()["printos.circuit.open"] == [({}, 1)]
        await client.list_devices()
    metrics = telemetry.metrics()
    assert metrics["printos.circuit.open"] == [({}, 0)]
    assert metrics["printos.circuit.changes"] == [
        ({"printos.circuit": "open", "server.address": "127.0.0.1"}, 1),
        ({"printos.circuit": "closed", "server.address": "127.0.0.1"}, 1),
    ]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            LimitChanged(64, 57, "overload"),
            {
                "printos.concurrency.limit": [({}, 57)],
                "printos.concurrency.changes": [({"printos.reason": "overload"}, 1)],
            },
        ),
        (StatusReasserted("dev-1", 3), {"printos.status.reasserted": [({}, 1)]}),
        (
            ReassertionFailed("dev-1", 3, "NotFoundError"),
            {"printos.status.reassertion_failures": [({}, 1)]},
        ),
        (LeaseLost(3), {"printos.outbox.lease_losses": [({}, 1)]}),
        (
            CircuitChanged("open", "printos.test"),
            {
                "printos.circuit.open": [({}, 1)],
                "printos.circuit.changes": [
                    ({"printos.circuit": "open", "server.address": "printos.test"}, 1)
                ],
            },
        ),
        (
            RetryAfterCapped(86_400.0, 3_600.0, "printos.test"),
            {"printos.host.capped_pauses": [({"server.address": "printos.test"}, 1)]},
        ),
        (
            FieldUnreadable("listDevices", "dev-1", "provisionedAt", "yesterday"),
            {
                "printos.field.unreadable": [
                    ({"printos.operation": "listDevices", "printos.field": "provisionedAt"}, 1)
                ]
            },
        ),
        (AttemptFinished("listDevices", None, 1, 0.1, 200, "ok"), {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_event_is_a_metric(telemetry: Telemetry, event: Event, expected: dict[str, Any]) -> None:
    telemetry.hook(event)
    assert telemetry.metrics() == expected


async def test_an_outbox_is_shown_while_it_can_be_read(
    watched: PrintOSClient, sandbox: Sandbox, telemetry: Telemetry, tmp_path: Path
) -> None:
    outbox = SqlOutbox(f"sqlite+aiosqlite:///{tmp_path / 'spool.db'}")
    watching = asyncio.create_task(telemetry.hook.watch_outbox(outbox, every_s=0.01))
    names = ("printos.outbox.waiting", "printos.outbox.failed", "printos.outbox.oldest_waiting")

    def shown() -> list[Any]:
        metrics = telemetry.metrics()
        return [value for name in names for _, value in metrics.get(name, [])]

    await sandbox.block("dev-1")
    async with asyncio.timeout(10), watched.status_pusher(outbox=outbox) as pusher:
        await pusher.put("nobody", status())
        while shown()[:2] != [0, 1]:  # noqa: ASYNC110  # the collector is asked, nobody is told
            await asyncio.sleep(0.01)
        assert shown() == [0, 1, 0]
        await pusher.put("dev-1", status())
        await pusher.put("dev-1", status())
        while not (now := shown()) or now[2] == 0:  # noqa: ASYNC110  # the collector is asked, nobody is told
            await asyncio.sleep(0.01)
        assert now[:2] == [1, 1]
        assert 0 < now[2] < 10
        await sandbox.release("dev-1")
    async with asyncio.timeout(10):
        while shown():  # noqa: ASYNC110  # the collector is asked, nobody is told
            await asyncio.sleep(0.01)
    watching.cancel()
    await asyncio.wait({watching})


async def test_an_outbox_that_is_watched_no_more_is_shown_no_more(
    watched: PrintOSClient, telemetry: Telemetry, tmp_path: Path
) -> None:
    async with watched.status_pusher(outbox=(outbox := SqlOutbox(f"sqlite+aiosqlite:///{tmp_path}/a.db"))):
        watching = asyncio.create_task(telemetry.hook.watch_outbox(outbox))
        async with asyncio.timeout(10):
            while "printos.outbox.waiting" not in telemetry.metrics():  # noqa: ASYNC110  # the collector is asked, nobody is told
                await asyncio.sleep(0.01)
        watching.cancel()
        await asyncio.wait({watching})
        assert "printos.outbox.waiting" not in telemetry.metrics()
    with pytest.raises(ConfigurationError, match="every_s"):
        await telemetry.hook.watch_outbox(outbox, every_s=0)


async def test_a_pusher_that_is_gone_is_observed_no_more(
    watched: PrintOSClient, telemetry: Telemetry
) -> None:
    async with watched.status_pusher() as pusher, watched.status_pusher() as other:
        telemetry.hook.observe(pusher)
        telemetry.hook.observe(other)
        assert telemetry.metrics()["printos.status.pending"] == [({}, 0)]
    del pusher, other
    gc.collect()
    assert "printos.status.pending" not in telemetry.metrics()


# What it must not do


async def test_no_span_or_metric_holds_a_secret_that_the_server_repeats(telemetry: Telemetry) -> None:
    heard = await exercise_parrot([telemetry.hook])
    assert len(heard) > 5  # signatures came by as well
    names = telemetry.metrics().keys()
    assert {"printos.status.failed", "printos.request.retries", "printos.field.unreadable"} <= names
    everything = telemetry.everything()
    assert "BadRequestError" in everything
    assert [secret for secret in heard if secret in everything] == []


async def test_without_an_sdk_the_hook_does_nothing_and_spans_can_be_turned_off(
    sandbox: Sandbox, telemetry: Telemetry
) -> None:
    hooks = [
        OpenTelemetryHook(),
        OpenTelemetryHook(meter_provider=telemetry.meters, tracer_provider=NoOpTracerProvider()),
    ]
    async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), hooks=hooks) as client:
        report = await client.push_statuses({"dev-1": status()})
    assert report.sent == 1
    assert telemetry.spans() == ()
    assert "http.client.request.duration" in telemetry.metrics()


def test_without_the_extra_the_error_names_it() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import printos_async\n"
        "try: import printos_async.otel\n"
        "except ModuleNotFoundError as error: print(error)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "printos_async.otel needs its extra: pip install 'printos-async[otel]'\n"

from __future__ import annotations

import asyncio
import resource
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from printos_async import (
    ConcurrencyLimit,
    DeviceStatusUpdate,
    DeviceStatusUpdateMetrics,
    HmacAuth,
    InvalidDeviceIdError,
    InvalidStatusError,
    NotFoundError,
    PrintOSClient,
    PrintOSError,
    PushReport,
    PushResult,
    RetryPolicy,
    ServerError,
    StatusPush,
    StatusSuperseded,
    TransportError,
)
from printos_async._api.requests import Operations
from printos_async._delivery.device_state import Outcome, PendingStatus
from printos_async._delivery.results import make_result
from printos_async._models import MAX_FAILURES_KEPT
from printos_async.sandbox import Faults, Sandbox
from tests.conftest import KEY, QUICK_RETRY, SECRET, status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from printos_async import Event


def pages(sandbox: Sandbox, device_id: str) -> Any:
    applied = sandbox.devices[device_id].status
    assert applied is not None
    return applied["metrics"]["pagesTotal"]


async def updates(number: int) -> AsyncIterator[tuple[str, DeviceStatusUpdate]]:
    for index in range(number):
        yield f"dev-{index % 10}", status(index)


@pytest.mark.parametrize("form", ["mapping", "pairs", "pushes", "generator", "async iterator"])
async def test_every_form_of_statuses_arrives(client: PrintOSClient, sandbox: Sandbox, form: str) -> None:
    pairs = [(f"dev-{n}", status(n)) for n in range(10)]
    forms: dict[str, Any] = {
        "mapping": dict(pairs),
        "pairs": pairs,
        "pushes": [StatusPush(*pair) for pair in pairs],
        "generator": (pair for pair in pairs),
        "async iterator": updates(10),
    }
    report = await client.push_statuses(forms[form])
    assert (report.sent, report.superseded, report.failed, report.failures) == (10, 0, 0, [])
    assert report.elapsed_s > 0
    assert [pages(sandbox, f"dev-{n}") for n in range(10)] == list(range(10))


async def test_nothing_to_push_is_an_empty_report(client: PrintOSClient) -> None:
    report = await client.push_statuses({})
    assert (report.sent, report.superseded, report.failed) == (0, 0, 0)
    report.raise_for_failures()


async def test_one_failing_device_does_not_stop_the_others(client: PrintOSClient, sandbox: Sandbox) -> None:
    report = await client.push_statuses({"nobody": status(), **{f"dev-{n}": status(n) for n in range(10)}})
    assert (report.sent, report.failed) == (10, 1)
    [failure] = report.failures
    assert (failure.device_id, failure.outcome, failure.attempts) == ("nobody", "failed", 1)
    assert isinstance(failure.error, NotFoundError)
    assert failure.status == status()
    with pytest.raises(ExceptionGroup, match="1 of 11 statuses failed") as caught:
        report.raise_for_failures()
    assert caught.value.exceptions == (failure.error,)


async def test_bad_input_is_a_failed_result_that_names_the_field(
    client: PrintOSClient, sandbox: Sandbox
) -> None:
    nan = DeviceStatusUpdate(status="DS_ON", metrics=DeviceStatusUpdateMetrics(ink_level=float("nan")))
    wrong: Any = "many"
    nonsense: Any = None
    given = [
        ("..", status()),
        ("dev-1", nan),
        ("dev-2", DeviceStatusUpdate(status="DS_ON", metrics=DeviceStatusUpdateMetrics(pages_total=wrong))),
        ("dev-3", nonsense),
        (nonsense, status()),
        ("dev-4", status(4)),
    ]
    report = await client.push_statuses(given)
    assert (report.sent, report.failed) == (1, 5)
    assert [type(failure.error) for failure in report.failures] == [
        InvalidDeviceIdError,
        InvalidStatusError,
        InvalidStatusError,
        InvalidStatusError,
        InvalidDeviceIdError,
    ]
    assert "metrics.inkLevel must be a finite number" in str(report.failures[1].error)
    assert "metrics.pagesTotal must be a whole number, not str 'many'" in str(report.failures[2].error)
    assert sandbox.request_count == 1


@pytest.mark.parametrize("item", ["dev-1", ("dev-1",), 5, ["dev-1", None]])
async def test_an_item_of_another_shape_is_raised_after_what_came_before(
    client: PrintOSClient, sandbox: Sandbox, item: Any
) -> None:
    with pytest.raises(InvalidStatusError, match="item 1 of the statuses") as caught:
        await client.push_statuses([("dev-1", status(1)), item, ("dev-2", status(2))])
    assert caught.value.__notes__ == ["what came before was pushed: 1 sent, 0 superseded, 0 failed"]
    assert pages(sandbox, "dev-1") == 1
    assert sandbox.devices["dev-2"].status is None


async def test_an_iterable_that_raises_loses_nothing_that_it_gave(
    client: PrintOSClient, sandbox: Sandbox
) -> None:
    def broken() -> Iterator[tuple[str, DeviceStatusUpdate]]:
        yield "dev-1", status(1)
        raise LookupError("the database has gone")

    with pytest.raises(LookupError, match="database") as caught:
        await client.push_statuses(broken())
    assert "1 sent" in caught.value.__notes__[0]
    assert pages(sandbox, "dev-1") == 1


async def test_newer_status_replaces_the_waiting_one_and_order_holds(
    client: PrintOSClient, sandbox: Sandbox
) -> None:
    events: list[Event] = []
    async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), hooks=[events.append]) as watched:
        results: list[PushResult] = []
        report = await watched.push_statuses(
            ((f"dev-{n % 10}", status(n)) for n in range(1000)), on_result=results.append
        )
    assert report.sent + report.superseded == 1000
    assert report.superseded > 0
    assert Counter(result.outcome for result in results) == {
        "sent": report.sent,
        "superseded": report.superseded,
    }
    assert sum(isinstance(event, StatusSuperseded) for event in events) == report.superseded
    assert [pages(sandbox, f"dev-{n}") for n in range(10)] == list(range(990, 1000))
    by_device: dict[str, list[int]] = {}
    for applied in sandbox.applied:
        by_device.setdefault(applied.device_id, []).append(applied.status["metrics"]["pagesTotal"])
    assert all(sent == sorted(sent) for sent in by_device.values())
    assert set(sandbox.max_in_flight_by_device.values()) == {1}


async def test_statuses_that_come_while_one_is_in_flight_cost_one_more_request(
    client: PrintOSClient, sandbox: Sandbox
) -> None:
    await sandbox.block()
    queue: asyncio.Queue[int | None] = asyncio.Queue()

    async def source() -> AsyncIterator[tuple[str, DeviceStatusUpdate]]:
        while (number := await queue.get()) is not None:
            yield "dev-1", status(number)

    push = asyncio.create_task(client.push_statuses(source()))
    queue.put_nowait(0)
    await sandbox.wait_for(lambda: sandbox.in_flight == 1)
    for number in range(1, 101):
        queue.put_nowait(number)
    queue.put_nowait(None)
    while not queue.empty():  # noqa: ASYNC110  # asyncio.Queue has no event for it
        await asyncio.sleep(0)
    await sandbox.release()
    report = await push
    assert (report.sent, report.superseded) == (2, 99)
    assert pages(sandbox, "dev-1") == 100


async def test_a_retry_sends_the_newest_status_never_the_one_that_failed(sandbox: Sandbox) -> None:
    sandbox.inject("server_error", device_id="dev-1")
    bodies: list[int] = []
    retry = RetryPolicy(base_delay_s=0.01)
    async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), retry=retry) as client:

        async def source() -> AsyncIterator[tuple[str, DeviceStatusUpdate]]:
            yield "dev-1", status(1)
            await sandbox.wait_for(lambda: sandbox.request_count == 1 and sandbox.in_flight == 0)
            yield "dev-1", status(2)

        report = await client.push_statuses(source())
    bodies = [applied.status["metrics"]["pagesTotal"] for applied in sandbox.applied]
    assert bodies == [2]
    assert (report.sent, report.superseded) == (1, 1)


async def test_changing_a_status_after_it_was_read_changes_nothing(
    client: PrintOSClient, sandbox: Sandbox
) -> None:
    reused = status(0)
    assert isinstance(reused.metrics, DeviceStatusUpdateMetrics)
    metrics = reused.metrics

    def source() -> Iterator[tuple[str, DeviceStatusUpdate]]:
        for number in range(10):
            metrics.pages_total = number
            yield f"dev-{number}", reused

    await client.push_statuses(source())
    assert [pages(sandbox, f"dev-{n}") for n in range(10)] == list(range(10))


async def test_faults_are_retried_until_everything_is_delivered(sandbox: Sandbox) -> None:
    sandbox.set_faults(Faults(seed=7, server_error=0.1, reset=0.05, rate_limited=0.05, retry_after="0"))
    results: list[PushResult] = []
    retry = RetryPolicy(max_attempts=12, base_delay_s=0.001, max_delay_s=0.5)
    async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), retry=retry) as client:
        report = await client.push_statuses(updates(1000), on_result=results.append)
    assert report.failed == 0
    assert report.sent + report.superseded == 1000
    assert [pages(sandbox, f"dev-{n}") for n in range(10)] == list(range(990, 1000))
    assert set(sandbox.max_in_flight_by_device.values()) == {1}
    assert any(result.attempts > 1 for result in results)


async def test_a_status_that_cannot_be_delivered_fails_with_its_last_error(sandbox: Sandbox) -> None:
    sandbox.inject("server_error", device_id="dev-1", times=5)
    async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), retry=QUICK_RETRY) as client:
        report = await client.push_statuses({"dev-1": status(1), "dev-2": status(2)})
    [failure] = report.failures
    assert (failure.device_id, failure.attempts) == ("dev-1", 5)
    assert isinstance(failure.error, ServerError)
    assert failure.error.attempts == 5
    assert failure.status == status(1)


async def test_a_dry_budget_delays_pushed_statuses_but_loses_none(sandbox: Sandbox) -> None:
    sandbox.set_faults(Faults(seed=1, server_error=0.3))
    retry = RetryPolicy(max_attempts=20, base_delay_s=0.001, max_delay_s=0.1, budget=2)
    async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), retry=retry) as client:
        report = await client.push_statuses({f"dev-{n}": status(n) for n in range(10)})
    assert (report.sent, report.failed) == (10, 0)


async def test_an_outage_fails_the_rest_instead_of_waiting_for_tokens(unused_tcp_port: int) -> None:
    retry = RetryPolicy(base_delay_s=0.001, max_delay_s=3600.0, budget=5)
    async with PrintOSClient(f"http://127.0.0.1:{unused_tcp_port}", auth=None, retry=retry) as client:
        report = await client.push_statuses({f"dev-{n}": status(n) for n in range(100)})
    assert report.failed == 100
    assert sum(failure.attempts for failure in report.failures) <= 100 + 5
    assert all(isinstance(failure.error, TransportError) for failure in report.failures)


async def test_no_budget_at_all_means_no_retry(sandbox: Sandbox) -> None:
    sandbox.inject("server_error", device_id="dev-1")
    retry = RetryPolicy(budget=0)
    async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), retry=retry) as client:
        report = await client.push_statuses({"dev-1": status(1)})
    assert (report.failed, report.failures[0].attempts) == (1, 1)


async def test_requests_in_flight_stay_within_the_limit(sandbox: Sandbox) -> None:
    sandbox.set_faults(Faults(latency_s=0.002))
    limit = ConcurrencyLimit(maximum=5)
    async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), limit=limit) as client:
        await asyncio.gather(
            client.push_statuses({f"dev-{n}": status(n) for n in range(10)}),
            client.push_statuses({f"dev-{n}": status(n) for n in range(10)}),
            *(client.update_device_status(f"dev-{n}", status(n)) for n in range(10)),
        )
    assert sandbox.max_concurrency == 5
    assert sandbox.connections_count == 5


async def test_what_on_result_raises_ends_the_push_and_is_raised(client: PrintOSClient) -> None:
    def broken(result: PushResult) -> None:
        raise ZeroDivisionError(result.device_id)

    tasks = len(asyncio.all_tasks())
    with pytest.raises(ZeroDivisionError):
        await client.push_statuses({f"dev-{n}": status(n) for n in range(10)}, on_result=broken)
    assert len(asyncio.all_tasks()) == tasks


async def test_nothing_more_is_read_once_on_result_has_raised(client: PrintOSClient) -> None:
    results: list[PushResult] = []

    def broken(result: PushResult) -> None:
        results.append(result)
        raise ZeroDivisionError

    async def endless() -> AsyncIterator[tuple[str, DeviceStatusUpdate]]:
        for number in range(10_000):
            yield f"dev-{number % 10}", status(number)
            await asyncio.sleep(0)
        pytest.fail("all of it was read")

    with pytest.raises(ZeroDivisionError):
        await client.push_statuses(endless(), on_result=broken)
    with pytest.raises(ZeroDivisionError):
        await client.push_statuses(
            ((f"dev-{number % 10}", status(number)) for number in range(10_000)), on_result=broken
        )
    assert len(results) == 2


async def test_cancelling_withdraws_what_was_not_sent_and_leaves_no_task(sandbox: Sandbox) -> None:
    limit = ConcurrencyLimit(maximum=4)
    await sandbox.block()
    async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), limit=limit) as client:
        tasks = len(asyncio.all_tasks())
        push = asyncio.create_task(client.push_statuses({f"dev-{n}": status(n) for n in range(10)}))
        await sandbox.wait_for(lambda: sandbox.in_flight == 4)
        push.cancel()
        with pytest.raises(asyncio.CancelledError):
            await push
        await sandbox.release()
        await sandbox.wait_for(lambda: sandbox.applied_count == 4 and sandbox.in_flight == 0)
        assert sandbox.request_count == 4
        report = await client.push_statuses({f"dev-{n}": status(n) for n in range(10)})
        assert report.sent == 10
        assert len(asyncio.all_tasks()) <= tasks


async def test_failures_kept_are_bounded_and_counted_exactly() -> None:
    seen = 0

    def count(result: PushResult) -> None:
        nonlocal seen
        seen += result.outcome == "failed"

    number = MAX_FAILURES_KEPT + 5
    transport = httpx.MockTransport(lambda _: httpx.Response(200))
    async with PrintOSClient("https://p.test", auth=None, transport=transport) as client:
        report = await client.push_statuses(((".", status()) for _ in range(number)), on_result=count)
    assert report.failed == seen == number
    assert len(report.failures) == MAX_FAILURES_KEPT


async def test_other_tasks_get_their_turn_while_a_long_iterable_is_read(client: PrintOSClient) -> None:
    turns = 0

    async def watch() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    watcher = asyncio.create_task(watch())
    await client.push_statuses(("dev-1", status(n)) for n in range(20_000))
    watcher.cancel()
    assert turns > 20


@pytest.mark.skipif(sys.platform == "win32", reason="resource is for Unix")
async def test_memory_stays_bounded_for_a_long_async_iterable(sandbox: Sandbox) -> None:
    async def endless(number: int) -> AsyncIterator[tuple[str, DeviceStatusUpdate]]:
        for index in range(number):
            yield f"dev-{index}", status(index)

    transport = httpx.MockTransport(lambda _: httpx.Response(200))
    async with PrintOSClient("https://p.test", auth=None, transport=transport) as client:
        await client.push_statuses(endless(2_000))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        report = await client.push_statuses(endless(10_000))
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert report.sent == 10_000
    assert (after - before) < 8 * 1024  # kilobytes; 10,000 accepted statuses at once would take about 20,000


def test_a_report_adds_up() -> None:
    report = PushReport(sent=1, superseded=2, failed=0)
    report.raise_for_failures()
    assert report == PushReport(sent=1, superseded=2, failed=0)


@pytest.mark.parametrize(
    ("body", "properties"),
    [
        (b'{"status":"DS_ON","metrics":{"pagesTotal":1}}', {"status": "DS_ON", "metrics": {"pagesTotal": 1}}),
        (b'{"status":5}', {"status": 5}),
        (b'{"metrics":5,"new":[1]}', {"metrics": 5, "new": [1]}),
        (b'{"metrics":["a"]}', {"metrics": ["a"]}),
        (b"5", None),
        (b"{", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
    ids=["whole", "type", "number", "list", "no object", "cut off", "no text", "deep"],
)
async def test_whatever_an_outbox_held_of_a_failed_status_is_in_its_result(
    body: bytes, properties: dict[str, Any] | None
) -> None:
    call = Operations("").stored_status("dev-1", body)
    pending = PendingStatus(1, "dev-1", call, accepted_s=0.0)
    error = PrintOSError("refused")
    result = make_result(pending, Outcome("failed", error), now_s=1.0)
    assert result.error is error
    assert (None if result.status is None else result.status.to_dict()) == properties


async def test_status_whose_additional_property_shadows_a_declared_one_is_a_failed_result(
    client: PrintOSClient, sandbox: Sandbox
) -> None:
    wrong = DeviceStatusUpdate(status="DS_ON")
    wrong["metrics"] = 5
    report = await client.push_statuses({"dev-1": wrong, "dev-2": status(2)})
    [failure] = report.failures
    assert (report.sent, failure.device_id, failure.status) == (1, "dev-1", wrong)
    assert isinstance(failure.error, InvalidStatusError)
    assert sandbox.request_count == 1

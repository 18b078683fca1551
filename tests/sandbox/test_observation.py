"""What a test can see and hold."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from printos_async.sandbox import Sandbox

from .conftest import connected

if TYPE_CHECKING:
    from printos_async.sandbox import RecordedRequest

STATUS_PATH = "/devices/dev-1/status"
ON = {"status": "DS_ON"}


async def test_blocked_updates_are_neither_applied_nor_answered_until_released(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    await sandbox.block()
    held = [asyncio.create_task(client.put(f"/devices/dev-{n}/status", json=ON)) for n in (1, 2)]
    await sandbox.wait_for(lambda: sandbox.in_flight == 2)

    assert (await client.get("/devices")).status_code == 200
    assert sandbox.applied_count == 0
    assert not any(task.done() for task in held)
    await sandbox.release()
    assert [response.status_code for response in await asyncio.gather(*held)] == [200, 200]
    assert (await client.put(STATUS_PATH, json=ON)).status_code == 200


async def test_one_device_can_be_blocked_alone(sandbox: Sandbox, client: httpx.AsyncClient) -> None:
    await sandbox.block("dev-1")
    held = asyncio.create_task(client.put(STATUS_PATH, json=ON))
    await sandbox.wait_for(lambda: sandbox.in_flight_by_device == {"dev-1": 1})

    assert (await client.put("/devices/dev-2/status", json=ON)).status_code == 200
    assert not held.done()
    await sandbox.release("dev-1")
    assert (await held).status_code == 200


async def test_most_requests_in_flight_are_seen_per_device_and_in_all(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    await sandbox.block()
    held = [
        asyncio.create_task(client.put(f"/devices/{device_id}/status", json=ON))
        for device_id in ("dev-1", "dev-1", "dev-2")
    ]
    await sandbox.wait_for(lambda: sandbox.in_flight == 3)
    await sandbox.release()
    await asyncio.gather(*held)
    await client.put(STATUS_PATH, json=ON)

    assert dict(sandbox.max_in_flight_by_device) == {"dev-1": 2, "dev-2": 1}
    assert sandbox.max_concurrency == 3
    assert (sandbox.in_flight, sandbox.in_flight_by_device) == (0, {})


async def test_request_that_its_client_gave_up_is_no_longer_in_flight(sandbox: Sandbox) -> None:
    await sandbox.block()
    held: list[asyncio.Task[httpx.Response]] = []
    async with connected(sandbox) as client:
        while len(held) < 5:
            held.append(asyncio.create_task(client.put(STATUS_PATH, json=ON)))
            await sandbox.wait_for(lambda: sandbox.request_count == len(held))
            held[-1].cancel()
            await asyncio.wait([held[-1]])

    await sandbox.wait_for(lambda: sandbox.in_flight == 0)
    assert dict(sandbox.max_in_flight_by_device) == {"dev-1": 1}
    await sandbox.release()
    await sandbox.wait_for(lambda: sandbox.applied_count == 5)
    assert all(applied.late for applied in sandbox.applied)


async def test_requests_are_recorded_with_what_became_of_them(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    await client.put(STATUS_PATH, json=ON)
    await client.put("/devices/nobody/status", json=ON)
    sandbox.inject("server_error")
    await client.get("/devices?page=1")
    await client.get("/elsewhere")

    def essence(request: RecordedRequest) -> tuple[object, ...]:
        return request.sequence, request.operation, request.device_id, request.status, request.fault

    assert [essence(request) for request in sandbox.requests] == [
        (1, "updateDeviceStatus", "dev-1", 200, None),
        (2, "updateDeviceStatus", "nobody", 404, None),
        (3, "listDevices", None, 503, "server_error"),
        (4, None, None, 404, None),
    ]
    assert [request.path for request in sandbox.requests[2:]] == ["/devices", "/elsewhere"]
    assert sandbox.request_counts == {
        ("PUT", "/devices/{deviceId}/status", 200): 1,
        ("PUT", "/devices/{deviceId}/status", 404): 1,
        ("GET", "/devices", 503): 1,
        ("GET", "(unknown)", 404): 1,
    }


async def test_unanswered_requests_are_counted_under_0(sandbox: Sandbox, client: httpx.AsyncClient) -> None:
    sandbox.inject("reset_before")
    with pytest.raises(httpx.ReadError):
        await client.get("/devices")

    await sandbox.wait_for(lambda: sandbox.in_flight == 0)
    assert sandbox.request_counts == {("GET", "/devices", 0): 1}


@pytest.mark.parametrize("kept", [True, False])
async def test_headers_are_kept_only_where_asked_for(kept: bool) -> None:  # noqa: FBT001
    async with Sandbox(record_headers=kept) as sandbox, connected(sandbox) as client:
        await client.get("/devices", headers={"X-Mark": "1"})
        await sandbox.wait_for(lambda: sandbox.in_flight == 0)

    assert ((b"x-mark", b"1") in sandbox.requests[0].headers) is kept


async def test_record_keeps_the_newest_entries_within_bounds() -> None:
    async with Sandbox(record_limit=5) as sandbox, connected(sandbox) as client:
        sandbox.add_device("dev-1")
        for number in range(33):
            await client.put(STATUS_PATH, json={"status": "DS_ON", "metrics": {"pagesTotal": number}})
            assert min(number + 1, 5) <= len(sandbox.applied) <= 10

    newest = [applied.status["metrics"]["pagesTotal"] for applied in sandbox.applied[-5:]]
    assert newest == [28, 29, 30, 31, 32]
    assert [request.sequence for request in sandbox.requests[-2:]] == [32, 33]
    assert (sandbox.applied_count, sandbox.request_count) == (33, 33)


async def test_nothing_is_recorded_without_record_and_everything_counted() -> None:
    async with Sandbox(record=False) as sandbox, connected(sandbox) as client:
        sandbox.add_device("dev-1")
        for _ in range(3):
            await client.put(STATUS_PATH, json=ON)

    assert (len(sandbox.applied), len(sandbox.requests)) == (0, 0)
    assert (sandbox.applied_count, sandbox.request_count) == (3, 3)
    assert sandbox.devices["dev-1"].status == ON


async def test_waiting_for_what_does_not_come_ends_in_a_timeout(sandbox: Sandbox) -> None:
    with pytest.raises(TimeoutError):
        await sandbox.wait_for(lambda: False, timeout_s=0.01)


async def test_error_of_a_predicate_is_its_waiters_and_not_the_requests(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    def predicate() -> bool:
        if sandbox.request_count:
            raise ZeroDivisionError
        return False

    waiting = asyncio.create_task(sandbox.wait_for(predicate))
    # Two turns of the loop: one starts the task, after which it waits.
    await asyncio.sleep(0)
    assert (await client.get("/devices")).status_code == 200

    with pytest.raises(ZeroDivisionError):
        await waiting

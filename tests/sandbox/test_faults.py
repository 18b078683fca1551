"""Every fault, as the client of a real socket meets it."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, get_args

import httpx
import pytest

from printos_async.sandbox import Faults, MalformedKind, Sandbox

if TYPE_CHECKING:
    from printos_async.sandbox import FaultKind

STATUS_PATH = "/devices/dev-1/status"
ON = {"status": "DS_ON"}
OFF = {"status": "DS_OFF"}


async def raw_put(sandbox: Sandbox, status: dict[str, str]) -> bytes:
    """Return all bytes that come back for a PUT, or raise what the socket raises."""
    body = json.dumps(status).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
    head = b"PUT /devices/dev-1/status HTTP/1.1\r\nhost: sandbox\r\ncontent-type: application/json\r\n"
    writer.write(head + b"content-length: %d\r\n\r\n%b" % (len(body), body))
    try:
        return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("retry_after", ["7", "Wed, 21 Oct 2015 07:28:00 GMT", "soon"])
async def test_rate_limited_request_is_answered_429_with_the_literal_retry_after(
    sandbox: Sandbox, client: httpx.AsyncClient, retry_after: str
) -> None:
    sandbox.set_faults(Faults(rate_limited=1, retry_after=retry_after))

    response = await client.put(STATUS_PATH, json=ON)

    assert (response.status_code, response.headers["retry-after"]) == (429, retry_after)
    assert response.json()["smsError"]["statusCode"] == 429
    assert sandbox.applied_count == 0
    assert sandbox.requests[-1].fault == "rate_limited"


async def test_empty_retry_after_leaves_the_header_out(sandbox: Sandbox, client: httpx.AsyncClient) -> None:
    sandbox.set_faults(Faults(rate_limited=1, retry_after=""))

    assert "retry-after" not in (await client.get("/devices")).headers


async def test_server_errors_are_drawn_from_the_given_statuses(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    sandbox.set_faults(Faults(server_error=1, server_error_statuses=(500, 520)))

    statuses = {(await client.put(STATUS_PATH, json=ON)).status_code for _ in range(20)}

    assert statuses == {500, 520}
    assert sandbox.applied_count == 0


@pytest.mark.parametrize(("kind", "applied"), [("reset_before", 0), ("reset_after", 1)])
async def test_reset_reaches_the_client_as_a_rst(sandbox: Sandbox, kind: FaultKind, applied: int) -> None:
    sandbox.inject(kind)

    with pytest.raises(ConnectionResetError):
        await raw_put(sandbox, ON)

    assert sandbox.applied_count == applied
    assert (sandbox.requests[0].fault, sandbox.requests[0].status) == (kind, None)


async def test_reset_of_a_connection_that_the_client_has_left_is_no_error(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    await sandbox.block()
    sandbox.inject("reset_after")
    writing = asyncio.create_task(raw_put(sandbox, ON))
    await sandbox.wait_for(lambda: sandbox.in_flight == 1)
    writing.cancel()
    await sandbox.wait_for(lambda: sandbox.open_connections == 0)

    await sandbox.release()
    await sandbox.wait_for(lambda: sandbox.applied_count == 1)

    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_share_of_resets_falls_on_both_sides_of_the_write(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    sandbox.set_faults(Faults(reset=1))

    for _ in range(40):
        with pytest.raises(httpx.ReadError):
            await client.put(STATUS_PATH, json=ON)

    kinds = [request.fault for request in sandbox.requests]
    assert set(kinds) == {"reset_before", "reset_after"}
    assert kinds.count("reset_after") == sandbox.applied_count


async def test_truncated_answer_announces_more_than_it_brings(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    sandbox.set_faults(Faults(truncated=1))

    for method, path in [("PUT", STATUS_PATH), ("GET", "/devices"), ("POST", "/devices")]:
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
            await client.request(method, path, json=ON)

    assert sandbox.applied_count == 1
    assert len(sandbox.devices) == 3


@pytest.mark.parametrize("kind", get_args(MalformedKind))
async def test_malformed_success_carries_no_device_list(
    sandbox: Sandbox, client: httpx.AsyncClient, kind: MalformedKind
) -> None:
    good = (await client.get("/devices")).json()
    sandbox.set_faults(Faults(malformed=1, malformed_kinds=(kind,)))

    response = await client.get("/devices")

    assert response.status_code == 200
    assert sandbox.requests[-1].fault == "malformed"
    try:
        # Python's reader alone takes NaN; everything else that it reads differs from the truth.
        assert response.json() != good
    except (ValueError, RecursionError):
        assert kind in {"html", "empty", "cut_json", "not_utf8", "deep"}
    else:
        assert kind in {"null", "wrong_types", "bad_date", "nan"}


async def test_malformed_answer_to_a_post_comes_after_the_device_was_made(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    sandbox.set_faults(Faults(malformed=1, malformed_kinds=("html",)))

    response = await client.post("/devices", json={"model": "M", "serialNumber": "S"})

    assert (response.status_code, response.text[:15]) == (201, "<!DOCTYPE html>")
    assert [d.serial_number for d in sandbox.devices.values()][2:] == ["S"]


async def test_put_has_no_body_to_be_malformed(sandbox: Sandbox, client: httpx.AsyncClient) -> None:
    sandbox.set_faults(Faults(malformed=1))

    response = await client.put(STATUS_PATH, json=ON)

    assert (response.status_code, response.content) == (200, b"")
    assert sandbox.requests[-1].fault is None


async def test_late_write_overwrites_a_newer_status(sandbox: Sandbox, client: httpx.AsyncClient) -> None:
    sandbox.set_faults(Faults(late_write_by_s=(60, 60), late_write_answers=("504",)))
    sandbox.inject("late_write")

    lost = await client.put(STATUS_PATH, json=OFF)
    newer = await client.put(STATUS_PATH, json=ON)

    assert (lost.status_code, newer.status_code) == (504, 200)
    assert (sandbox.devices["dev-1"].status, sandbox.pending_late_writes) == (ON, 1)
    sandbox.apply_late_writes()
    assert (sandbox.devices["dev-1"].status, sandbox.pending_late_writes) == (OFF, 0)
    assert [(a.status, a.late) for a in sandbox.applied] == [(ON, False), (OFF, True)]


async def test_late_write_is_applied_in_its_own_time(sandbox: Sandbox, client: httpx.AsyncClient) -> None:
    sandbox.set_faults(Faults(late_write=1, late_write_by_s=(0.01, 0.02), late_write_answers=("reset",)))

    with pytest.raises(httpx.ReadError):
        await client.put(STATUS_PATH, json=ON)
    await sandbox.wait_for(lambda: sandbox.applied_count == 1)

    assert sandbox.applied[0].late
    assert sandbox.pending_late_writes == 0


async def test_late_write_may_leave_its_client_without_an_answer(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    sandbox.set_faults(Faults(late_write=1, late_write_by_s=(0.01, 0.01), late_write_answers=("hang",)))
    hanging = asyncio.create_task(client.put(STATUS_PATH, json=ON))

    await sandbox.wait_for(lambda: sandbox.applied_count == 1)

    assert not hanging.done()
    hanging.cancel()
    await asyncio.wait([hanging])
    await sandbox.wait_for(lambda: sandbox.in_flight == 0)
    assert sandbox.requests[0].status is None


async def test_late_write_of_a_replaced_device_is_dropped(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    sandbox.set_faults(Faults(late_write=1, late_write_by_s=(60, 60), late_write_answers=("504",)))
    await client.put(STATUS_PATH, json=ON)

    sandbox.add_device("dev-3", serial_number="dev-1")
    sandbox.apply_late_writes()

    assert "dev-1" not in sandbox.devices
    assert sandbox.applied_count == 0


async def test_refused_write_is_not_written_late_either(sandbox: Sandbox, client: httpx.AsyncClient) -> None:
    sandbox.set_faults(Faults(late_write=1))

    response = await client.put("/devices/nobody/status", json=ON)

    assert (response.status_code, sandbox.pending_late_writes) == (404, 0)
    assert sandbox.requests[-1].fault is None


async def test_hang_lasts_until_the_client_closes(sandbox: Sandbox) -> None:
    sandbox.inject("hang_before")
    timeout = httpx.Timeout(10, read=0.05)
    async with httpx.AsyncClient(base_url=sandbox.url, timeout=timeout) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.put(STATUS_PATH, json=ON)

    await sandbox.wait_for(lambda: sandbox.in_flight == 0)
    assert (sandbox.applied_count, sandbox.requests[0].status) == (0, None)


async def test_hang_after_the_write_leaves_it_applied(sandbox: Sandbox, client: httpx.AsyncClient) -> None:
    sandbox.inject("hang_after")
    hanging = asyncio.create_task(client.put(STATUS_PATH, json=ON))

    await sandbox.wait_for(lambda: sandbox.applied_count == 1)

    assert not hanging.done()
    hanging.cancel()
    await asyncio.wait([hanging])


async def test_latency_holds_the_write_and_a_client_that_leaves_does_not_stop_it(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    sandbox.set_faults(Faults(latency_s=0.25))
    slow = asyncio.create_task(client.put(STATUS_PATH, json=ON))
    await sandbox.wait_for(lambda: sandbox.in_flight == 1)
    slow.cancel()
    await sandbox.wait_for(lambda: sandbox.in_flight == 0)
    assert sandbox.applied_count == 0

    await sandbox.wait_for(lambda: sandbox.applied_count == 1)

    assert sandbox.applied[0].late
    assert sandbox.requests[0].status is None


async def test_faults_spare_operations_that_are_not_listed(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    sandbox.set_faults(Faults(server_error=1, operations=("updateDeviceStatus",)))

    assert (await client.get("/devices")).status_code == 200
    assert (await client.put(STATUS_PATH, json=ON)).status_code == 503


async def test_injected_fault_befalls_the_matching_requests_and_no_more(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    sandbox.inject("server_error", times=2, device_id="dev-2")

    async def put(device_id: str) -> int:
        return (await client.put(f"/devices/{device_id}/status", json=ON)).status_code

    assert [await put(d) for d in ("dev-1", "dev-2", "dev-1", "dev-2", "dev-2")] == [200, 503, 200, 503, 200]


async def test_injected_fault_can_name_the_operation(sandbox: Sandbox, client: httpx.AsyncClient) -> None:
    sandbox.inject("rate_limited", operation="provisionDevice")

    assert (await client.get("/devices")).status_code == 200
    assert (await client.post("/devices", json={})).status_code == 429
    assert (await client.post("/devices", json={})).status_code == 201

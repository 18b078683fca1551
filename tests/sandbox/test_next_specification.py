"""What a next specification brings is checked, kept and made up by the sandbox, or named as not served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from printos_async._api.fields import fields_of
from printos_async._api.generated_operations import GeneratedOperation, generated_operations
from printos_async.sandbox import Sandbox, _operations, _records, _schema
from tests.api.next_models import NextDevice, NextStatus
from tests.sandbox.conftest import connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

JOBS = GeneratedOperation("listJobs", "GET", "/devices/{deviceId}/jobs")
READ = GeneratedOperation("getDeviceStatus", "GET", "/devices/{device}/status")


@pytest.fixture
async def next_sandbox(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sandbox]:
    monkeypatch.setattr(_operations, "generated_operations", lambda: (*generated_operations(), JOBS, READ))
    async with Sandbox() as sandbox:
        yield sandbox


def test_operations_are_read_from_the_generated_client_and_all_are_served() -> None:
    assert [(op.operation_id, op.method, op.route) for op in generated_operations()] == [
        ("listDevices", "GET", "/devices"),
        ("provisionDevice", "POST", "/devices"),
        ("updateDeviceStatus", "PUT", "/devices/{deviceId}/status"),
    ]
    assert _operations.unserved_operations() == []


async def test_an_operation_without_a_handler_is_answered_501_that_says_so(next_sandbox: Sandbox) -> None:
    assert _operations.unserved_operations() == [JOBS, READ]
    async with connected(next_sandbox) as client:
        jobs = await client.get("/devices/dev-1/jobs")
        read = await client.get("/devices/dev-1/status")
        other = await client.delete("/devices/dev-1/jobs")
    assert (jobs.status_code, read.status_code, other.status_code) == (501, 501, 404)
    message = "the sandbox does not serve listJobs (GET /devices/{deviceId}/jobs)"
    assert jobs.json()["smsError"]["message"] == message
    assert next_sandbox.request_counts["GET", "/devices/{deviceId}/jobs", 501] == 1


async def test_a_status_is_checked_by_the_types_of_the_model(
    monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    monkeypatch.setattr(_schema, "DeviceStatusUpdate", NextStatus)
    for refused in [{}, {"status": "DS_DANCING"}, {"status": "DS_ON", "day": "today"}]:
        assert (await client.put("/devices/dev-1/status", json=refused)).status_code == 400
    status = {"status": "DS_ON", "timestamp": "2026-11-21T12:00:00Z", "alerts": [{"code": 1}]}
    assert (await client.put("/devices/dev-1/status", json=status)).status_code == 200
    assert sandbox.devices["dev-1"].status == status


async def test_a_device_keeps_what_its_request_named_and_has_what_is_required(
    monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    further = [field for field in fields_of(NextDevice) if field.name != "id"]
    monkeypatch.setattr(_records, "_FURTHER_FIELDS", further)
    monkeypatch.setattr(_records, "PrintDevice", NextStatus)  # its status is required
    request = {"model": "m", "kind": "DS_ON", "lastSeen": "never", "extra": 1}
    device = (await client.post("/devices", json=request)).json()
    assert sandbox.devices[device["id"]].properties == request
    assert device["kind"] == "DS_ON"
    assert device["status"] == "DS_OFF"
    assert not {"lastSeen", "extra"} & device.keys()

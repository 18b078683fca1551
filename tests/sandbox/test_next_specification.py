"""What a next specification brings is checked, kept and made up by the sandbox, or named as not served."""

from __future__ import annotations

from typing import Any

import httpx
from attrs import evolve

from printos_async._api.generated_operations import GeneratedOperation, generated_operations
from printos_async.sandbox import Sandbox
from printos_async.sandbox._operations import unserved_operations
from printos_async.sandbox._schema import SCHEMA
from tests.api.next_models import NextDevice, NextStatus

JOBS = GeneratedOperation("listJobs", "GET", "/devices/{deviceId}/jobs")
READ = GeneratedOperation("getDeviceStatus", "GET", "/devices/{device}/status")


def next_service(**schema: Any) -> Sandbox:
    class NextSandbox(Sandbox):
        _schema = evolve(SCHEMA, **schema)

    return NextSandbox()


def connected(service: Sandbox) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=service.app), base_url="http://sandbox")


def test_operations_are_read_from_the_generated_client_and_all_are_served() -> None:
    assert [(op.operation_id, op.method, op.route) for op in generated_operations()] == [
        ("listDevices", "GET", "/devices"),
        ("provisionDevice", "POST", "/devices"),
        ("updateDeviceStatus", "PUT", "/devices/{deviceId}/status"),
    ]
    assert unserved_operations(generated_operations()) == []


async def test_an_operation_without_a_handler_is_answered_501_that_says_so() -> None:
    operations = (*generated_operations(), JOBS, READ)
    assert unserved_operations(operations) == [JOBS, READ]
    service = next_service(operations=operations)
    async with connected(service) as client:
        jobs = await client.get("/devices/dev-1/jobs")
        read = await client.get("/devices/dev-1/status")
        other = await client.delete("/devices/dev-1/jobs")
    assert (jobs.status_code, read.status_code, other.status_code) == (501, 501, 404)
    message = "the sandbox does not serve listJobs (GET /devices/{deviceId}/jobs)"
    assert jobs.json()["smsError"]["message"] == message
    assert service.request_counts["GET", "/devices/{deviceId}/jobs", 501] == 1


async def test_a_status_is_checked_by_the_types_of_the_model() -> None:
    service = next_service(status_update=NextStatus)
    service.add_device("dev-1")
    status = {"status": "DS_ON", "timestamp": "2026-11-21T12:00:00Z", "alerts": [{"code": 1}]}
    async with connected(service) as client:
        for refused in [{}, {"status": "DS_DANCING"}, {"status": "DS_ON", "day": "today"}]:
            assert (await client.put("/devices/dev-1/status", json=refused)).status_code == 400
        assert (await client.put("/devices/dev-1/status", json=status)).status_code == 200
    assert service.devices["dev-1"].status == status


async def test_a_device_keeps_what_its_request_named_and_has_what_is_required() -> None:
    service = next_service(device=NextDevice)
    request = {"model": "m", "kind": "DS_ON", "lastSeen": "never", "extra": 1}
    async with connected(service) as client:
        device = (await client.post("/devices", json=request)).json()
    assert service.devices[device["id"]].properties == request
    assert device["kind"] == "DS_ON"
    assert not {"lastSeen", "extra"} & device.keys()


async def test_what_is_required_and_not_known_is_made_up() -> None:
    service = next_service(device=NextStatus)  # its status is required
    service.add_device("dev-1")
    async with connected(service) as client:
        listed = (await client.get("/devices")).json()["devices"]
        device = (await client.post("/devices", json={"model": "m"})).json()
    assert [each["status"] for each in listed] == ["DS_OFF"]
    assert device["status"] == "DS_OFF"

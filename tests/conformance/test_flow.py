"""The same flow, whoever serves it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from printos_async import (
    BadRequestError,
    DeviceProvisionRequest,
    DeviceStatusUpdate,
    DeviceStatusUpdateMetrics,
    NotFoundError,
    StatusPush,
)

if TYPE_CHECKING:
    from .conftest import Server

STATUS = DeviceStatusUpdate(status="DS_ON", metrics=DeviceStatusUpdateMetrics(pages_total=12, ink_level=0.25))


async def test_a_provisioned_device_has_an_identifier_and_a_date(server: Server) -> None:
    async with server.client() as printos:
        device = await printos.provision_device(model="Indigo 12000", serial_number="SN-1", location="Hall 3")
    assert isinstance(device.id, str)
    assert isinstance(device.registered_at, datetime)
    assert device.registered_at.tzinfo is not None
    if server.sandbox is not None:
        assert server.sandbox.devices[device.id].location == "Hall 3"


async def test_the_list_shows_devices_with_every_field_read(server: Server) -> None:
    async with server.client() as printos:
        await printos.provision_device(model="Indigo 12000", serial_number="SN-1")
        [device] = await printos.list_devices()
    for value in (device.id, device.model, device.serial_number):
        assert isinstance(value, str)
        assert value
    assert isinstance(device.registered_at, datetime)
    assert device.additional_properties == {}


async def test_many_devices_are_provisioned_at_once(server: Server) -> None:
    requests = [DeviceProvisionRequest(model="Indigo 100K", serial_number=f"SN-{n}") for n in range(20)]
    async with server.client() as printos:
        results = await printos.provision_devices(requests)
    assert [(result.outcome, result.attempts) for result in results] == [("provisioned", 1)] * 20
    if server.sandbox is not None:
        assert {device.serial_number for device in server.sandbox.devices.values()} == {
            request.serial_number for request in requests
        }


async def test_a_status_is_accepted(server: Server) -> None:
    async with server.client() as printos:
        device = await printos.provision_device(model="Indigo 12000", serial_number="SN-1")
        assert isinstance(device.id, str)
        await printos.update_device_status(device.id, STATUS)
    if server.sandbox is not None:
        assert server.sandbox.devices[device.id].status == STATUS.to_dict()


async def test_an_identifier_that_needs_encoding_reaches_its_device(server: Server) -> None:
    device_id = "press 7 ä?#%41"
    if server.sandbox is not None:
        server.sandbox.add_device(device_id)
    async with server.client() as printos:
        await printos.update_device_status(device_id, STATUS)
    if server.sandbox is not None:
        assert server.sandbox.devices[device_id].status == STATUS.to_dict()


async def test_a_fleet_is_pushed_with_an_exact_account(server: Server) -> None:
    fleet = [StatusPush(f"dev-{number}", STATUS) for number in range(100)]
    if server.sandbox is not None:
        for push in fleet:
            server.sandbox.add_device(push.device_id)
    async with server.client() as printos:
        report = await printos.push_statuses(fleet)
    report.raise_for_failures()
    assert (report.sent, report.superseded, report.failed) == (100, 0, 0)
    if server.sandbox is not None:
        assert {applied.device_id for applied in server.sandbox.applied} == {push.device_id for push in fleet}


async def test_refused_content_is_a_bad_request(server: Server) -> None:
    if server.sandbox is not None:
        server.sandbox.add_device("dev-1")
    async with server.client() as printos:
        # Past the client's own check, as a body that another version left in an outbox.
        refused = printos._channel.operations.stored_status("dev-1", b'{"status":5}')
        with pytest.raises(BadRequestError) as caught:
            await printos._channel.executor.run(refused, printos._channel.answers.acknowledgement)
    assert caught.value.status == (400 if server.name == "sandbox" else 422)
    assert (caught.value.method, caught.value.path) == ("PUT", "/devices/dev-1/status")


async def test_what_is_not_there_is_not_found(server: Server) -> None:
    async with server.client(path="/no-such-api") as printos:
        with pytest.raises(NotFoundError) as caught:
            await printos.list_devices()
        assert caught.value.path == "/no-such-api/devices"
        with pytest.raises(NotFoundError):
            await printos.provision_device(model="Indigo 12000", serial_number="SN-1")
        report = await printos.push_statuses({"dev-1": STATUS})
    [failure] = report.failures
    assert isinstance(failure.error, NotFoundError)

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from printos_async import (
    AttemptFinished,
    ConcurrencyLimit,
    DeviceProvisionRequest,
    HmacAuth,
    InvalidProvisionRequestError,
    PrintOSClient,
    RetryPolicy,
    ServerError,
    TransportError,
)
from printos_async.sandbox import Faults
from tests.conftest import KEY, QUICK_RETRY, SECRET

if TYPE_CHECKING:
    from printos_async import Event
    from printos_async.sandbox import Sandbox


def request(number: int) -> DeviceProvisionRequest:
    return DeviceProvisionRequest(model="Indigo 12000", serial_number=f"SN-{number}", location="Hall 3")


def posts(sandbox: Sandbox) -> int:
    return sum(seen.method == "POST" for seen in sandbox.requests)


def lists(sandbox: Sandbox) -> int:
    return sum(seen.method == "GET" for seen in sandbox.requests)


async def test_many_devices_get_a_result_each_in_order(sandbox: Sandbox) -> None:
    limit = ConcurrencyLimit(maximum=8)
    async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), limit=limit) as client:
        results = await client.provision_devices(request(n) for n in range(100))
    assert [result.request.serial_number for result in results] == [f"SN-{n}" for n in range(100)]
    for result in results:
        assert result.outcome == "provisioned"
        assert result.device is not None
        assert isinstance(result.device.id, str)
        assert sandbox.devices[result.device.id].serial_number == result.request.serial_number
    assert sandbox.max_concurrency <= 8
    assert lists(sandbox) == 0


async def test_no_requests_give_no_results(client: PrintOSClient) -> None:
    assert await client.provision_devices([]) == []


async def test_lost_answer_is_looked_up_and_nothing_is_sent_again(
    client: PrintOSClient, sandbox: Sandbox
) -> None:
    sandbox.inject("reset_after", operation="provisionDevice")
    [result] = await client.provision_devices([request(1)])
    assert result.outcome == "found"
    assert result.device is not None
    assert result.device.id in sandbox.devices
    assert (posts(sandbox), lists(sandbox), result.attempts) == (1, 1, 1)


async def test_request_that_did_not_take_effect_is_sent_again_after_the_look(
    client: PrintOSClient, sandbox: Sandbox
) -> None:
    sandbox.inject("reset_before", operation="provisionDevice")
    [result] = await client.provision_devices([request(1)])
    assert result.outcome == "provisioned"
    assert [seen.method for seen in sandbox.requests] == ["POST", "GET", "POST"]
    assert result.attempts == 2


async def test_unreadable_success_is_looked_up(client: PrintOSClient, sandbox: Sandbox) -> None:
    sandbox.set_faults(Faults(malformed_kinds=("html",)))
    sandbox.inject("malformed", operation="provisionDevice")
    [result] = await client.provision_devices([request(1)])
    assert result.outcome == "found"
    assert posts(sandbox) == 1


async def test_faults_of_every_kind_end_with_each_device_there_once(sandbox: Sandbox) -> None:
    faults = Faults(
        seed=3,
        server_error=0.1,
        rate_limited=0.1,
        retry_after="0",
        reset=0.1,
        truncated=0.05,
        operations=("provisionDevice",),
    )
    sandbox.set_faults(faults)
    retry = RetryPolicy(max_attempts=10, base_delay_s=0.001, max_delay_s=1.0)
    async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), retry=retry) as client:
        results = await client.provision_devices(request(n) for n in range(200))
    assert {result.outcome for result in results} == {"provisioned", "found"}
    serials = [device.serial_number for device in sandbox.devices.values() if device.model == "Indigo 12000"]
    assert sorted(map(str, serials)) == sorted(f"SN-{n}" for n in range(200))
    for result in results:
        assert result.device is not None
        assert result.device.id in sandbox.devices  # not one that a second request replaced


async def test_one_look_serves_all_who_ask_while_it_waits(sandbox: Sandbox) -> None:
    sandbox.inject("reset_after", operation="provisionDevice", times=50)
    retry = RetryPolicy(base_delay_s=0.0)
    async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), retry=retry) as client:
        results = await client.provision_devices(request(n) for n in range(50))
    assert {result.outcome for result in results} == {"found"}
    assert lists(sandbox) < 25


async def test_failed_look_leaves_the_request_failed_and_says_that_nothing_is_known(sandbox: Sandbox) -> None:
    sandbox.inject("reset_after", operation="provisionDevice")
    sandbox.inject("server_error", operation="listDevices", times=5)
    async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), retry=QUICK_RETRY) as client:
        [result] = await client.provision_devices([request(1)])
    assert result.outcome == "failed"
    assert isinstance(result.error, TransportError)
    assert "not known" in result.error.__notes__[0]
    assert posts(sandbox) == 1


async def test_without_a_serial_number_nothing_can_be_looked_up_or_repeated(
    client: PrintOSClient, sandbox: Sandbox
) -> None:
    sandbox.inject("server_error", operation="provisionDevice")
    [result] = await client.provision_devices([DeviceProvisionRequest(model="Indigo 12000")])
    assert result.outcome == "failed"
    assert isinstance(result.error, ServerError)
    assert (posts(sandbox), lists(sandbox)) == (1, 0)


async def test_bad_and_repeated_requests_fail_and_the_others_go_on(
    client: PrintOSClient, sandbox: Sandbox
) -> None:
    nonsense: Any = {"model": "m"}
    wrong: Any = 5
    results = await client.provision_devices(
        [request(1), request(1), nonsense, DeviceProvisionRequest(model=wrong), request(2)]
    )
    assert [result.outcome for result in results] == [
        "provisioned",
        "failed",
        "failed",
        "failed",
        "provisioned",
    ]
    assert all(isinstance(result.error, InvalidProvisionRequestError) for result in results[1:4])
    assert "twice" in str(results[1].error)
    assert posts(sandbox) == 2


async def test_cancelling_stops_what_was_not_sent(sandbox: Sandbox) -> None:
    sandbox.set_faults(Faults(latency_s=0.05))
    limit = ConcurrencyLimit(maximum=2)
    async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), limit=limit) as client:
        task = asyncio.create_task(client.provision_devices([request(n) for n in range(50)]))
        await sandbox.wait_for(lambda: posts(sandbox) == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await sandbox.wait_for(lambda: sandbox.in_flight == 0)
        assert posts(sandbox) == 2
        assert len(await client.list_devices()) == 12


async def test_ensuring_registers_what_is_missing_and_finds_the_rest(
    client: PrintOSClient, sandbox: Sandbox
) -> None:
    first = await client.ensure_devices(request(n) for n in range(2))
    moved = DeviceProvisionRequest(model="Indigo 12000", serial_number="SN-1", location="Hall 4")
    results = await client.ensure_devices([request(2), moved, request(0)])
    assert [(result.outcome, result.attempts) for result in results] == [
        ("provisioned", 1),
        ("found", 0),
        ("found", 0),
    ]
    assert [result.device for result in results[1:]] == [first[1].device, first[0].device]
    assert results[1].request is moved
    assert (posts(sandbox), lists(sandbox)) == (3, 2)
    locations = {d.location for d in sandbox.devices.values() if d.model == "Indigo 12000"}
    assert locations == {"Hall 3"}


async def test_ensuring_a_fleet_a_second_time_sends_no_post(client: PrintOSClient, sandbox: Sandbox) -> None:
    fleet = [request(n) for n in range(500)]
    first = await client.ensure_devices(fleet)
    second = await client.ensure_devices(fleet)
    assert {result.outcome for result in second} == {"found"}
    assert [result.device and result.device.id for result in second] == [
        result.device and result.device.id for result in first
    ]
    assert (posts(sandbox), lists(sandbox)) == (500, 2)


async def test_ensuring_refuses_what_cannot_be_looked_for_and_what_is_repeated(
    client: PrintOSClient, sandbox: Sandbox
) -> None:
    await client.ensure_devices([request(1)])
    results = await client.ensure_devices(
        [DeviceProvisionRequest(model="Indigo 12000"), request(1), request(1), request(2), request(2)]
    )
    assert [result.outcome for result in results] == ["failed", "found", "failed", "provisioned", "failed"]
    assert "both needed" in str(results[0].error)
    for failed in (results[0], results[2], results[4]):
        assert isinstance(failed.error, InvalidProvisionRequestError)
        assert failed.attempts == 0
    assert posts(sandbox) == 2


async def test_ensuring_sends_nothing_if_the_list_cannot_be_read(sandbox: Sandbox) -> None:
    sandbox.inject("server_error", operation="listDevices", times=5)
    async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), retry=QUICK_RETRY) as client:
        with pytest.raises(ServerError):
            await client.ensure_devices([request(1)])
        assert await client.ensure_devices([]) == []
    assert posts(sandbox) == 0


async def test_ensuring_looks_again_after_a_lost_answer(client: PrintOSClient, sandbox: Sandbox) -> None:
    sandbox.inject("reset_after", operation="provisionDevice")
    [result] = await client.ensure_devices([request(1)])
    assert (result.outcome, result.attempts) == ("found", 1)
    assert (posts(sandbox), lists(sandbox)) == (1, 2)


async def test_ensuring_leaves_the_event_loop_to_others(sandbox: Sandbox) -> None:
    fleet = [request(n) for n in range(50)]
    listed = asyncio.Event()
    turns = 0

    def on_event(event: Event) -> None:
        if isinstance(event, AttemptFinished) and event.operation == "listDevices":
            listed.set()

    async def count_turns() -> None:
        nonlocal turns
        await listed.wait()
        while True:
            turns += 1
            await asyncio.sleep(0)

    limit = ConcurrencyLimit(maximum=2)
    async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), limit=limit) as client:
        await client.ensure_devices(fleet)
    async with PrintOSClient(
        sandbox.url, auth=HmacAuth(KEY, SECRET), limit=limit, hooks=[on_event]
    ) as client:
        counting = asyncio.create_task(count_turns())
        await client.ensure_devices(fleet)
        counting.cancel()
    assert turns > 20

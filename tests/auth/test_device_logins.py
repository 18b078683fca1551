"""Logins of devices: one for each token's life, few at a time, and none that holds up other devices."""

from __future__ import annotations

import asyncio
import os
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from printos_async import (
    APIError,
    AttemptFinished,
    AuthenticationError,
    CircuitChanged,
    DeviceCredentials,
    LimitChanged,
    PrintOSClient,
    RetryPolicy,
    SessionTokenAuth,
)
from tests.delivery.clock import run
from tests.transport.scripted import ScriptedServer

from .host import ON, Answer, CheckingHost

if TYPE_CHECKING:
    from printos_async import Event

NO_RETRY = RetryPolicy(max_attempts=1)
# PRINTOS_LONG_TESTS=1 plays the whole fleet on a socket.
DEVICES_ON_A_SOCKET = 1_000 if os.environ.get("PRINTOS_LONG_TESTS") else 60


def logins_of(devices: list[str], wrong: str = "") -> dict[str, SessionTokenAuth]:
    return {
        device: SessionTokenAuth(device, "wrong" if device == wrong else f"password-of-{device}")
        for device in devices
    }


def token_host(devices: list[str], **settings: Any) -> CheckingHost:
    return CheckingHost(passwords={device: f"password-of-{device}" for device in devices}, **settings)


def test_a_thousand_devices_log_in_once_each_and_never_use_the_token_of_another() -> None:
    async def program() -> None:
        devices = [f"dev-{n}" for n in range(1_000)]
        host = token_host(devices, latency_s=0.1)
        async with host.client(DeviceCredentials(logins_of(devices))) as client:
            for _ in range(5):
                report = await client.push_statuses(dict.fromkeys(devices, ON))
                assert report.sent == 1_000
        assert set(host.logins.values()) == {1}
        assert host.logins.total() == 1_000
        assert host.foreign == 0
        assert host.logins_at_once == 16
        assert set(host.applied.values()) == {5}

    run(program())


def test_tokens_that_die_and_a_revocation_of_all_cost_one_login_each() -> None:
    async def program() -> None:
        devices = [f"dev-{n}" for n in range(100)]
        host = token_host(devices, latency_s=0.1, uses=3)
        async with (
            host.client(DeviceCredentials(logins_of(devices))) as client,
            client.status_pusher() as pusher,
        ):
            for expected in (1, 1, 1, 2, 2):
                for device in devices:
                    await pusher.put(device, ON)
                await asyncio.sleep(60.0)
                assert host.logins == dict.fromkeys(devices, expected)
            host.revoke()
            for device in devices:
                await pusher.put(device, ON)
            await asyncio.sleep(60.0)
            assert host.logins == dict.fromkeys(devices, 3)
            assert pusher.stats().failed == 0
        assert host.logins_at_once <= 16
        assert host.foreign == 0
        assert host.applied == dict.fromkeys(devices, 6)

    run(program())


@pytest.mark.parametrize("status", [429, 503])
def test_the_login_of_one_device_that_is_told_to_wait_holds_up_no_other(status: int) -> None:
    async def program() -> None:
        devices = [f"dev-{n}" for n in range(100)]
        host = token_host(devices)
        asked_s: list[float] = []
        loop = asyncio.get_running_loop()

        def on_login(login: str) -> Answer | None:
            if login != "dev-7" or loop.time() > until_s:
                return None
            asked_s.append(loop.time())
            return Answer(status, headers={"retry-after": "30"})

        until_s = loop.time() + 400.0
        host.on_login = on_login
        auth = DeviceCredentials(logins_of(devices, wrong="dev-8"))
        events: list[Event] = []
        client = host.client(auth, hooks=[events.append])
        async with client, client.status_pusher() as pusher:
            for second in range(60):
                for device in devices:
                    await pusher.put(device, ON)
                await asyncio.sleep(1.0)
                others = {device: host.applied[device] for device in devices[10:]}
                assert set(others.values()) == {second + 1}  # their usual rate
            stats = pusher.stats()
            assert (stats.circuit, stats.failed, stats.held_accounts) == ("closed", 0, 1)
            for _ in range(40):  # dev-7 waits with its last one, while others get through
                await pusher.put("dev-20", ON)
                await asyncio.sleep(10.0)
            # As often as it was told to, never given up, and sent when it may be.
            assert all(later - earlier >= 30.0 for earlier, later in pairwise(asked_s))
            assert 10 <= len(asked_s) <= 14
            assert host.applied["dev-7"] == 1
            assert pusher.stats().failed == 0
        assert [event for event in events if isinstance(event, LimitChanged)] == []

    run(program())


def test_the_login_of_all_that_is_told_to_wait_pauses_the_host() -> None:
    async def program() -> None:
        host = CheckingHost(on_login=lambda _: Answer(429, headers={"retry-after": "30"}))
        auth = SessionTokenAuth("site", "p")
        async with host.client(auth) as client, client.status_pusher() as pusher:
            for n in range(50):
                await pusher.put(f"dev-{n}", ON)
            await asyncio.sleep(25.0)
            assert host.logins.total() == 1

    run(program())


def test_one_device_whose_login_fails_does_not_open_the_circuit() -> None:
    async def program() -> None:
        devices = [f"dev-{n}" for n in range(20)]
        host = token_host(devices)
        host.on_login = lambda login: Answer(500) if login in {"dev-0", "dev-1", "dev-2"} else None
        auth = DeviceCredentials(logins_of(devices))
        async with host.client(auth) as client, client.status_pusher() as pusher:
            for _ in range(30):
                for device in devices:
                    await pusher.put(device, ON)
                await asyncio.sleep(1.0)
                assert pusher.stats().circuit == "closed"
            assert all(host.applied[device] == 30 for device in devices[3:])
            assert pusher.stats().failed == 0

    run(program())


def test_logins_that_wait_for_others_end_in_time() -> None:
    async def program() -> None:
        devices = [f"dev-{n}" for n in range(40)]
        host = token_host(devices, latency_s=1_000.0)
        client = host.client(DeviceCredentials(logins_of(devices)), retry=NO_RETRY, timeout_s=5.0)
        async with client:
            calls = [asyncio.ensure_future(client.update_device_status(device, ON)) for device in devices]
            _, waiting = await asyncio.wait(calls, timeout=5.001)
            assert len(waiting) == 16  # this host ignores the deadline
            ended = [call for call in calls if call.done()]
            assert all("logins are under way" in str(call.exception()) for call in ended)
            assert all(isinstance(call.exception(), APIError) for call in ended)
            for call in waiting:
                call.cancel()
            await asyncio.wait(waiting)

    run(program())


async def test_devices_log_in_once_for_each_token_and_revocation_on_a_socket() -> None:
    devices = [f"dev-{n}" for n in range(DEVICES_ON_A_SOCKET)]
    host = token_host(devices, latency_s=0.001, uses=3)
    async with (
        ScriptedServer(host.handle) as server,
        PrintOSClient(
            str(server.origin),
            auth=DeviceCredentials(logins_of(devices)),
            retry=RetryPolicy(base_delay_s=0.001, max_delay_s=2.0),
        ) as client,
    ):
        for expected in (1, 1, 1, 2, 2):
            report = await client.push_statuses(dict.fromkeys(devices, ON))
            assert report.sent == len(devices)
            assert host.logins == dict.fromkeys(devices, expected)
        host.revoke()
        await client.push_statuses(dict.fromkeys(devices, ON))
    assert host.logins == dict.fromkeys(devices, 3)
    assert host.applied == dict.fromkeys(devices, 6)
    assert host.foreign == 0
    assert 1 < host.logins_at_once <= 16


def test_callers_that_cancel_their_logins_say_nothing_of_the_host() -> None:
    async def program() -> None:
        host = token_host(["dev-1"], latency_s=2.0)
        events: list[Event] = []
        auth = SessionTokenAuth("dev-1", "password-of-dev-1")
        async with host.client(auth, hooks=[events.append], retry=RetryPolicy()) as client:
            calls = []
            for _ in range(5):
                calls.append(asyncio.create_task(client.update_device_status("dev-1", ON)))
                await asyncio.sleep(0.1)
            for call in calls[:2]:
                call.cancel()
                await asyncio.sleep(0.1)
            ended = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(end).__name__ for end in ended] == ["CancelledError"] * 2 + ["NoneType"] * 3
        assert not [event for event in events if isinstance(event, CircuitChanged | LimitChanged)]
        finished = [event for event in events if isinstance(event, AttemptFinished)]
        assert [event.status for event in finished] == [200, 200, 200]

    run(program())


def test_what_a_refused_login_has_kept_from_being_sent_is_no_attempt() -> None:
    async def program() -> None:
        host = token_host([])
        events: list[Event] = []
        client = host.client(SessionTokenAuth("dev-1", "wrong"), hooks=[events.append], retry=NO_RETRY)
        async with client, client.status_pusher(drain_timeout_s=0.0) as pusher:
            await pusher.put("dev-1", ON)
            await asyncio.sleep(29.0)  # with probes after 1, 3, 7 and 15 s
            with pytest.raises(AuthenticationError) as caught:
                await client.update_device_status("dev-1", ON)
            assert caught.value.attempts == 0
            assert host.logins == {"dev-1": 1}
            assert len([event for event in events if isinstance(event, AttemptFinished)]) == 1

    run(program())

"""Health of a pusher: each reason for which statuses do not get through, and its end."""

from __future__ import annotations

import asyncio

import pytest

from printos_async import DeviceCredentials, HmacAuth, MissingCredentialsError, RetryPolicy

from .clock import run
from .host import DOWN, OK, Host, Reply, Seen, client_of, client_over, status


def test_a_pusher_that_was_not_entered_has_not_started_and_one_that_was_closed_is_closed() -> None:
    async def program() -> None:
        async with client_of(Host()) as client:
            pusher = client.status_pusher()
            assert pusher.health().is_ready  # without an outbox there is nothing to start
            await pusher.aclose()
            assert list(pusher.health().reasons) == ["closed"]

    run(program())


def test_an_open_circuit_is_a_reason_until_it_is_closed() -> None:
    async def program() -> None:
        answer = DOWN
        async with client_of(Host(reply=lambda _: answer)) as client, client.status_pusher() as pusher:
            for device in range(50):
                await pusher.put(f"dev-{device}", status(1))
            await asyncio.sleep(10.0)
            assert list(pusher.health().reasons) == ["circuit_open"]
            assert pusher.stats().since_success_s is None
            answer = OK
            await asyncio.sleep(10.0)
            assert pusher.health().is_ready
            since_success_s = pusher.stats().since_success_s
            assert since_success_s is not None
            assert 0.0 < since_success_s < 10.0

    run(program())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Reply(status=503, headers=(("retry-after", "30"),), apply_after_s=None), "paused"),
        (Reply(status=401, apply_after_s=None), "account_held"),
    ],
)
def test_a_pause_and_a_held_account_are_reasons_until_they_end(answer: Reply, reason: str) -> None:
    async def program() -> None:
        now = answer

        def reply(_: Seen) -> Reply:
            return now

        async with client_of(Host(reply=reply)) as client, client.status_pusher() as pusher:
            await pusher.put("dev-1", status(1))
            await asyncio.sleep(1.5)
            assert list(pusher.health().reasons) == [reason]
            assert all(pusher.health().reasons.values())
            now = OK
            await asyncio.sleep(40.0)
            assert pusher.health().is_ready
            assert pusher.stats().sent == 1

    run(program())


def test_what_nothing_waits_for_any_more_is_no_reason() -> None:
    async def program() -> None:
        answer = Reply(status=401, apply_after_s=None)
        host = Host(reply=lambda seen: OK if seen.device_id == "good" else answer)
        auth = DeviceCredentials(lambda device_id: HmacAuth(device_id, "s"))
        client = client_over(host, auth=auth, retry=RetryPolicy(base_delay_s=0.01))
        async with client, client.status_pusher(deadline_s=5.0) as pusher:
            await pusher.put("bad", status(1))
            await asyncio.sleep(4.0)
            assert list(pusher.health().reasons) == ["account_held"]
            await asyncio.sleep(1.5)
            assert pusher.health().is_ready
            assert pusher.stats().held_accounts == 1
            client.refresh_credentials()
            assert pusher.stats().held_accounts == 0
            answer = DOWN
            for device in range(20):
                await pusher.put(f"dev-{device}", status(1))
            await asyncio.sleep(4.0)
            assert list(pusher.health().reasons) == ["circuit_open"]
            await asyncio.sleep(2.0)
            assert (pusher.stats().circuit, pusher.stats().pending) == ("open", 0)
            assert pusher.health().is_ready
            await pusher.push("good", status(1))  # the probe

    run(program())


def test_a_list_without_credentials_holds_nothing() -> None:
    async def program() -> None:
        client = client_over(Host(), auth=DeviceCredentials({"dev-1": HmacAuth("k", "s")}))
        async with client, client.status_pusher() as pusher:
            with pytest.raises(MissingCredentialsError):
                await client.list_devices()
            assert pusher.stats().held_accounts == 0
            assert pusher.health().is_ready

    run(program())

"""Refused credentials hold an account: nothing is given up, probes are few, and the newest is sent in the end."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from printos_async import (
    AccountHeld,
    AccountResumed,
    AuthenticationError,
    ConcurrencyLimit,
    DeviceCredentials,
    HmacAuth,
    SessionTokenAuth,
    StatusFailed,
)
from printos_async._transport import RawResponse

from .clock import run
from .host import OK, Host, Reply, Seen, client_of, client_over, status

if TYPE_CHECKING:
    from printos_async import Event
    from printos_async._transport import RawRequest

LONG = bool(os.environ.get("PRINTOS_LONG_TESTS"))
DEVICES = 10_000 if LONG else 300


def refused(code: int) -> Reply:
    return Reply(status=code, apply_after_s=None)


class Gate:
    """A host that refuses with a status code until it opens."""

    def __init__(self, code: int) -> None:
        self.code: int | None = code
        self.host = Host(reply=self.reply)

    def reply(self, _: Seen) -> Reply:
        return OK if self.code is None else refused(self.code)

    def open(self) -> None:
        self.code = None


@pytest.mark.parametrize("code", [401, 403, 404, 407, 302])
def test_a_refused_backlog_waits_for_the_credentials(code: int) -> None:
    async def program() -> None:
        gate = Gate(code)
        events: list[Event] = []
        async with client_of(gate.host, hooks=[events.append]) as client, client.status_pusher() as pusher:
            for device in range(DEVICES):
                await pusher.put(f"dev-{device}", status(1))
            await asyncio.sleep(10.0)
            at_once = gate.host.count
            assert at_once <= ConcurrencyLimit().initial + 5
            for device in range(DEVICES):
                await pusher.put(f"dev-{device}", status(2))
            await asyncio.sleep(50.0)
            stats = pusher.stats()
            given_up = 0 if code not in {403, 404} else 9
            assert (stats.sent, stats.failed, stats.held_accounts) == (0, given_up, 1)
            assert gate.host.count - at_once <= 4  # at 15 s, 31 s, 63 s
            gate.open()
            await asyncio.sleep(60.0)
            stats = pusher.stats()
            assert (stats.sent, stats.failed, stats.held_accounts, stats.circuit) == (
                DEVICES,
                given_up,
                0,
                "closed",
            )
            assert stats.pending == 0
        assert gate.host.newest == {f"dev-{device}": 2 for device in range(DEVICES)}
        assert max(Counter(seen.device_id for seen in gate.host.applied).values()) == 1
        held = [event for event in events if isinstance(event, AccountHeld)]
        assert [(event.account, event.status) for event in held] == [("no credentials", code)]
        assert len([event for event in events if isinstance(event, AccountResumed)]) == 1
        assert len([event for event in events if isinstance(event, StatusFailed)]) == given_up

    run(program())


def test_a_single_call_and_a_bulk_push_fail_at_once() -> None:
    async def program() -> None:
        gate = Gate(401)
        async with client_of(gate.host) as client, client.status_pusher() as pusher:
            await pusher.put("dev-1", status(1))
            await asyncio.sleep(0.5)
            assert pusher.stats().held_accounts == 1
            with pytest.raises(AuthenticationError):
                await client.update_device_status("dev-2", status(1))
            report = await client.push_statuses({f"dev-{device}": status(1) for device in range(50)})
            assert report.failed == 50
            gate.open()
            await client.update_device_status("dev-2", status(2))
            await asyncio.sleep(0.1)  # resumed by that success, without a probe
            assert pusher.stats().sent == 1

    run(program())


def test_deadlines_count_while_the_account_is_held() -> None:
    async def program() -> None:
        gate = Gate(401)
        async with client_of(gate.host) as client, client.status_pusher(deadline_s=5.0) as pusher:
            results = [asyncio.create_task(pusher.push(f"dev-{device}", status(1))) for device in range(30)]
            await asyncio.sleep(6.0)
            ended = await asyncio.gather(*results)
            assert {result.outcome for result in ended} == {"failed"}
            assert {type(result.error) for result in ended} >= {AuthenticationError}
            await pusher.put("dev-100", status(1))  # the next probe, though all devices before have ended
            gate.open()
            await asyncio.sleep(4.0)
            assert pusher.stats().sent == 1

    run(program())


def test_a_lone_refusal_beside_successes_is_given_up() -> None:
    async def program() -> None:
        def reply(seen: Seen) -> Reply:
            return refused(404) if seen.device_id.startswith("gone") else OK

        host = Host(reply=reply)
        limit = ConcurrencyLimit(initial=1, maximum=1)
        async with client_of(host, limit=limit) as client, client.status_pusher() as pusher:
            for device in range(40):
                await pusher.put(f"gone-{device}", status(1))
                await pusher.put(f"dev-{device}", status(1))
            stats = await pusher.drain(timeout_s=30.0)
            assert (stats.sent, stats.failed, stats.held_accounts) == (40, 40, 0)

    run(program())


def test_one_device_with_401_does_not_hold_up_the_others() -> None:
    async def program() -> None:
        def reply(seen: Seen) -> Reply:
            return refused(401) if seen.device_id == "odd" else OK

        host = Host(reply=reply)
        async with client_of(host) as client, client.status_pusher() as pusher:
            await pusher.put("odd", status(0))
            for second in range(60):
                for device in range(10):
                    await pusher.put(f"dev-{device}", status(second))
                await asyncio.sleep(1.0)
            seen = Counter(each.device_id for each in host.seen)
            assert seen["odd"] <= 10
            assert all(seen[f"dev-{device}"] >= 57 for device in range(10))
            assert pusher.stats().failed == 0
            await pusher.drain(timeout_s=1.0)

    run(program())


def test_probing_goes_through_the_devices() -> None:
    async def program() -> None:
        gate = Gate(401)
        limit = ConcurrencyLimit(initial=1, maximum=1)
        async with client_of(gate.host, limit=limit) as client, client.status_pusher() as pusher:
            for device in range(5):
                await pusher.put(f"dev-{device}", status(1))
            await asyncio.sleep(20.0)
            assert [seen.device_id for seen in gate.host.seen] == [
                "dev-0",
                "dev-0",
                "dev-1",
                "dev-2",
                "dev-3",
            ]
            await pusher.drain(timeout_s=0.0)

    run(program())


def test_each_device_has_a_hold_of_its_own() -> None:
    async def program() -> None:
        mended = False

        def reply(seen: Seen) -> Reply:
            return refused(401) if seen.device_id == "bad" and not mended else OK

        keys = {f"dev-{device}": HmacAuth(f"k{device}", "s") for device in range(50)} | {
            "bad": HmacAuth("b", "s")
        }
        host = Host(reply=reply)
        events: list[Event] = []
        client = client_over(host, auth=DeviceCredentials(keys), hooks=[events.append])
        async with client, client.status_pusher() as pusher:
            await pusher.put("bad", status(0))
            for second in range(20):
                for device in range(50):
                    await pusher.put(f"dev-{device}", status(second))
                await asyncio.sleep(1.0)
            assert pusher.stats().held_accounts == 1
            assert host.newest == {f"dev-{device}": 19 for device in range(50)}
            seen = Counter(each.device_id for each in host.seen)
            assert seen["bad"] == 5  # at 0, 1, 3, 7, 15 s
            assert all(seen[f"dev-{device}"] == 20 for device in range(50))
            mended = True
            await asyncio.sleep(20.0)
            assert pusher.stats().held_accounts == 0
            assert host.newest["bad"] == 0
        held = [event for event in events if isinstance(event, AccountHeld | AccountResumed)]
        assert [type(event).__name__ for event in held] == ["AccountHeld", "AccountResumed"]
        assert {event.account for event in held} == {"device bad"}

    run(program())


def test_half_a_fleet_that_is_held_leaves_the_other_half_its_rate() -> None:
    async def program() -> None:
        devices = 1_000 if LONG else 200
        keys = {f"dev-{device}": HmacAuth(f"k{device}", "s") for device in range(devices)}
        host = Host(reply=lambda seen: refused(401) if int(seen.device_id[4:]) % 2 else OK, latency_s=0.01)
        client = client_over(host, auth=DeviceCredentials(keys))
        async with client, client.status_pusher() as pusher:
            for second in range(20):
                for device_id in keys:
                    await pusher.put(device_id, status(second))
                await asyncio.sleep(1.0)
                good = {f"dev-{device}": second for device in range(0, devices, 2)}
                assert host.newest == good
            assert pusher.stats().held_accounts == devices // 2
            seen = Counter(each.device_id for each in host.seen)
            assert {seen[f"dev-{device}"] for device in range(1, devices, 2)} == {5}  # at 0, 1, 3, 7, 15 s
            assert {seen[f"dev-{device}"] for device in range(0, devices, 2)} == {20}
            await pusher.drain(timeout_s=0.0)

    run(program())


class LoginHost(Host):
    """A host with logins, which it refuses with a status code until that is None."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code: int | None = code
        self.logins = 0

    async def send(self, request: RawRequest, *, deadline: float, max_body_bytes: int) -> RawResponse:
        if not request.target.endswith("/login"):
            return await super().send(request, deadline=deadline, max_body_bytes=max_body_bytes)
        self.logins += 1
        if self.code is not None:
            return RawResponse(self.code, [], b"")
        return RawResponse(
            200, [("content-type", "application/json")], json.dumps({"authToken": "t"}).encode()
        )


@pytest.mark.parametrize("code", [401, 403, 404, 407, 302])
def test_a_refused_login_holds_the_account(code: int) -> None:
    async def program() -> None:
        host = LoginHost(code)
        client = client_over(host, auth=SessionTokenAuth("login", "password"))
        async with client, client.status_pusher() as pusher:
            for device in range(DEVICES):
                await pusher.put(f"dev-{device}", status(1))
            await asyncio.sleep(10.0)
            at_once = host.logins
            assert at_once <= ConcurrencyLimit().initial + 5
            await asyncio.sleep(50.0)
            assert host.logins - at_once <= 4
            stats = pusher.stats()
            assert (stats.sent, stats.failed, stats.held_accounts) == (0, 0, 1)
            host.code = None
            await asyncio.sleep(60.0)
            stats = pusher.stats()
            assert (stats.sent, stats.failed, stats.held_accounts) == (DEVICES, 0, 0)
            assert host.count == DEVICES

    run(program())


def test_a_device_without_credentials_waits_for_them() -> None:
    async def program() -> None:
        keys: dict[str, HmacAuth] = {}
        asked = Counter[str]()

        def lookup(device_id: str) -> HmacAuth | None:
            asked[device_id] += 1
            return keys.get(device_id)

        host = Host()
        events: list[Event] = []
        client = client_over(host, auth=DeviceCredentials(lookup), hooks=[events.append])
        async with client, client.status_pusher() as pusher:
            await pusher.put("dev-1", status(1))
            await asyncio.sleep(20.0)
            assert host.count == 0
            assert asked["dev-1"] == 5
            keys["dev-1"] = HmacAuth("k", "s")
            await asyncio.sleep(20.0)
            assert host.newest == {"dev-1": 1}
            assert asked["dev-1"] == 6
            await pusher.put("dev-1", status(2))
            await asyncio.sleep(1.0)
            assert asked["dev-1"] == 6  # kept
        held = [event for event in events if isinstance(event, AccountHeld)]
        assert [(event.account, event.cause, event.status) for event in held] == [
            ("device dev-1", "MissingCredentialsError", None)
        ]

    run(program())


def test_credentials_that_one_lookup_mends_are_asked_for_all_their_devices() -> None:
    async def program() -> None:
        site = HmacAuth("old", "s")
        is_rotated = False

        def reply(_: Seen) -> Reply:
            return OK if site.label == "key new…" else refused(401)

        host = Host(reply=reply)
        client = client_over(host, auth=DeviceCredentials(lambda _: site))
        async with client, client.status_pusher() as pusher:
            for device in range(100):
                await pusher.put(f"dev-{device}", status(1))
            await asyncio.sleep(5.0)
            assert not is_rotated
            assert pusher.stats().held_accounts == 1
            site = HmacAuth("new", "s")
            client.refresh_credentials()
            await asyncio.sleep(1.0)
            stats = pusher.stats()
            assert (stats.sent, stats.held_accounts) == (100, 0)

    run(program())


def test_devices_that_leave_a_refused_default_are_all_looked_up_again() -> None:
    async def program() -> None:
        own: dict[str, HmacAuth] = {}
        default = HmacAuth("old", "s")
        host = Host(reply=lambda seen: OK if seen.device_id in own else refused(401))
        client = client_over(host, auth=DeviceCredentials(own, default=default))
        async with client, client.status_pusher() as pusher:
            for device in range(100):
                await pusher.put(f"dev-{device}", status(1))
            await asyncio.sleep(2.5)
            assert pusher.stats().held_accounts == 1
            own.update({f"dev-{device}": HmacAuth(f"k{device}", "s") for device in range(100)})
            await asyncio.sleep(5.0)
            stats = pusher.stats()
            assert (stats.sent, stats.failed, stats.held_accounts) == (100, 0, 0)

    run(program())


@pytest.mark.parametrize("is_default", [True, False])
def test_a_held_account_that_no_device_has_any_more_is_held_no_longer(is_default: bool) -> None:  # noqa: FBT001
    async def program() -> None:
        site = HmacAuth("site", "s")
        keys = {"dev-1": HmacAuth("old", "s"), "dev-2": site}
        host = Host(reply=lambda seen: OK if keys.get(seen.device_id, site) is site else refused(401))
        events: list[Event] = []
        credentials = DeviceCredentials(keys, default=site if is_default else None)
        client = client_over(host, auth=credentials, hooks=[events.append])
        async with client, client.status_pusher() as pusher:
            await pusher.put("dev-1", status(1))
            await pusher.put("dev-2", status(1))
            await asyncio.sleep(0.5)
            assert pusher.stats().held_accounts == 1
            keys["dev-1"] = site
            if is_default:
                del keys["dev-1"]
            await asyncio.sleep(1.0)
            stats = pusher.stats()
            assert (stats.sent, stats.held_accounts) == (2, 0)
        assert [type(event) for event in events if isinstance(event, AccountHeld | AccountResumed)] == [
            AccountHeld,
            AccountResumed,
        ]

    run(program())

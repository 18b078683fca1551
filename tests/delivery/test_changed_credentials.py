"""Held accounts whose credentials change, are shared, forgotten or refreshed while their devices wait."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from printos_async import (
    AccountHeld,
    AccountResumed,
    ConcurrencyLimit,
    DeviceCredentials,
    HmacAuth,
)
from printos_async._auth import DeviceAccounts
from printos_async._transport import RawResponse

from .clock import fake_loop, run
from .host import OK, Host, Reply, Seen, client_of, client_over, status, times_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from printos_async import Event
    from printos_async._transport import RawRequest

REFUSED = Reply(status=401, apply_after_s=None)


def test_a_probe_whose_device_gets_credentials_of_its_own_does_not_end_the_probing() -> None:
    async def program() -> None:
        own: dict[str, HmacAuth] = {}
        mended = False

        def reply(seen: Seen) -> Reply:
            return OK if mended or seen.device_id in own else REFUSED

        host = Host(reply=reply)
        auth = DeviceCredentials(own.get, default=HmacAuth("d", "s"))
        client = client_over(host, auth=auth)
        async with client, client.status_pusher() as pusher:
            for device in range(20):
                await pusher.put(f"dev-{device}", status(1))
            await asyncio.sleep(0.5)
            own |= {f"dev-{device}": HmacAuth(f"k{device}", "s") for device in range(3)}
            await asyncio.sleep(100.0)
            assert pusher.stats().held_accounts == 1
            mended = True
            await asyncio.sleep(61.0)
            assert (pusher.stats().sent, pusher.stats().held_accounts) == (20, 0)

    run(program())


@pytest.mark.parametrize("then", ["default", "another's", "others"])
def test_an_account_that_is_no_longer_used_is_no_longer_held(then: str) -> None:
    async def program() -> None:
        good = HmacAuth("good", "s")
        found: HmacAuth | None = HmacAuth("bad", "s")

        def lookup(device_id: str) -> HmacAuth | None:
            return found if device_id == "dev-1" else good

        is_refused = True
        host = Host(reply=lambda _: REFUSED if is_refused else OK)
        events: list[Event] = []
        default = HmacAuth("default", "s") if then == "default" else None
        client = client_over(host, auth=DeviceCredentials(lookup, default=default), hooks=[events.append])
        async with client, client.status_pusher() as pusher:
            await pusher.put("dev-1", status(1))
            await asyncio.sleep(0.5)
            assert pusher.stats().held_accounts == 1
            is_refused = False
            await pusher.push("dev-2", status(1))
            found = {"default": None, "another's": good, "others": HmacAuth("new", "s")}[then]
            await asyncio.sleep(1.0)
            assert (pusher.stats().sent, pusher.stats().held_accounts) == (2, 0)
            assert not client._channel.executor.accounts.troubled
        kinds = Counter(type(event).__name__ for event in events)
        assert (kinds["AccountHeld"], kinds["AccountResumed"]) == (1, 1)

    run(program())


def test_an_account_that_is_held_again_is_probed_after_one_second() -> None:
    async def program() -> None:
        is_refused = True
        host = Host(reply=lambda _: REFUSED if is_refused else OK)
        async with client_of(host) as client, client.status_pusher() as pusher:
            await pusher.put("dev-1", status(1))
            await asyncio.sleep(20.0)  # the next probe comes at 31 s
            is_refused = False
            await client.update_device_status("dev-2", status(1))
            await asyncio.sleep(0.1)
            assert pusher.stats().sent == 1
            is_refused = True
            await pusher.put("dev-1", status(2))
            await asyncio.sleep(0.5)
            is_refused = False
            await asyncio.sleep(1.0)
            assert pusher.stats().sent == 2

    run(program())


def test_refreshed_credentials_are_tried_soon_although_a_probe_with_the_old_ones_is_in_flight() -> None:
    async def program() -> None:
        replies = iter([REFUSED] * 5)
        slow = Reply(status=401, after_s=5.0, apply_after_s=None)
        host = Host()
        host.reply = lambda _: next(replies, slow) if host.count <= 6 else OK
        async with client_of(host) as client, client.status_pusher() as pusher:
            await pusher.put("dev-1", status(1))
            await asyncio.sleep(32.0)  # the probe of second 31 is in flight
            assert host.count == 6
            client.refresh_credentials()
            await asyncio.sleep(5.5)
            assert pusher.stats().sent == 1

    run(program())


def test_refreshing_all_the_time_neither_spins_nor_loses_anything() -> None:
    async def program() -> None:
        is_refused = True
        host = Host(reply=lambda _: REFUSED if is_refused else OK)
        async with client_of(host) as client, client.status_pusher() as pusher:
            for device in range(20):
                await pusher.put(f"dev-{device}", status(1))
            steps = fake_loop().steps
            for _ in range(200):
                client.refresh_credentials()
                await asyncio.sleep(0.1)
            assert fake_loop().steps - steps < 20_000
            is_refused = False
            await asyncio.sleep(2.0)
            assert (pusher.stats().sent, pusher.stats().failed) == (20, 0)

    run(program())


def test_devices_that_share_credentials_are_probed_together_though_most_were_never_looked_up() -> None:
    async def program() -> None:
        site = HmacAuth("site", "s")
        is_refused = True
        host = Host(reply=lambda _: REFUSED if is_refused else OK, latency_s=0.05)
        limit = ConcurrencyLimit(initial=10, maximum=10)
        client = client_over(host, auth=DeviceCredentials(lambda _: site), limit=limit)
        async with client, client.status_pusher() as pusher:
            for device in range(500):
                await pusher.put(f"dev-{device}", status(1))
            await asyncio.sleep(60.0)
            assert host.count <= 10 + 6
            assert pusher.stats().held_accounts == 1
            is_refused = False
            await asyncio.sleep(60.0)
            assert (pusher.stats().sent, pusher.stats().failed) == (500, 0)

    run(program())


def test_a_lookup_that_hangs_ends_with_the_attempt() -> None:
    async def program() -> None:
        site, hangs, is_refused = HmacAuth("site", "s"), False, True

        async def lookup(_: str) -> HmacAuth:
            if hangs:
                await asyncio.Event().wait()
            return site

        host = Host(reply=lambda _: REFUSED if is_refused else OK)
        client = client_over(host, auth=DeviceCredentials(lookup), timeout_s=2.0)
        async with client, client.status_pusher() as pusher:
            for device in range(100):
                await pusher.put(f"dev-{device}", status(1))
            hangs = True
            await asyncio.sleep(30.0)
            assert pusher.stats().failed == 0
            hangs = is_refused = False
            await asyncio.sleep(120.0)
            assert pusher.stats().sent == 100

    run(program())


@pytest.mark.parametrize("lookup", [lambda keys, name: keys[name], lambda _, name: HmacAuth(name, "s")])
def test_accounts_that_are_forgotten_while_they_are_held_are_neither_stuck_nor_counted_for_ever(
    lookup: Callable[[dict[str, HmacAuth], str], HmacAuth],
) -> None:
    async def program() -> None:
        keys = {f"dev-{device}": HmacAuth(f"k{device}", "s") for device in range(20)}
        is_refused = True
        host = Host(reply=lambda _: REFUSED if is_refused else OK)
        events: list[Event] = []
        auth = DeviceCredentials(lambda name: lookup(keys, name))
        client = client_over(host, auth=auth, hooks=[events.append])
        accounts = client._channel.attempts.accounts
        assert isinstance(accounts, DeviceAccounts)
        accounts.max_accounts = 5
        async with client, client.status_pusher() as pusher:
            for device in range(20):
                await pusher.put(f"dev-{device}", status(1))
            steps = fake_loop().steps
            await asyncio.sleep(30.0)
            assert fake_loop().steps - steps < 50_000
            assert len(times_of(host, "dev-1")) <= 6
            is_refused = False
            await asyncio.sleep(70.0)
            stats = pusher.stats()
            assert (stats.sent, stats.failed, stats.held_accounts) == (20, 0, 0)
        kinds = Counter(type(event) for event in events)
        assert kinds[AccountHeld] == kinds[AccountResumed]

    run(program())


class KeyHost(Host):
    """A host that refuses some keys, and remembers with which each device was signed."""

    def __init__(self, *refused: str) -> None:
        super().__init__()
        self.refused = set(refused)
        self.keys: list[tuple[str, str]] = []

    async def send(self, request: RawRequest, *, deadline: float, max_body_bytes: int) -> RawResponse:
        key = dict(request.headers)["x-hp-hmac-authentication"].partition(":")[0]
        self.keys.append((request.target.split("/")[2], key))
        if key in self.refused:
            return RawResponse(401, [], b"")
        return await super().send(request, deadline=deadline, max_body_bytes=max_body_bytes)


def test_refreshing_asks_again_for_each_device_that_shares_credentials() -> None:
    async def program() -> None:
        own: dict[str, HmacAuth] = {}
        is_vault_away = False

        def lookup(device_id: str) -> HmacAuth | None:
            if is_vault_away:
                raise OSError
            return own.get(device_id)

        host = KeyHost()
        async with client_over(host, auth=DeviceCredentials(lookup, default=HmacAuth("site", "s"))) as client:

            async def signed_with() -> list[str]:
                for device in range(3):
                    await client.update_device_status(f"dev-{device}", status(1))
                return [key for _, key in host.keys[-3:]]

            assert await signed_with() == ["site", "site", "site"]
            own["dev-1"] = HmacAuth("own", "s")
            client.refresh_credentials()
            assert await signed_with() == ["site", "own", "site"]
            is_vault_away = True
            client.refresh_credentials()
            assert await signed_with() == ["site", "own", "site"]  # kept while the lookup fails

    run(program())


@pytest.mark.parametrize("is_refreshed", [True, False])
def test_a_device_behind_a_refused_default_that_gets_credentials_is_sent_soon(is_refreshed: bool) -> None:  # noqa: FBT001
    async def program() -> None:
        own: dict[str, HmacAuth] = {}
        host = KeyHost("site")
        events: list[Event] = []
        auth = DeviceCredentials(own, default=HmacAuth("site", "s"))
        client = client_over(host, auth=auth, hooks=[events.append])
        async with client, client.status_pusher(drain_timeout_s=0.0) as pusher:
            for device in range(500):
                await pusher.put(f"dev-{device}", status(1))
            await asyncio.sleep(300.0)
            refused = len(host.keys)
            own["dev-250"] = HmacAuth("own", "s")
            if is_refreshed:
                client.refresh_credentials()
            await asyncio.sleep(0.1 if is_refreshed else 60.0)
            assert host.newest == {"dev-250": 1}
            own["dev-499"] = HmacAuth("own-too", "s")
            await asyncio.sleep(60.0)
            assert host.newest == {"dev-250": 1, "dev-499": 1}
            assert len(host.keys) - refused <= 10  # probes: what others wait for stays held
            assert pusher.stats().held_accounts == 1
            host.refused.clear()
            await asyncio.sleep(60.0)
            assert len(host.newest) == 500
        kinds = [type(event) for event in events if isinstance(event, AccountHeld | AccountResumed)]
        assert kinds == [AccountHeld, AccountResumed]

    run(program())


async def test_devices_that_have_to_be_looked_up_again_are_bounded() -> None:
    default = HmacAuth("site", "s")
    accounts = DeviceAccounts(DeviceCredentials({}, default=default), max_accounts=100)
    for number in range(1_000):
        await accounts.find(f"dev-{number}")
        if number % 50 == 49:
            accounts.refresh()
            assert accounts.known(f"dev-{number}") is None
    account = await accounts.find("dev-999")
    assert len(accounts._known) + len(accounts._outdated) == account.devices <= 200


def test_a_lookup_that_hangs_is_given_up_once_while_another_account_is_held() -> None:
    async def program() -> None:
        asked = Counter[str]()

        async def lookup(device_id: str) -> HmacAuth:
            asked[device_id] += 1
            if device_id == "slow":
                await asyncio.Event().wait()
            return HmacAuth(device_id, "s")

        client = client_over(KeyHost("bad"), auth=DeviceCredentials(lookup), timeout_s=10.0)
        async with client, client.status_pusher(drain_timeout_s=0.0) as pusher:
            await pusher.put("bad", status(1))
            await asyncio.sleep(0.5)
            await pusher.put("slow", status(1))
            await asyncio.sleep(10.5)
            assert asked["slow"] == 1
            assert (pusher.stats().in_flight, pusher.stats().held_accounts) == (0, 2)
            await asyncio.sleep(1.0)
            assert asked["slow"] == 2  # with the probe

    run(program())

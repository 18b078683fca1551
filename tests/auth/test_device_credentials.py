"""Credentials of each device: how they are looked up, kept, replaced and never mixed up."""

from __future__ import annotations

import asyncio
import pickle
from collections import Counter, UserDict
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from printos_async import (
    AccountHeld,
    AccountResumed,
    AuthenticationError,
    ConfigurationError,
    DeviceCredentials,
    HmacAuth,
    MissingCredentialsError,
    RetryPolicy,
    SessionTokenAuth,
)
from printos_async._auth import DeviceAccounts
from tests.delivery.clock import run

from .host import ON, CheckingHost

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from printos_async import Event

NO_RETRY = RetryPolicy(max_attempts=1)


def keys(*devices: str) -> dict[str, HmacAuth]:
    return {device: HmacAuth(f"key-{device}", f"secret-{device}") for device in devices}


def host_of(*devices: str) -> CheckingHost:
    return CheckingHost(keys={f"key-{device}": f"secret-{device}" for device in devices})


class AcceptingHost(CheckingHost):
    """A host that asks for no credentials."""

    def _accepts(self, *_: Any) -> bool:
        return True


def lookups() -> dict[str, Callable[[], Any]]:
    known = keys("dev-1", "dev-2")

    async def coroutine(device_id: str) -> HmacAuth | None:
        await asyncio.sleep(0)
        return known.get(device_id)

    class Vault:
        def __call__(self, device_id: str) -> HmacAuth | None:
            return known.get(device_id)

    return {
        "mapping": lambda: known,
        "user mapping": lambda: UserDict(known),
        "function": lambda: known.get,
        "coroutine": lambda: coroutine,
        "object": Vault,
        "future": lambda: lambda device_id: asyncio.ensure_future(coroutine(device_id)),
    }


@pytest.mark.parametrize("kind", lookups())
def test_each_device_is_signed_with_its_own_key(kind: str) -> None:
    async def program() -> None:
        host = host_of("dev-1", "dev-2")
        async with host.client(DeviceCredentials(lookups()[kind]())) as client:
            for _ in range(2):
                await client.update_device_status("dev-1", ON)
                await client.update_device_status("dev-2", ON)
            with pytest.raises(MissingCredentialsError, match="no credentials for this device") as caught:
                await client.update_device_status("dev-3", ON)
            assert caught.value.attempts == 0
            with pytest.raises(MissingCredentialsError, match="no default"):
                await client.list_devices()
        assert host.applied == {"dev-1": 2, "dev-2": 2}

    run(program())


def test_default_signs_what_has_no_credentials_of_its_own() -> None:
    async def program() -> None:
        host = host_of("dev-1", "site")
        site = HmacAuth("key-site", "secret-site")
        async with host.client(DeviceCredentials(keys("dev-1"), default=site)) as client:
            assert await client.list_devices() == []
            report = await client.push_statuses({"dev-1": ON, "dev-2": ON})
            assert report.sent == 2

    run(program())


class VaultError(Exception):
    """An error of the caller's."""


async def cancelled_inside(_: str) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def hanging(_: str) -> None:
    await asyncio.Event().wait()


def raising(_: str) -> None:
    raise VaultError("s3cr3t")


@pytest.mark.parametrize(
    ("lookup", "text"),
    [
        (raising, "failed: VaultError"),
        (cancelled_inside, "failed: CancelledError"),
        (hanging, "longer than timeout_s"),
        (lambda _: "s3cr3t", "returned str"),
        (lambda _: b"s3cr3t", "returned bytes"),
        (lambda _: DeviceCredentials({}), "returned DeviceCredentials"),
        (lambda _: HmacAuth, "returned type"),
        (lambda _: asyncio.sleep(0, "s3cr3t"), "returned str"),
    ],
    ids=["raises", "cancelled", "hangs", "str", "bytes", "nested", "class", "coroutine of str"],
)
def test_a_lookup_that_fails_is_missing_credentials(lookup: Any, text: str) -> None:
    async def program() -> None:
        host = CheckingHost()
        async with host.client(DeviceCredentials(lookup), timeout_s=5.0) as client:
            started_s = asyncio.get_running_loop().time()
            with pytest.raises(MissingCredentialsError, match=text) as caught:
                await client.update_device_status("dev-1", ON)
            assert asyncio.get_running_loop().time() - started_s <= 5.001
            assert "s3cr3t" not in str(caught.value)
            assert caught.value.__cause__ is caught.value.__context__ is None
            report = await client.push_statuses({"dev-1": ON})
            assert isinstance(report.failures[0].error, MissingCredentialsError)
        assert host.requests.total() == 0

    run(program())


def test_a_cancelled_request_ends_its_lookup() -> None:
    async def program() -> None:
        host = CheckingHost()
        async with host.client(DeviceCredentials(hanging)) as client:
            task = asyncio.ensure_future(client.update_device_status("dev-1", ON))
            await asyncio.sleep(1.0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(program())


def test_a_pusher_survives_a_lookup_that_is_cancelled_inside() -> None:
    async def program() -> None:
        is_mended = False

        async def lookup(device_id: str) -> HmacAuth | None:
            return keys(device_id)[device_id] if is_mended else await cancelled_inside(device_id)  # type: ignore[func-returns-value]

        host = host_of("dev-1")
        async with host.client(DeviceCredentials(lookup)) as client, client.status_pusher() as pusher:
            await pusher.put("dev-1", ON)
            await asyncio.sleep(10.0)
            is_mended = True
            await pusher.drain(timeout_s=60.0)
        assert host.applied == {"dev-1": 1}

    run(program())


def test_concurrent_first_requests_of_a_device_make_one_login() -> None:
    async def program() -> None:
        host = CheckingHost(passwords={"dev-1": "p"}, latency_s=1.0)

        async def lookup(device_id: str) -> SessionTokenAuth:
            await asyncio.sleep(0.1)
            return SessionTokenAuth(device_id, "p")  # another object each time

        async with host.client(DeviceCredentials(lookup)) as client:
            await asyncio.gather(*(client.update_device_status("dev-1", ON) for _ in range(50)))
            assert host.logins == {"dev-1": 1}
            host.revoke()
            await asyncio.gather(*(client.update_device_status("dev-1", ON) for _ in range(50)))
        assert host.logins == {"dev-1": 2}
        assert host.applied == {"dev-1": 100}

    run(program())


def test_a_lookup_that_is_asked_again_by_many_at_once_makes_one_login() -> None:
    async def program() -> None:
        host = CheckingHost(passwords={"dev-1": "new"})
        password = "old"

        async def lookup(device_id: str) -> SessionTokenAuth:
            await asyncio.sleep(0.1)
            return SessionTokenAuth(device_id, password)

        async with host.client(DeviceCredentials(lookup), retry=NO_RETRY) as client:
            with pytest.raises(AuthenticationError):
                await client.update_device_status("dev-1", ON)
            password = "new"
            await asyncio.gather(*(client.update_device_status("dev-1", ON) for _ in range(20)))
        assert host.logins == {"dev-1": 2}

    run(program())


def test_one_object_for_several_devices_is_one_account() -> None:
    async def program() -> None:
        host = CheckingHost(passwords={"site": "p"})
        site = SessionTokenAuth("site", "p")
        accounts = DeviceAccounts(DeviceCredentials(lambda _: site))
        assert await accounts.find("dev-1") is await accounts.find("dev-2")
        async with host.client(DeviceCredentials(lambda _: site), retry=NO_RETRY) as client:
            await client.push_statuses({f"dev-{n}": ON for n in range(50)})
        assert (
            host.logins["site"] <= 2
        )  # the host refuses its token for other devices, which is no reason for more

    run(program())


async def test_an_object_that_gets_the_id_of_another_is_not_its_account() -> None:
    # What a lookup makes anew for each request may get the memory, and so the id, of what it made before.
    made: dict[str, int] = Counter()

    def lookup(device_id: str) -> HmacAuth:
        made[device_id] += 1
        return HmacAuth(f"{device_id}:{made[device_id]}".replace(":", "-"), "s")

    accounts = DeviceAccounts(DeviceCredentials(lookup))
    for turn in range(1, 20):
        for number in range(20):
            device_id = f"dev-{number}"
            account = await accounts.find(device_id)
            assert isinstance(account.auth, HmacAuth)
            assert account.auth.account == f"key {device_id}-{turn}"
            assert account.device_id == device_id
            account.must_ask = True


async def test_a_failed_lookup_keeps_the_credentials_that_are_known() -> None:
    found: Any = HmacAuth("k", "s")
    first = found

    def lookup(_: str) -> Any:
        return found if found is not None else raising("")

    accounts = DeviceAccounts(DeviceCredentials(lookup))
    await accounts.find("dev-1")
    found = None
    accounts.refresh()
    account = await accounts.find("dev-1")
    assert (account.auth, account.problem, account.must_ask) == (first, "", False)


def test_a_hanging_lookup_keeps_the_credentials_that_are_known() -> None:
    async def program() -> None:
        host = host_of("dev-1")
        hangs = False

        async def lookup(device_id: str) -> HmacAuth:
            if hangs:
                await hanging(device_id)
            return keys(device_id)[device_id]

        async with host.client(DeviceCredentials(lookup), timeout_s=3.0) as client:
            await client.update_device_status("dev-1", ON)
            client.refresh_credentials()
            hangs = True
            await client.update_device_status("dev-1", ON)
        assert host.applied == {"dev-1": 2}

    run(program())


async def test_one_function_that_fails_does_not_keep_the_others_from_being_asked() -> None:
    asked = Counter[str]()

    def secret_of(name: str) -> Callable[[], str]:
        def secret() -> str:
            asked[name] += 1
            if name == "dev-3" and asked[name] > 1:
                raise VaultError("s3cr3t")
            return "s"

        return secret

    auths = {f"dev-{n}": HmacAuth("k", secret_of(f"dev-{n}")) for n in range(10)}
    accounts = DeviceAccounts(DeviceCredentials(auths))
    for device_id, auth in auths.items():
        await accounts.find(device_id)
        auth.headers("PUT", "/")
    with pytest.raises(ConfigurationError, match="VaultError") as caught:
        accounts.refresh()
    assert caught.value.__context__ is None
    assert "s3cr3t" not in str(caught.value)
    assert asked == {f"dev-{n}": 2 for n in range(10)}


async def test_old_accounts_are_forgotten() -> None:
    asked = Counter[str]()

    def lookup(device_id: str) -> HmacAuth:
        asked[device_id] += 1
        return HmacAuth(device_id, "s")

    accounts = DeviceAccounts(DeviceCredentials(lookup), max_accounts=300)
    for number in range(1_000):
        await accounts.find(f"dev-{number}")
        assert len(accounts._known) <= 300
    assert accounts.known("dev-0") is None
    assert accounts.known("dev-999") is not None
    account = await accounts.find("dev-0")
    assert isinstance(account.auth, HmacAuth)
    assert account.auth.account == "key dev-0"
    assert asked["dev-0"] == 2


def test_a_held_account_is_kept_beyond_the_bound_of_accounts() -> None:

    async def program() -> None:
        host = host_of(*(f"dev-{n}" for n in range(100)))
        lookup = {**keys(*(f"dev-{n}" for n in range(100))), "bad": HmacAuth("bad", "s")}
        events: list[Event] = []
        client = host.client(DeviceCredentials(lookup), hooks=[events.append])
        accounts = client._channel.attempts.accounts
        assert isinstance(accounts, DeviceAccounts)
        accounts.max_accounts = 20
        async with client, client.status_pusher() as pusher:
            await pusher.put("bad", ON)
            await asyncio.sleep(1.5)
            assert pusher.stats().held_accounts == 1
            for n in range(100):
                await pusher.put(f"dev-{n}", ON)
            await asyncio.sleep(20.0)
            assert pusher.stats().held_accounts == 1
            host.keys["bad"] = "s"
            await pusher.drain(timeout_s=120.0)
            assert pusher.stats().held_accounts == 0
        assert host.applied == {**{f"dev-{n}": 1 for n in range(100)}, "bad": 1}
        told = [type(event) for event in events if isinstance(event, AccountHeld | AccountResumed)]
        assert told == [AccountHeld, AccountResumed]

    run(program())


@pytest.mark.parametrize("target", ["shared", "default"])
def test_a_device_that_moves_from_a_held_account_to_a_good_one_leaves_no_hold(target: str) -> None:
    async def program() -> None:
        site = HmacAuth("key-site", "secret-site")
        found: dict[str, HmacAuth] = {"dev-1": site, "dev-2": HmacAuth("wrong", "s")}
        host = host_of("site")
        default = site if target == "default" else None
        client = host.client(DeviceCredentials(found, default=default))
        async with client, client.status_pusher() as pusher:
            await pusher.put("dev-1", ON)
            await pusher.put("dev-2", ON)
            await asyncio.sleep(5.0)
            assert pusher.stats().held_accounts == 1
            if target == "shared":
                found["dev-2"] = site
            else:
                del found["dev-2"]
            await asyncio.sleep(10.0)
            assert pusher.stats().held_accounts == 0
        assert host.applied == {"dev-1": 1, "dev-2": 1}

    run(program())


def test_a_device_that_leaves_the_held_default_does_not_stop_its_probes() -> None:
    async def program() -> None:
        host = CheckingHost(keys={"key-dev-1": "secret-dev-1"})
        found: dict[str, HmacAuth] = {}
        client = host.client(DeviceCredentials(found, default=HmacAuth("site", "s")))
        async with client, client.status_pusher() as pusher:
            await pusher.put("dev-1", ON)
            await pusher.put("dev-2", ON)
            await asyncio.sleep(2.0)
            assert pusher.stats().held_accounts == 1
            found.update(keys("dev-1"))
            await asyncio.sleep(60.0)
            assert host.applied == {"dev-1": 1}
            assert pusher.stats().held_accounts == 1
            host.keys["site"] = "s"
            await asyncio.sleep(60.0)
            assert host.applied == {"dev-1": 1, "dev-2": 1}
            assert pusher.stats().held_accounts == 0

    run(program())


def test_other_httpx_clients_are_refused() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200))
    with (
        httpx.Client(transport=transport, auth=DeviceCredentials({})) as http,
        pytest.raises(ConfigurationError, match="PrintOSClient only"),
    ):
        http.get("https://printos.test/devices")


async def test_other_asynchronous_httpx_clients_are_refused() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200))
    async with httpx.AsyncClient(transport=transport, auth=DeviceCredentials({})) as http:
        with pytest.raises(ConfigurationError, match="PrintOSClient only"):
            await http.get("https://printos.test/devices")


@pytest.mark.parametrize(
    ("lookup", "default"), [(None, None), ("x", None), ({}, "x"), ({}, DeviceCredentials({}))]
)
def test_settings_that_cannot_work_are_refused(lookup: Any, default: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"lookup|default"):
        DeviceCredentials(lookup, default=default)


def test_the_repr_shows_no_secret() -> None:
    shown = repr(DeviceCredentials({"dev-1": HmacAuth("k", "hidden")}, default=HmacAuth("key-123", "hidden")))
    assert shown == "DeviceCredentials(default=HmacAuth(key='key-…'))"


def test_missing_credentials_cross_a_process_boundary() -> None:
    error = MissingCredentialsError("no credentials", method="PUT", path="/devices/dev-1/status", attempts=0)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.attempts) == (MissingCredentialsError, str(error), 0)


def test_a_request_is_cancelled_although_its_lookup_makes_something_else_of_it() -> None:
    async def program() -> None:
        async def lookup(_: str) -> HmacAuth:
            try:
                await asyncio.sleep(3.0)
            except asyncio.CancelledError:
                raise ValueError("s3cr3t") from None
            return HmacAuth("k", "s")

        client = host_of().client(DeviceCredentials(lookup))
        async with client, client.status_pusher(drain_timeout_s=0.0) as pusher:
            for device in range(5):
                await pusher.put(f"dev-{device}", ON)
            call = asyncio.create_task(client.update_device_status("dev-9", ON))
            await asyncio.sleep(0.1)
            call.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await call
            assert caught.value.__context__ is None

    run(program())


class FlakyAuth(httpx.Auth):
    """Credentials from a token service of the site, which may be away."""

    def __init__(self) -> None:
        self.fails: BaseException | None = None
        self.fails_after: BaseException | None = None

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        if self.fails is not None:
            raise self.fails
        yield request
        if self.fails_after is not None:
            raise self.fails_after


@pytest.mark.parametrize("error", [httpx.ConnectError("s3cr3t"), StopIteration("s3cr3t"), KeyError("s3cr3t")])
def test_credentials_of_another_kind_that_fail_hold_their_device_only(error: Exception) -> None:
    async def program() -> None:
        flaky, good = FlakyAuth(), FlakyAuth()
        flaky.fails, good.fails_after = error, error
        host = AcceptingHost()
        client = host.client(DeviceCredentials({"dev-1": flaky, "dev-2": good}))
        async with client, client.status_pusher() as pusher:
            with pytest.raises(MissingCredentialsError, match="its credentials failed: ") as caught:
                await client.update_device_status("dev-1", ON)
            assert "s3cr3t" not in repr(caught.value)
            assert caught.value.__context__ is caught.value.__cause__ is None
            for device_id in ("dev-1", "dev-2"):
                await pusher.put(device_id, ON)
            await asyncio.sleep(0.5)
            assert host.applied == {"dev-2": 1}
            assert (pusher.stats().sent, pusher.stats().failed, pusher.stats().held_accounts) == (1, 0, 1)
            flaky.fails = None
            await asyncio.sleep(1.0)
            assert host.applied == {"dev-2": 1, "dev-1": 1}
            assert pusher.stats().held_accounts == 0

    run(program())


def test_credentials_that_send_nothing_are_missing() -> None:
    class Silent(httpx.Auth):
        async def async_auth_flow(
            self, request: httpx.Request
        ) -> AsyncGenerator[httpx.Request, httpx.Response]:
            for nothing in tuple[httpx.Request, ...]():
                yield nothing

    async def program() -> None:
        async with AcceptingHost().client(Silent()) as client:
            with pytest.raises(MissingCredentialsError, match="its credentials failed: it sent no request"):
                await client.update_device_status("dev-1", ON)

    run(program())

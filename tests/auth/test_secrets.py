"""Secrets that a function returns: asked for again when they are refused, and shown nowhere."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from printos_async import (
    AuthenticationError,
    ConfigurationError,
    DeviceCredentials,
    HmacAuth,
    MissingCredentialsError,
    RetryPolicy,
    SessionTokenAuth,
)
from printos_async._auth.hmac import keyed, sign
from tests.delivery.clock import run

from .host import ON, Answer, CheckingHost

if TYPE_CHECKING:
    from collections.abc import Callable

OLD, NEW = "0ld-s3cret", "n3w-s3cret"
NO_RETRY = RetryPolicy(max_attempts=1)


class VaultError(Exception):
    """An error of the caller's."""


class Vault:
    """A function that returns a secret, or does what a test says."""

    def __init__(self, value: Any = OLD) -> None:
        self.value = value
        self.asked = 0

    def __call__(self) -> Any:
        self.asked += 1
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


def hmac_auth(source: Any) -> HmacAuth:
    return HmacAuth("site", source)


def session_auth(source: Any) -> SessionTokenAuth:
    return SessionTokenAuth("dev-1", source)


def host_with(secret: str) -> CheckingHost:
    return CheckingHost(keys={"site": secret}, passwords={"dev-1": secret})


def rotate(host: CheckingHost, secret: str) -> None:
    host.keys["site"] = host.passwords["dev-1"] = secret
    host.revoke()


BOTH = pytest.mark.parametrize("make", [hmac_auth, session_auth], ids=["HMAC", "session"])


@BOTH
def test_a_secret_is_asked_for_when_it_is_needed_and_kept(make: Callable[[Any], httpx.Auth]) -> None:
    async def program() -> None:
        vault = Vault()
        host = host_with(OLD)
        async with host.client(make(vault)) as client:
            assert vault.asked == 0
            for _ in range(5):
                await client.update_device_status("dev-1", ON)
        assert vault.asked == 1

    run(program())


@BOTH
def test_a_rotated_secret_is_used_after_one_refusal(make: Callable[[Any], httpx.Auth]) -> None:
    async def program() -> None:
        vault = Vault()
        host = host_with(OLD)
        async with host.client(make(vault), retry=NO_RETRY) as client:
            await client.update_device_status("dev-1", ON)
            vault.value = NEW
            await client.update_device_status("dev-1", ON)  # the old one is good until it is refused
            assert vault.asked == 1
            rotate(host, NEW)
            await client.update_device_status("dev-1", ON)
        assert host.applied["dev-1"] == 3
        assert host.requests["dev-1"] == 4

    run(program())


def test_all_that_were_in_flight_with_the_old_secret_are_signed_again() -> None:
    async def program() -> None:
        vault = Vault()
        host = SlowHost(keys={"site": OLD})
        async with host.client(hmac_auth(vault), retry=NO_RETRY) as client:
            await client.update_device_status("dev-0", ON)
            vault.value = NEW
            rotate(host, NEW)
            report = await client.push_statuses({f"dev-{n}": ON for n in range(50)})
            assert report.sent == 50
        assert host.requests.total() == 101
        assert vault.asked == 2  # one of them asks, the others see that it has changed

    run(program())


class SlowHost(CheckingHost):
    """Answers after a while, so that many requests are in flight."""

    async def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        await asyncio.sleep(0.01)
        return await super().answer(method, target, headers, body)


def test_a_secret_that_changes_at_any_moment_never_signs_in_part() -> None:
    async def program() -> None:
        host = SlowHost(keys={"site": "secret-0"})

        def secret() -> str:
            return host.keys["site"]

        async def rotate_often() -> None:
            for number in range(1, 200):
                await asyncio.sleep(0.007)
                host.keys["site"] = f"secret-{number}"

        async with host.client(hmac_auth(secret)) as client, client.status_pusher() as pusher:
            rotating = asyncio.ensure_future(rotate_often())
            while not rotating.done():
                for n in range(20):
                    await pusher.put(f"dev-{n}", ON)
                await asyncio.sleep(0.02)
            await rotating
            await pusher.drain(timeout_s=200.0)
            stats = pusher.stats()
            assert (stats.failed, stats.pending, stats.held_accounts) == (0, 0, 0)
        assert set(host.applied) == {f"dev-{n}" for n in range(20)}

    run(program())


@BOTH
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (VaultError(NEW), "failed: VaultError"),
        (None, "non-empty str"),
        (b"bytes", "non-empty str"),
        ("", "non-empty str"),
        (5, "non-empty str"),
        ("half\ud800", "UTF-8"),
    ],
    ids=["raises", "None", "bytes", "empty", "int", "surrogate"],
)
def test_a_function_that_fails_is_missing_credentials(
    make: Callable[[Any], httpx.Auth], value: Any, text: str
) -> None:
    async def program() -> None:
        vault = Vault(value)
        host = host_with(OLD)
        async with host.client(make(vault)) as client:
            with pytest.raises(MissingCredentialsError, match=text) as caught:
                await client.update_device_status("dev-1", ON)
            assert caught.value.attempts == 0
            assert caught.value.__cause__ is caught.value.__context__ is None
            assert NEW not in str(caught.value)
            assert (host.requests.total(), host.logins.total()) == (0, 0)
            vault.value = OLD
            await client.update_device_status("dev-1", ON)

    run(program())


@BOTH
def test_a_function_that_fails_later_leaves_the_refusal(make: Callable[[Any], httpx.Auth]) -> None:
    async def program() -> None:
        vault = Vault()
        host = host_with(OLD)
        async with host.client(make(vault), retry=NO_RETRY) as client:
            await client.update_device_status("dev-1", ON)
            vault.value = VaultError(NEW)
            rotate(host, NEW)
            with pytest.raises((AuthenticationError, MissingCredentialsError)):
                await client.update_device_status("dev-1", ON)
            with pytest.raises(ConfigurationError, match="VaultError") as caught:
                client.refresh_credentials()
            assert NEW not in str(caught.value)
            vault.value = NEW
            client.refresh_credentials()
            await client.update_device_status("dev-1", ON)

    run(program())


@BOTH
def test_a_refused_secret_is_asked_for_again_by_a_pusher_until_it_is_good(
    make: Callable[[Any], httpx.Auth],
) -> None:
    async def program() -> None:
        vault = Vault(NEW)
        host = host_with(OLD)
        async with host.client(make(vault)) as client, client.status_pusher() as pusher:
            await pusher.put("dev-1", ON)
            await asyncio.sleep(20.0)
            assert vault.asked <= 10
            vault.value = OLD
            await asyncio.sleep(20.0)
            stats = pusher.stats()
            assert (stats.sent, stats.failed, stats.held_accounts) == (1, 0, 0)

    run(program())


class SiteHost(CheckingHost):
    """Accepts a token for every device, and answers 403 or 404 in place of 401."""

    def _accepts(self, method: str, target: str, headers: dict[str, str], device_id: str) -> bool:
        token = headers.get("indigo-sms-auth-token")
        return super()._accepts(method, target, headers, device_id) if token is None else token in self.tokens


def site_host(secret: str, refusal: int) -> SiteHost:
    return SiteHost(keys={"site": secret}, passwords={"dev-1": secret}, refusal=refusal)


FLEET = [f"dev-{device}" for device in range(30)]


@pytest.mark.parametrize("refusal", [403, 404])
@BOTH
def test_an_account_that_is_held_by_403_or_404_asks_for_its_secret_before_each_probe(
    make: Callable[[Any], httpx.Auth], refusal: int
) -> None:
    async def program() -> None:
        vault = Vault()
        host = site_host(OLD, refusal)
        async with host.client(make(vault)) as client, client.status_pusher() as pusher:
            await pusher.push("dev-0", ON)
            rotate(host, NEW)
            for device_id in FLEET:
                await pusher.put(device_id, ON)
            await asyncio.sleep(0.5)
            assert pusher.stats().held_accounts == 1
            assert vault.asked == 1
            given_up, refused = pusher.stats().failed, host.requests.total()
            await asyncio.sleep(100.0)
            asked = vault.asked
            assert 3 <= host.requests.total() - refused + host.logins.total() - 1 <= 8
            assert 3 <= asked - 1 <= 8
            vault.value = VaultError()
            await asyncio.sleep(61.0)
            assert vault.asked == asked + 1
            vault.value = NEW
            await asyncio.sleep(61.0)
            stats = pusher.stats()
            assert (stats.sent, stats.failed, stats.held_accounts) == (1 + len(FLEET) - given_up, given_up, 0)
            assert vault.asked == asked + 2

    run(program())


@pytest.mark.parametrize("refusal", [403, 404])
def test_a_token_that_is_answered_403_or_404_for_all_devices_is_replaced_by_the_probe(refusal: int) -> None:
    async def program() -> None:
        host = site_host(OLD, refusal)
        async with host.client(session_auth(OLD)) as client, client.status_pusher() as pusher:
            await pusher.push("dev-0", ON)
            host.revoke()
            for device_id in FLEET:
                await pusher.put(device_id, ON)
            await asyncio.sleep(0.5)
            assert (pusher.stats().held_accounts, host.logins.total()) == (1, 1)
            await asyncio.sleep(1.0)
            assert (pusher.stats().held_accounts, host.logins.total()) == (0, 2)
            assert pusher.stats().pending == 0

    run(program())


def test_a_lookup_is_asked_before_each_probe_of_an_account_that_is_held_by_403() -> None:
    async def program() -> None:
        site = HmacAuth("site", OLD)
        asked = Counter[str]()

        def lookup(device_id: str) -> HmacAuth:
            asked[device_id] += 1
            return site

        host = site_host(OLD, 403)
        async with host.client(DeviceCredentials(lookup)) as client, client.status_pusher() as pusher:
            await pusher.push("dev-0", ON)
            rotate(host, NEW)
            for device_id in FLEET:
                await pusher.put(device_id, ON)
            await asyncio.sleep(0.5)
            assert pusher.stats().held_accounts == 1
            first = asked.total()
            await asyncio.sleep(100.0)
            assert 3 <= asked.total() - first <= 8
            site = HmacAuth("site", NEW)
            await asyncio.sleep(61.0)
            assert (pusher.stats().held_accounts, pusher.stats().pending) == (0, 0)

    run(program())


@BOTH
def test_old_and_new_secret_are_redacted(make: Callable[[Any], httpx.Auth]) -> None:
    class Echo(CheckingHost):
        async def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
            answer = await super().answer(method, target, headers, body)
            return answer if target.endswith("login") else Answer(400, f"you said {OLD} or {NEW}".encode())

    async def program() -> None:
        vault = Vault()
        host = Echo(keys={"site": OLD}, passwords={"dev-1": OLD})
        async with host.client(make(vault), retry=NO_RETRY) as client:
            await asyncio.gather(client.update_device_status("dev-1", ON), return_exceptions=True)
            vault.value = NEW
            client.refresh_credentials()
            with pytest.raises(Exception, match="400") as caught:
                await client.update_device_status("dev-1", ON)
        assert caught.value.body == "you said [redacted] or [redacted]"  # type: ignore[attr-defined]

    run(program())


@BOTH
def test_a_coroutine_function_is_refused(make: Callable[[Any], httpx.Auth]) -> None:
    async def secret() -> str:
        return OLD

    with pytest.raises(ConfigurationError, match="coroutine function"):
        make(secret)


def test_other_httpx_clients_ask_again_too() -> None:
    vault = Vault()
    accepted = OLD
    seen = Counter[int]()

    def answer(request: httpx.Request) -> httpx.Response:
        status = 200 if is_signed_with(accepted, request) else 401
        seen[status] += 1
        return httpx.Response(status)

    with httpx.Client(transport=httpx.MockTransport(answer), auth=HmacAuth("site", vault)) as http:
        assert http.put("https://printos.test/devices/dev-1/status", json={}).status_code == 200
        vault.value = accepted = NEW
        assert http.put("https://printos.test/devices/dev-1/status", json={}).status_code == 200
        accepted = "another"
        assert http.put("https://printos.test/devices/dev-1/status", json={}).status_code == 401
    assert seen == {200: 2, 401: 2}


def is_signed_with(secret: str, request: httpx.Request) -> bool:
    expected = sign(
        keyed(secret.encode()), request.method, request.url.path, request.headers["x-hp-hmac-date"]
    )
    return request.headers["x-hp-hmac-authentication"] == f"site:{expected}"

"""Credentials of single devices, and credentials that change while the sandbox runs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from printos_async import _errors
from printos_async.sandbox import Sandbox

from .conftest import connected

if TYPE_CHECKING:
    import httpx

LOGIN_PATH = "/api/aaa/v1/devices/login"
TOKEN = "Indigo-SmS-Auth-Token"
ON, OFF = {"status": "DS_ON"}, {"status": "DS_OFF"}


class Site:
    """A sandbox with two devices, and requests to it."""

    def __init__(self, sandbox: Sandbox, client: httpx.AsyncClient) -> None:
        self.sandbox = sandbox
        self.client = client

    async def log_in(self, login: str, password: str) -> httpx.Response:
        return await self.client.post(LOGIN_PATH, json={"login": login, "password": password})

    async def token(self, login: str, password: str) -> dict[str, str]:
        return {TOKEN: (await self.log_in(login, password)).json()["authToken"]}

    async def put(self, device_id: str, headers: dict[str, str], status: dict[str, Any] = ON) -> int:
        path = f"/devices/{device_id}/status"
        return (await self.client.put(path, json=status, headers=headers)).status_code

    async def list(self, headers: dict[str, str]) -> int:
        return (await self.client.get("/devices", headers=headers)).status_code

    async def put_signed(self, device_id: str, key: str, secret: str) -> int:
        return await self.put(device_id, signed("PUT", f"/devices/{device_id}/status", key, secret))


def signed(method: str, path: str, key: str, secret: str) -> dict[str, str]:
    date = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    signature = hmac.new(secret.encode(), f"{method} {path}{date}".encode(), hashlib.sha256).hexdigest()
    return {
        "x-hp-hmac-authentication": f"{key}:{signature}",
        "x-hp-hmac-date": date,
        "x-hp-hmac-algorithm": "SHA256",
    }


OpenSite = Callable[..., Any]


@pytest.fixture
async def open_site() -> AsyncIterator[OpenSite]:
    async with contextlib.AsyncExitStack() as stack:

        async def open_site(**settings: Any) -> Site:
            sandbox = await stack.enter_async_context(Sandbox(**settings))
            sandbox.add_device("dev-1")
            sandbox.add_device("dev-2")
            return Site(sandbox, await stack.enter_async_context(connected(sandbox)))

        yield open_site


DEVICE_LOGINS = {"dev-1": ("login-1", "pass-1"), "dev-2": ("login-2", "pass-2")}


async def test_token_of_a_device_login_opens_its_device_and_no_other(open_site: OpenSite) -> None:
    site = await open_site(device_logins=DEVICE_LOGINS)
    token = await site.token("login-1", "pass-1")

    assert [await site.put("dev-1", token), await site.put("dev-2", token), await site.list(token)] == [
        200,
        403,
        200,
    ]
    assert [write.device_id for write in site.sandbox.applied] == ["dev-1"]
    assert site.sandbox.foreign_tokens_count == 1
    assert site.sandbox.refusals == {"foreign_token": 1}


async def test_token_of_a_common_login_opens_every_device(open_site: OpenSite) -> None:
    site = await open_site(logins={"shop": "pass"}, device_logins=DEVICE_LOGINS)
    token = await site.token("shop", "pass")

    assert [await site.put("dev-1", token), await site.put("dev-2", token)] == [200, 200]
    assert site.sandbox.foreign_tokens_count == 0


async def test_foreign_token_is_counted_even_if_a_fault_ends_its_request(open_site: OpenSite) -> None:
    site = await open_site(device_logins=DEVICE_LOGINS)
    token = await site.token("login-1", "pass-1")
    site.sandbox.inject("server_error")

    assert await site.put("dev-2", token) == 503
    assert (site.sandbox.foreign_tokens_count, site.sandbox.refusals) == (1, {})


async def test_expired_foreign_token_is_a_401_and_still_counts_as_foreign(open_site: OpenSite) -> None:
    site = await open_site(device_logins=DEVICE_LOGINS)
    token = await site.token("login-1", "pass-1")
    site.sandbox.expire_tokens()

    assert await site.put("dev-2", token) == 401
    assert (site.sandbox.foreign_tokens_count, site.sandbox.refusals) == (1, {"expired_token": 1})


@pytest.mark.parametrize(
    ("which", "statuses"),
    [({}, [401, 401]), ({"login": "login-1"}, [401, 200]), ({"device_id": "dev-2"}, [200, 401])],
    ids=["all", "login", "device"],
)
async def test_tokens_are_revoked_while_it_runs(
    open_site: OpenSite, which: dict[str, str], statuses: list[int]
) -> None:
    site = await open_site(device_logins=DEVICE_LOGINS)
    tokens = {device_id: await site.token(*login) for device_id, login in DEVICE_LOGINS.items()}

    site.sandbox.expire_tokens(**which)

    assert [await site.put(device_id, token) for device_id, token in tokens.items()] == statuses
    assert await site.put("dev-1", await site.token("login-1", "pass-1")) == 200


async def test_token_expires_after_its_time(open_site: OpenSite) -> None:
    now_s = [1_700_000_000.0]
    site = await open_site(logins={"shop": "pass"}, token_lifetime_s=60, clock=lambda: now_s[0])
    token = await site.token("shop", "pass")
    now_s[0] += 59
    before = await site.put("dev-1", token)
    now_s[0] += 1

    assert (before, await site.put("dev-1", token)) == (200, 401)
    assert site.sandbox.refusals == {"expired_token": 1}


async def test_refused_requests_use_nothing_of_a_token(open_site: OpenSite) -> None:
    site = await open_site(device_logins=DEVICE_LOGINS, token_lifetime_requests=1)
    token = await site.token("login-1", "pass-1")

    assert [await site.put(device_id, token) for device_id in ("dev-2", "dev-1", "dev-1")] == [403, 200, 401]


async def test_password_changes_while_it_runs(open_site: OpenSite) -> None:
    site = await open_site(device_logins=DEVICE_LOGINS)
    token = await site.token("login-1", "pass-1")

    site.sandbox.set_login("login-1", "new")

    assert [(await site.log_in("login-1", word)).status_code for word in ("pass-1", "new")] == [401, 200]
    assert await site.put("dev-1", token) == 200
    assert await site.put("dev-2", await site.token("login-1", "new")) == 403
    assert site.sandbox.refusals == {"wrong_login": 1, "foreign_token": 1}
    assert site.sandbox.logins_by_login == {"login-1": 4}


async def test_login_is_added_and_removed_while_it_runs(open_site: OpenSite) -> None:
    site = await open_site()
    site.sandbox.set_login("late", "pass", device_id="dev-1")
    token = await site.token("late", "pass")
    statuses = [await site.put("dev-1", token), await site.put("dev-2", token), await site.put("dev-1", {})]

    site.sandbox.remove_login("late")

    assert (*statuses, await site.put("dev-1", token)) == (200, 403, 401, 401)
    assert (await site.log_in("late", "pass")).status_code == 401


async def test_key_of_a_device_opens_its_device_and_the_list(open_site: OpenSite) -> None:
    site = await open_site(device_keys={"dev-1": ("key-1", "secret-1"), "dev-2": ("key-2", "secret-2")})

    assert [await site.put_signed(f"dev-{n}", "key-1", "secret-1") for n in (1, 2)] == [200, 403]
    assert await site.list(signed("GET", "/devices", "key-2", "secret-2")) == 200
    assert site.sandbox.refusals == {"foreign_key": 1}


async def test_key_is_changed_revoked_and_restored_while_it_runs(open_site: OpenSite) -> None:
    site = await open_site(hmac_keys={"key": "old"})
    sandbox = site.sandbox
    statuses = [await site.put_signed("dev-1", "key", "old")]
    sandbox.set_key("key", "new")
    statuses += [await site.put_signed("dev-1", "key", word) for word in ("old", "new")]
    sandbox.remove_key("key")
    statuses.append(await site.put_signed("dev-1", "key", "new"))
    sandbox.set_key("key", "new")
    statuses.append(await site.put_signed("dev-1", "key", "new"))

    assert statuses == [200, 401, 200, 401, 200]
    assert sandbox.refusals == {"wrong_signature": 1, "unknown_key": 1}
    assert sandbox.applied_count == 3


async def test_changed_secret_leaves_a_key_with_its_device(open_site: OpenSite) -> None:
    site = await open_site(device_keys={"dev-1": ("key-1", "old")})
    site.sandbox.set_key("key-1", "new")

    assert [await site.put_signed(f"dev-{n}", "key-1", "new") for n in (1, 2)] == [200, 403]


async def test_refused_late_write_is_never_applied(open_site: OpenSite) -> None:
    site = await open_site(device_logins=DEVICE_LOGINS)
    token = await site.token("login-1", "pass-1")
    site.sandbox.inject("late_write", device_id="dev-2")

    assert await site.put("dev-2", token) == 403
    site.sandbox.apply_late_writes()
    assert (site.sandbox.pending_late_writes, site.sandbox.applied_count) == (0, 0)


async def test_logins_in_flight_are_counted(open_site: OpenSite) -> None:
    site = await open_site(device_logins=DEVICE_LOGINS)
    sandbox = site.sandbox
    for _ in range(3):
        sandbox.inject("hang_before", operation="login")
    hanging = [asyncio.create_task(site.log_in("login-1", "pass-1")) for _ in range(3)]
    await sandbox.wait_for(lambda: sandbox.logins_in_flight == 3)
    for task in hanging:
        task.cancel()
    await sandbox.wait_for(lambda: sandbox.logins_in_flight == 0)
    await asyncio.gather(*hanging, return_exceptions=True)

    assert sandbox.max_logins_in_flight == 3
    assert (sandbox.logins_count, sandbox.logins_by_login) == (0, {})
    sandbox.reset()
    assert sandbox.max_logins_in_flight == 0


async def test_reset_forgets_the_counts_and_no_credentials(open_site: OpenSite) -> None:
    site = await open_site(device_logins=DEVICE_LOGINS)
    token = await site.token("login-1", "pass-1")
    await site.put("dev-2", token)

    site.sandbox.reset()

    assert (site.sandbox.logins_by_login, site.sandbox.refusals) == ({}, {})
    assert (site.sandbox.foreign_tokens_count, await site.put("dev-1", token)) == (0, 200)


@pytest.mark.parametrize("remove", ["remove_key", "remove_login", "remove_device"])
def test_what_is_not_there_cannot_be_removed(remove: str) -> None:
    sandbox = Sandbox(hmac_keys={"k": "s"}, logins={"l": "p"})
    with pytest.raises(_errors.ConfigurationError, match="nobody"):
        getattr(sandbox, remove)("nobody")


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"logins": {"l": "p"}, "device_logins": {"dev-1": ("l", "p")}}, "device_logins"),
        ({"device_keys": {"dev-1": ("k", "s"), "dev-2": ("k", "s")}}, "device_keys"),
        ({"token_lifetime_s": 0}, "token_lifetime_s"),
    ],
)
def test_contradictory_credentials_are_refused(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(_errors.ConfigurationError, match=name):
        Sandbox(**settings)

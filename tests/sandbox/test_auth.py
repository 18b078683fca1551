from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from printos_async.sandbox import Sandbox

from .conftest import connected

KEY, SECRET, DATE = "testkey123", "testsecret456", "2024-01-15T12:34:56.789Z"
KEYS = {KEY: SECRET}
NOW = datetime.fromisoformat(DATE)
VECTORS = [
    ("PUT", "/devices/dev-001/status", "d0a64c04eeb8a112a733fac36dac5f2c9f25535c0caa8db3d74e4e537c5b48b0"),
    ("GET", "/devices", "7e046b764ff3182786874834668fcf68ca6fc770c0fcbafd81166ca06747e35a"),
    ("POST", "/devices", "fa8c47709aa627ae431c889a37f6df8dd7708c8e818a943b11b14b9ead79fbba"),
]
STATUS = {"status": "DS_ON"}
LOGIN_PATH = "/api/aaa/v1/devices/login"
TOKEN = "Indigo-SmS-Auth-Token"


def headers(signature: str, *, key: str = KEY, date: str = DATE, algorithm: str = "SHA256") -> dict[str, str]:
    return {
        "x-hp-hmac-authentication": f"{key}:{signature}",
        "x-hp-hmac-date": date,
        "x-hp-hmac-algorithm": algorithm,
    }


def sign(method: str, path: str, *, date: str = DATE, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), f"{method} {path}{date}".encode(), hashlib.sha256).hexdigest()


def over_asgi(sandbox: Sandbox) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=sandbox.app), base_url="http://sandbox")


def signed_sandbox(*, clock_is_off_by: timedelta = timedelta(0)) -> Sandbox:
    sandbox = Sandbox(hmac_keys=KEYS, clock=(NOW + clock_is_off_by).timestamp)
    sandbox.add_device("dev-001")
    return sandbox


@pytest.mark.parametrize(("method", "path", "signature"), VECTORS)
async def test_known_signatures_are_welcome(method: str, path: str, signature: str) -> None:
    async with over_asgi(signed_sandbox()) as client:
        response = await client.request(method, path, json=STATUS, headers=headers(signature))

    assert response.is_success


async def test_query_is_not_signed() -> None:
    async with over_asgi(signed_sandbox()) as client:
        response = await client.get("/devices?limit=1", headers=headers(VECTORS[1][2]))

    assert response.status_code == 200


async def test_path_is_signed_as_it_is_sent() -> None:
    sandbox = signed_sandbox()
    sandbox.add_device("a b")
    async with sandbox, connected(sandbox) as client:
        sent = "/devices/a%20b/status"
        right = await client.put(sent, json=STATUS, headers=headers(sign("PUT", sent)))
        wrong = await client.put(sent, json=STATUS, headers=headers(sign("PUT", "/devices/a b/status")))

    assert (right.status_code, wrong.status_code) == (200, 401)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({}, "no credentials"),
        (headers("0" * 64), "signature"),
        (headers(sign("GET", "/devices").upper()), "signature"),
        (headers(sign("POST", "/devices")), "signature"),
        (headers(sign("GET", "/devices"), key="someone"), "key"),
        (headers(sign("GET", "/devices"), algorithm="SHA1"), "algorithm"),
        (headers(sign("GET", "/devices"), date="2024-01-15T12:34:56.788Z"), "signature"),
        (
            headers(sign("GET", "/devices", date="2024-01-15T12:34:56Z"), date="2024-01-15T12:34:56Z"),
            "date",
        ),
        (
            headers(
                sign("GET", "/devices", date="2024-13-15T12:34:56.789Z"), date="2024-13-15T12:34:56.789Z"
            ),
            "date",
        ),
        ({"x-hp-hmac-authentication": "nonsense"}, "key"),
        ({TOKEN: "anything"}, "no credentials"),
    ],
)
async def test_wrong_signature_is_answered_401_with_the_reason(wrong: dict[str, str], reason: str) -> None:
    async with over_asgi(signed_sandbox()) as client:
        response = await client.get("/devices", headers=wrong)

    assert response.status_code == 401
    envelope = response.json()["smsError"]
    assert envelope["statusCode"] == 401
    assert reason in envelope["message"]


@pytest.mark.parametrize(("minutes", "status"), [(-16, 401), (-14, 200), (14, 200), (16, 401)])
async def test_clock_may_be_off_by_a_quarter_of_an_hour(minutes: int, status: int) -> None:
    async with over_asgi(signed_sandbox(clock_is_off_by=timedelta(minutes=minutes))) as client:
        response = await client.get("/devices", headers=headers(VECTORS[1][2]))

    assert response.status_code == status


async def test_signatures_are_checked_against_the_real_clock_by_default() -> None:
    date = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    async with over_asgi(Sandbox(hmac_keys=KEYS)) as client:
        fresh = await client.get("/devices", headers=headers(sign("GET", "/devices", date=date), date=date))
        stale = await client.get("/devices", headers=headers(VECTORS[1][2]))

    assert (fresh.status_code, stale.status_code) == (200, 401)


async def log_in(client: httpx.AsyncClient, login: str = "shop", password: str = "pass") -> httpx.Response:
    return await client.post(LOGIN_PATH, json={"login": login, "password": password})


async def test_login_gives_the_token_in_json_and_as_a_cookie() -> None:
    sandbox = Sandbox(logins={"shop": "pass"})
    async with over_asgi(sandbox) as client:
        response = await log_in(client)

    token = response.json()["authToken"]
    assert response.status_code == 200
    assert response.cookies[TOKEN] == token
    assert sandbox.logins_count == 1


async def test_token_opens_the_api_and_its_cookie_does_not() -> None:
    async with over_asgi(Sandbox(logins={"shop": "pass"})) as client:
        token = (await log_in(client)).json()["authToken"]
        by_cookie = await client.get("/devices")
        by_header = await client.get("/devices", headers={TOKEN: token})

    assert (by_cookie.status_code, by_header.status_code) == (401, 200)


@pytest.mark.parametrize(("login", "password"), [("shop", "wrong"), ("other", "pass"), ("", "")])
async def test_wrong_login_is_answered_401(login: str, password: str) -> None:
    sandbox = Sandbox(logins={"shop": "pass"})
    async with over_asgi(sandbox) as client:
        response = await log_in(client, login, password)

    assert response.status_code == 401
    assert "authToken" not in response.text
    assert sandbox.logins_count == 1


async def test_login_without_password_is_answered_400() -> None:
    async with over_asgi(Sandbox()) as client:
        response = await client.post(LOGIN_PATH, json={"login": "shop"})

    assert response.status_code == 400


async def test_expired_token_is_answered_401_until_the_next_login() -> None:
    sandbox = Sandbox(logins={"shop": "pass"})
    async with over_asgi(sandbox) as client:
        old = (await log_in(client)).json()["authToken"]
        sandbox.expire_tokens()
        refused = await client.get("/devices", headers={TOKEN: old})
        new = (await log_in(client)).json()["authToken"]
        welcome = await client.get("/devices", headers={TOKEN: new})

    assert (refused.status_code, welcome.status_code, sandbox.logins_count) == (401, 200, 2)


async def test_token_expires_after_its_number_of_requests() -> None:
    async with over_asgi(Sandbox(logins={"shop": "pass"}, token_lifetime_requests=2)) as client:
        token = (await log_in(client)).json()["authToken"]
        statuses = [(await client.get("/devices", headers={TOKEN: token})).status_code for _ in range(4)]

    assert statuses == [200, 200, 401, 401]


async def test_either_credential_will_do_where_both_are_configured() -> None:
    sandbox = Sandbox(hmac_keys=KEYS, logins={"shop": "pass"}, clock=NOW.timestamp)
    async with over_asgi(sandbox) as client:
        token = (await log_in(client)).json()["authToken"]
        statuses = [
            (await client.get("/devices", headers=given)).status_code
            for given in (headers(VECTORS[1][2]), {TOKEN: token}, {})
        ]

    assert statuses == [200, 200, 401]


async def test_login_suffers_faults_only_where_asked_for() -> None:
    sandbox = Sandbox()
    sandbox.inject("server_error", operation="login")
    async with over_asgi(sandbox) as client:
        statuses = [(await log_in(client)).status_code for _ in range(2)]

    assert statuses == [503, 200]
    assert sandbox.logins_count == 1

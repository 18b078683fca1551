from __future__ import annotations

import asyncio
import hashlib
import hmac
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from printos_async import (
    AuthenticationError,
    ConfigurationError,
    HmacAuth,
    PrintOSClient,
    ResponseDecodeError,
    RetryPolicy,
    SessionTokenAuth,
    StatusError,
    TransportError,
)
from printos_async._auth.hmac import format_timestamp, keyed, sign
from printos_async._auth.login_response import TOKEN_HEADER
from printos_async._auth.session_token import REFUSED_LOGIN_HOLD_S
from printos_async.sandbox import Faults, Sandbox
from tests.conftest import KEY, QUICK_RETRY, SECRET, status
from tests.delivery.clock import run

from .host import ON, Answer, CheckingHost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

LOGIN, PASSWORD = "press-hall-3", "correct horse"
NO_RETRY = RetryPolicy(max_attempts=1)


@pytest.mark.parametrize(
    ("method", "path", "signature"),
    [
        (
            "PUT",
            "/devices/dev-001/status",
            "d0a64c04eeb8a112a733fac36dac5f2c9f25535c0caa8db3d74e4e537c5b48b0",
        ),
        ("GET", "/devices", "7e046b764ff3182786874834668fcf68ca6fc770c0fcbafd81166ca06747e35a"),
        ("POST", "/devices", "fa8c47709aa627ae431c889a37f6df8dd7708c8e818a943b11b14b9ead79fbba"),
    ],
)
def test_signature_matches_the_published_vectors(method: str, path: str, signature: str) -> None:
    assert sign(keyed(SECRET.encode()), method, path, "2024-01-15T12:34:56.789Z") == signature


@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_the_signature_is_that_of_the_standard_library(length: int) -> None:
    secret = bytes(number % 256 for number in range(length))
    message = b"GET /devices2024-01-15T12:34:56.789Z"
    expected = hmac.new(secret, message, hashlib.sha256).hexdigest()
    keyed_hmac = keyed(secret)
    # Twice: it is copied, and stays what it was.
    assert [sign(keyed_hmac, "GET", "/devices", "2024-01-15T12:34:56.789Z") for _ in range(2)] == [
        expected
    ] * 2


@pytest.mark.parametrize(
    ("time_s", "text"),
    [(1705322096.789, "2024-01-15T12:34:56.789Z"), (1705322096.0, "2024-01-15T12:34:56.000Z")],
)
def test_timestamp_has_milliseconds_and_is_utc(time_s: float, text: str) -> None:
    assert format_timestamp(time_s) == text


def test_hmac_auth_signs_a_request_of_any_httpx_client() -> None:
    auth = HmacAuth(KEY, SECRET, clock=lambda: 1705322096.789)
    request = httpx.Request("PUT", "https://printos.api.hp.com/devices/dev-001/status?a=1", json={})
    next(auth.auth_flow(request))
    assert request.headers["x-hp-hmac-authentication"] == (
        f"{KEY}:d0a64c04eeb8a112a733fac36dac5f2c9f25535c0caa8db3d74e4e537c5b48b0"
    )
    assert request.headers["x-hp-hmac-date"] == "2024-01-15T12:34:56.789Z"
    assert request.headers["x-hp-hmac-algorithm"] == "SHA256"


async def test_every_attempt_is_signed_anew(sandbox: Sandbox) -> None:
    times = iter(range(1705322096, 1705322196))
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["x-hp-hmac-date"])
        return httpx.Response(503 if len(seen) < 3 else 200)

    auth = HmacAuth(KEY, SECRET, clock=lambda: float(next(times)))
    transport = httpx.MockTransport(answer)
    async with PrintOSClient(sandbox.url, auth=auth, retry=QUICK_RETRY, transport=transport) as client:
        await client.update_device_status("dev-1", status())
    assert len(set(seen)) == 3


async def test_wrong_secret_is_an_authentication_error_after_one_request(sandbox: Sandbox) -> None:
    async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, "wrong"), retry=QUICK_RETRY) as client:
        with pytest.raises(AuthenticationError, match="401") as caught:
            await client.list_devices()
    assert caught.value.attempts == 1
    assert sandbox.request_count == 1


@pytest.mark.parametrize("key", ["", "a:b", "schlüssel", "a b", "a\r\nb", None])
def test_a_key_that_cannot_be_sent_is_refused(key: Any) -> None:
    with pytest.raises(ConfigurationError, match="key"):
        HmacAuth(key, SECRET)


@pytest.mark.parametrize("secret", ["", None, "half\ud800pair"])
def test_a_secret_that_cannot_be_used_is_refused_without_being_quoted(secret: Any) -> None:
    with pytest.raises(ConfigurationError, match="secret") as caught:
        HmacAuth(KEY, secret)
    assert "pair" not in str(caught.value)
    assert caught.value.__context__ is None


# Session tokens


@pytest.fixture
async def token_sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(logins={LOGIN: PASSWORD}) as running:
        for index in range(50):
            running.add_device(f"dev-{index}")
        yield running


def token_client(
    sandbox: Sandbox, *, password: str = PASSWORD, retry: RetryPolicy = NO_RETRY
) -> PrintOSClient:
    return PrintOSClient(sandbox.url, auth=SessionTokenAuth(LOGIN, password), retry=retry)


async def test_fifty_concurrent_first_requests_make_one_login(token_sandbox: Sandbox) -> None:
    async with token_client(token_sandbox) as client:
        await asyncio.gather(*(client.update_device_status(f"dev-{n}", status(n)) for n in range(50)))
    assert token_sandbox.logins_count == 1
    assert token_sandbox.applied_count == 50


async def test_expired_token_is_renewed_once_for_all_who_find_it_expired(token_sandbox: Sandbox) -> None:
    async with token_client(token_sandbox) as client:
        await client.list_devices()
        token_sandbox.expire_tokens()
        await asyncio.gather(*(client.update_device_status(f"dev-{n}", status(n)) for n in range(50)))
    assert token_sandbox.logins_count == 2
    assert token_sandbox.applied_count == 50


async def test_a_token_that_is_refused_right_after_login_is_not_replayed_again() -> None:
    logins, calls = 0, 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal logins, calls
        if request.url.path.endswith("/login"):
            logins += 1
            return httpx.Response(200, json={"authToken": f"token-{logins}"})
        calls += 1
        return httpx.Response(200 if calls == 1 else 401)

    auth = SessionTokenAuth(LOGIN, PASSWORD)
    transport = httpx.MockTransport(answer)
    async with PrintOSClient(
        "https://printos.test", auth=auth, retry=QUICK_RETRY, transport=transport
    ) as client:
        await client.update_device_status("dev-1", status())
        with pytest.raises(AuthenticationError):
            await client.update_device_status("dev-1", status())
    assert (logins, calls) == (2, 3)


class TokenHost:
    """A host that grants logins; what becomes of the other requests is the test's to say."""

    def __init__(self, accepts: Callable[[str, str], bool]) -> None:
        self.accepts = accepts
        self.logins = 0
        self.calls = 0

    def client(self) -> PrintOSClient:
        auth, transport = SessionTokenAuth(LOGIN, PASSWORD), httpx.MockTransport(self._answer)
        return PrintOSClient("https://printos.test", auth=auth, retry=QUICK_RETRY, transport=transport)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/login"):
            self.logins += 1
            return httpx.Response(200, json={"authToken": f"token-{self.logins}"})
        self.calls += 1
        accepted = self.accepts(request.headers[TOKEN_HEADER], request.url.path)
        return httpx.Response(200 if accepted else 401)


async def test_tokens_that_are_never_accepted_are_no_reason_to_log_in_again() -> None:
    host = TokenHost(lambda token, path: False)
    async with host.client() as client:
        for _ in range(20):
            ends = await asyncio.gather(
                *(client.update_device_status(f"dev-{n}", status()) for n in range(10)),
                return_exceptions=True,
            )
            assert {type(end) for end in ends} == {AuthenticationError}
    assert (host.logins, host.calls) == (1, 200)


async def test_a_token_that_was_never_accepted_is_replaced_after_a_while() -> None:
    host = TokenHost(lambda token, path: token != "token-1")
    async with host.client() as client:
        with pytest.raises(AuthenticationError):
            await client.update_device_status("dev-1", status())
        token = client._channel._auth._token  # type: ignore[union-attr]
        token.since_s -= REFUSED_LOGIN_HOLD_S
        await client.update_device_status("dev-1", status())
    assert (host.logins, host.calls) == (2, 3)


async def test_one_device_that_is_refused_does_not_hold_up_the_others() -> None:
    host = TokenHost(lambda token, path: "stranger" not in path)
    async with host.client() as client:
        for _ in range(3):
            with pytest.raises(AuthenticationError):
                await client.update_device_status("stranger", status())
            await asyncio.gather(*(client.update_device_status(f"dev-{n}", status()) for n in range(10)))
    assert host.logins <= 3


async def test_tokens_that_are_accepted_and_then_refused_are_replaced_each_time_by_one_login() -> None:
    good = "token-1"
    host = TokenHost(lambda token, path: token == good)
    async with host.client() as client:
        for number in range(1, 6):
            good = f"token-{number}"
            for _ in range(2):
                await asyncio.gather(*(client.update_device_status(f"dev-{n}", status()) for n in range(10)))
    assert host.logins == 5


async def test_refused_login_is_one_request_however_many_wait_and_ask_again(token_sandbox: Sandbox) -> None:
    async with token_client(token_sandbox, password="wrong", retry=QUICK_RETRY) as client:
        for _ in range(2):
            results = await asyncio.gather(
                *(client.update_device_status(f"dev-{n}", status(n)) for n in range(50)),
                return_exceptions=True,
            )
            assert all(isinstance(result, AuthenticationError) for result in results)
    assert token_sandbox.logins_count == 1
    assert token_sandbox.applied_count == 0


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (401, "check login, password and login_url"),
        (302, "check login, password and login_url"),
        (429, "PrintOS asks to wait before the next login"),
        (503, "PrintOS cannot log in at the moment"),
    ],
)
def test_the_error_of_a_login_says_what_to_do(code: int, advice: str) -> None:
    async def program() -> None:
        host = CheckingHost(on_login=lambda _: Answer(code, headers={"retry-after": "300"}))
        async with host.client(SessionTokenAuth("dev-1", "words")) as client:
            with pytest.raises(StatusError, match=f"login was answered with {code}; {advice}") as caught:
                await client.update_device_status("dev-1", ON)
        assert str(caught.value).count(";") == 1  # no other advice beside it

    run(program())


async def test_login_that_fails_for_a_moment_is_tried_again_even_for_a_post(token_sandbox: Sandbox) -> None:
    token_sandbox.inject("server_error", operation="login")
    async with token_client(token_sandbox, retry=QUICK_RETRY) as client:
        device = await client.provision_device(model="Indigo 12000", serial_number="SN-1")
    assert device.id in token_sandbox.devices
    assert [request.path for request in token_sandbox.requests] == [
        *2 * ["/api/aaa/v1/devices/login"],
        "/devices",
    ]


async def test_lost_login_answer_means_that_the_call_itself_was_never_sent(token_sandbox: Sandbox) -> None:
    token_sandbox.inject("reset_after", operation="login")
    async with token_client(token_sandbox) as client:
        with pytest.raises(TransportError, match="authentication failed") as caught:
            await client.provision_device(model="Indigo 12000", serial_number="SN-1")
    assert caught.value.may_have_arrived is False


async def test_cancelling_the_one_who_logs_in_leaves_the_others_working(token_sandbox: Sandbox) -> None:
    token_sandbox.set_faults(Faults(latency_s=0.05, operations=("login",)))
    async with token_client(token_sandbox, retry=QUICK_RETRY) as client:
        leader = asyncio.create_task(client.update_device_status("dev-0", status()))
        others = [asyncio.create_task(client.update_device_status(f"dev-{n}", status())) for n in range(1, 5)]
        await token_sandbox.wait_for(lambda: token_sandbox.in_flight == 1)
        leader.cancel()
        await asyncio.gather(*others)
        assert (await asyncio.gather(leader, return_exceptions=True))[0].__class__ is asyncio.CancelledError
    assert token_sandbox.applied_count == 4


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"set-cookie": f"{TOKEN_HEADER}=abc123; Path=/; HttpOnly"}, b""),
        ({"set-cookie": 'indigo-sms-auth-token="abc123"'}, b"<html>"),
        ({}, b'{"authToken": "abc123", "expiry": 1}'),
    ],
)
async def test_token_comes_from_json_or_from_the_cookie(headers: dict[str, str], body: bytes) -> None:
    seen: list[httpx.Headers] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/sso/login":
            return httpx.Response(200, headers=headers, content=body)
        seen.append(request.headers)
        return httpx.Response(200)

    auth = SessionTokenAuth(LOGIN, PASSWORD, login_url="/sso/login")
    transport = httpx.MockTransport(answer)
    async with PrintOSClient("https://printos.test/base", auth=auth, transport=transport) as client:
        await client.update_device_status("dev-1", status())
    assert seen[0][TOKEN_HEADER] == "abc123"
    assert "cookie" not in seen[0]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b'{"authToken": 5}', b'{"authToken": "a\\r\\nb"}', b"[" * 100_000]
)
async def test_login_answer_without_a_token_is_a_decode_error(body: bytes) -> None:
    auth = SessionTokenAuth(LOGIN, PASSWORD)
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=body))
    async with PrintOSClient("https://printos.test", auth=auth, transport=transport) as client:
        with pytest.raises(ResponseDecodeError, match="authToken"):
            await client.list_devices()


async def test_login_on_another_machine_must_be_encrypted() -> None:
    auth = SessionTokenAuth(LOGIN, PASSWORD, login_url="http://login.example/")
    transport = httpx.MockTransport(lambda _: httpx.Response(200))
    async with PrintOSClient("https://printos.test", auth=auth, transport=transport) as client:
        with pytest.raises(ConfigurationError, match="clear text"):
            await client.list_devices()


@pytest.mark.parametrize(
    "login_url",
    [
        "",
        None,
        5,
        "https://xn--/login",
        "https://user:word@login.example/",
        "ftp://login.example/",
        "https:///x",
        "https://a:b",
        ":a:",
        ":a://b",
    ],
)
def test_a_login_url_that_cannot_be_used_is_refused_without_being_quoted(login_url: Any) -> None:
    with pytest.raises(ConfigurationError, match="login_url") as caught:
        SessionTokenAuth(LOGIN, PASSWORD, login_url=login_url)
    assert "word" not in str(caught.value)
    assert caught.value.__context__ is None


@settings(deadline=None)
@given(
    st.text(max_size=20)
    | st.from_regex(r"(https?:)?(//)?[xn\-.\[\]:@%0-9a-f]{0,12}(/.{0,4})?", fullmatch=True)
)
def test_a_login_url_is_refused_or_can_be_joined_and_sent(login_url: str) -> None:
    try:
        auth = SessionTokenAuth(LOGIN, PASSWORD, login_url=login_url)
    except ConfigurationError:
        return
    request = auth._login_request(httpx.Request("GET", "https://printos.test/devices"))
    assert request.url.scheme in {"http", "https"}
    assert request.url.host


async def test_session_token_auth_works_in_any_async_httpx_client(token_sandbox: Sandbox) -> None:
    async with httpx.AsyncClient(base_url=token_sandbox.url, auth=SessionTokenAuth(LOGIN, PASSWORD)) as http:
        assert (await http.get("/devices")).status_code == 200
        token_sandbox.expire_tokens()
        assert (await http.get("/devices")).status_code == 200
    assert token_sandbox.logins_count == 2


def test_session_token_auth_refuses_a_synchronous_client() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200))
    auth = SessionTokenAuth(LOGIN, PASSWORD)
    with (
        httpx.Client(transport=transport, auth=auth) as http,
        pytest.raises(ConfigurationError, match="AsyncClient"),
    ):
        http.get("https://printos.test/")


async def test_any_httpx_auth_is_driven_through_its_flow(sandbox: Sandbox) -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return httpx.Response(200, json={"devices": []})

    transport = httpx.MockTransport(answer)
    auth = httpx.BasicAuth("user", "password")
    async with PrintOSClient(sandbox.url, auth=auth, transport=transport) as client:
        assert await client.list_devices() == []
    assert seen == ["Basic dXNlcjpwYXNzd29yZA=="]


def test_no_secret_in_any_repr() -> None:
    for auth in (HmacAuth(KEY, SECRET), SessionTokenAuth(LOGIN, PASSWORD)):
        client = PrintOSClient("https://printos.test", auth=auth)
        for text in (repr(auth), repr(client)):
            assert SECRET not in text
            assert PASSWORD not in text
            assert KEY not in text

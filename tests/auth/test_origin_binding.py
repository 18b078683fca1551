"""In other httpx clients, which may follow redirects, credentials stay at the origin of the first request."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from printos_async import ConfigurationError, HmacAuth, PrintOSClient, SessionTokenAuth, StatusError
from printos_async._auth.login_response import TOKEN_HEADER
from printos_async._auth.session_token import DEFAULT_LOGIN_URL
from printos_async.sandbox import Sandbox
from tests.conftest import KEY, SECRET, status
from tests.transport.scripted import ScriptedServer

from .host import CheckingHost

if TYPE_CHECKING:
    from tests.transport.scripted import Handler, Peer

LOGIN, PASSWORD, TOKEN = "press-hall-3", "correct horse", "token-of-the-session"
CREDENTIALS = (SECRET, PASSWORD, TOKEN)
HEADERS = {"x-hp-hmac-authentication", TOKEN_HEADER.lower()}


def redirecting(code: int, to: ScriptedServer, *, login: bool = False) -> Handler:
    """Answer with a redirect to the same path of another server; a login with a token unless it is redirected too."""

    async def handle(peer: Peer) -> None:
        while request := await peer.read_request():
            if request.target == DEFAULT_LOGIN_URL and not login:
                await peer.send(token_answer())
            else:
                location = f"{to.origin}{request.target}".encode()
                await peer.send(
                    b"HTTP/1.1 %d x\r\nlocation: %s\r\ncontent-length: 0\r\n\r\n" % (code, location)
                )

    return handle


def token_answer() -> bytes:
    body = json.dumps({"authToken": TOKEN}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


async def generous(peer: Peer) -> None:
    """Answer everything, logins included."""
    while await peer.read_request():
        await peer.send(token_answer())


def auth_of(scheme: str) -> httpx.Auth:
    return HmacAuth(KEY, SECRET) if scheme == "HMAC" else SessionTokenAuth(LOGIN, PASSWORD)


def assert_got_no_credentials(server: ScriptedServer) -> None:
    for request in server.requests:
        assert not HEADERS & request.headers.keys()
        text = f"{request.target} {request.headers} {request.body!r}"
        assert [one for one in CREDENTIALS if one in text] == []


@pytest.mark.parametrize("scheme", ["HMAC", "session"])
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_credentials_do_not_follow_a_redirect_to_another_origin(code: int, scheme: str) -> None:
    async with (
        ScriptedServer(generous) as other,
        ScriptedServer(redirecting(code, other)) as server,
        httpx.AsyncClient(auth=auth_of(scheme), follow_redirects=True) as http,
    ):
        with pytest.raises(ConfigurationError, match="redirects to another origin"):
            await http.put(f"{server.origin}/devices/dev-1/status", json={"status": "DS_ON"})
    assert_got_no_credentials(other)


async def test_a_signature_does_not_follow_a_redirect_of_a_synchronous_client_either() -> None:
    def call(url: str) -> None:
        with httpx.Client(auth=HmacAuth(KEY, SECRET), follow_redirects=True) as http:
            http.get(url)

    async with ScriptedServer(generous) as other, ScriptedServer(redirecting(307, other)) as server:
        with pytest.raises(ConfigurationError, match="redirects to another origin"):
            await asyncio.to_thread(call, f"{server.origin}/devices")
    assert_got_no_credentials(other)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_password_does_not_follow_a_redirect_and_no_token_comes_from_there(code: int) -> None:
    async with (
        ScriptedServer(generous) as other,
        ScriptedServer(redirecting(code, other, login=True)) as server,
    ):
        auth = SessionTokenAuth(LOGIN, PASSWORD)
        async with httpx.AsyncClient(auth=auth, follow_redirects=True) as http:
            # 307 and 308 repeat the body, which is refused on the way; the others ask for another login page.
            with pytest.raises((ConfigurationError, StatusError), match="login was"):
                await http.get(f"{server.origin}/devices")
    assert auth.headers("GET", "/devices") is None
    assert TOKEN not in auth.secrets()
    assert_got_no_credentials(other)


@pytest.mark.parametrize("scheme", ["HMAC", "session"])
async def test_a_redirect_within_the_origin_is_followed(scheme: str) -> None:
    async def handle(peer: Peer) -> None:
        while request := await peer.read_request():
            moved = b"HTTP/1.1 307 x\r\nlocation: /v2/devices\r\ncontent-length: 0\r\n\r\n"
            await peer.send(moved if request.target == "/devices" else token_answer())

    async with (
        ScriptedServer(handle) as server,
        httpx.AsyncClient(auth=auth_of(scheme), follow_redirects=True) as http,
    ):
        response = await http.get(f"{server.origin}/devices")
    assert (response.status_code, response.url.path) == (200, "/v2/devices")
    assert HEADERS & server.requests[-1].headers.keys()


@pytest.mark.parametrize("scheme", ["HMAC", "session"])
async def test_a_request_to_another_origin_than_the_first_one_is_refused(scheme: str) -> None:
    async with (
        ScriptedServer(generous) as other,
        ScriptedServer(generous) as server,
        httpx.AsyncClient(auth=auth_of(scheme)) as http,
    ):
        await http.get(f"{server.origin}/devices")
        with pytest.raises(ConfigurationError, match="these credentials go to"):
            await http.get(f"{other.origin}/devices")
        assert (await http.get(f"{server.origin}/other")).status_code == 200
    assert other.requests == []


async def test_a_trace_of_the_callers_own_is_called_as_before() -> None:
    events: list[str] = []

    async def trace(event: str, info: Any) -> None:
        events.append(event)

    async with ScriptedServer(generous) as server, httpx.AsyncClient(auth=HmacAuth(KEY, SECRET)) as http:
        await http.get(f"{server.origin}/devices", extensions={"trace": trace})
    assert "http11.send_request_headers.started" in events


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_requests_through_a_proxy_are_not_taken_for_redirects(host: str) -> None:
    async with ScriptedServer(generous) as proxy:
        transport = httpx.AsyncHTTPTransport(proxy=str(proxy.origin))
        async with httpx.AsyncClient(auth=HmacAuth(KEY, SECRET), transport=transport) as http:
            netloc = f"[{host}]" if ":" in host else host
            assert (await http.get(f"http://{netloc}:9/devices")).status_code == 200
    [request] = proxy.requests
    assert HEADERS & request.headers.keys()


@pytest.mark.parametrize("scheme", ["HMAC", "session"])
async def test_clients_of_different_base_urls_share_an_auth(scheme: str) -> None:
    settings: dict[str, Any] = (
        {"hmac_keys": {KEY: SECRET}} if scheme == "HMAC" else {"logins": {LOGIN: PASSWORD}}
    )
    auth = auth_of(scheme)
    async with Sandbox(**settings) as first, Sandbox(**settings) as second:
        for _ in range(2):
            for sandbox in (first, second):
                sandbox.add_device("dev-1")
                async with PrintOSClient(sandbox.url, auth=auth) as client:
                    await client.update_device_status("dev-1", status())
    assert (first.applied_count, second.applied_count) == (2, 2)


async def test_each_client_that_shares_an_auth_gets_its_rotated_secret() -> None:
    secret = "secret-of-yesterday"
    auth = HmacAuth(KEY, lambda: secret)
    hosts = CheckingHost(), CheckingHost()
    async with (
        ScriptedServer(hosts[0].handle) as first,
        ScriptedServer(hosts[1].handle) as second,
        PrintOSClient(f"{first.origin}", auth=auth) as one,
        PrintOSClient(f"{second.origin}", auth=auth) as other,
    ):
        for number, refused in enumerate((one, other, one)):
            secret = f"secret-{number}"
            for host in hosts:
                host.keys[KEY] = secret
            await refused.update_device_status("dev-1", status())
    assert [host.applied["dev-1"] for host in hosts] == [2, 1]

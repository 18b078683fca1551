"""Credentials in clients of httpx2, httpx2's own in the client, and a process without httpx2."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import httpx2
import pytest

from printos_async import ConfigurationError, HmacAuth, PrintOSClient, SessionTokenAuth, StatusError
from printos_async.sandbox import Sandbox
from tests.conftest import KEY, SECRET, status
from tests.transport.scripted import ScriptedServer

from .test_origin_binding import (
    LOGIN,
    PASSWORD,
    TOKEN,
    assert_got_no_credentials,
    generous,
    redirecting,
    token_answer,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.transport.scripted import Peer

SCHEMES = pytest.mark.parametrize("scheme", ["HMAC", "session"])


def auth_of(scheme: str) -> HmacAuth | SessionTokenAuth:
    return HmacAuth(KEY, SECRET) if scheme == "HMAC" else SessionTokenAuth(LOGIN, PASSWORD)


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        yield caplog


async def test_hmac_signs_the_requests_of_both_clients_of_httpx2(sandbox: Sandbox) -> None:
    auth = HmacAuth(KEY, SECRET)
    async with httpx2.AsyncClient(base_url=sandbox.url, auth=auth) as http:
        assert (await http.get("/devices")).status_code == 200
    signed: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        signed.append(request)
        return httpx2.Response(200)

    with httpx2.Client(transport=httpx2.MockTransport(answer), auth=HmacAuth(KEY, SECRET)) as blocking:
        blocking.get("https://printos.test/devices")
    assert signed[0].headers["x-hp-hmac-authentication"].startswith(f"{KEY}:")


async def test_a_session_logs_in_and_again_after_a_401_in_a_client_of_httpx2() -> None:
    async with (
        Sandbox(logins={LOGIN: PASSWORD}) as sandbox,
        httpx2.AsyncClient(base_url=sandbox.url, auth=SessionTokenAuth(LOGIN, PASSWORD)) as http,
    ):
        assert (await http.get("/devices")).status_code == 200
        sandbox.expire_tokens()
        assert (await http.get("/devices")).status_code == 200
        assert sandbox.logins_count == 2


@SCHEMES
async def test_credentials_do_not_follow_a_redirect_of_httpx2_to_another_origin(scheme: str) -> None:
    async with (
        ScriptedServer(generous) as other,
        ScriptedServer(redirecting(307, other)) as server,
        httpx2.AsyncClient(auth=auth_of(scheme), follow_redirects=True) as http,
    ):
        with pytest.raises(ConfigurationError, match="redirects to another origin"):
            await http.put(f"{server.origin}/devices/dev-1/status", json={"status": "DS_ON"})
    assert_got_no_credentials(other)


@pytest.mark.parametrize("code", [302, 307])
async def test_a_password_does_not_follow_a_redirect_of_httpx2(code: int) -> None:
    async with (
        ScriptedServer(generous) as other,
        ScriptedServer(redirecting(code, other, login=True)) as server,
        httpx2.AsyncClient(auth=SessionTokenAuth(LOGIN, PASSWORD), follow_redirects=True) as http,
    ):
        with pytest.raises((ConfigurationError, StatusError), match="login was"):
            await http.get(f"{server.origin}/devices")
    assert_got_no_credentials(other)


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
@pytest.mark.parametrize("by", ["client", "transport"])
async def test_what_the_libraries_log_holds_no_credentials(
    logs: pytest.LogCaptureFixture, library: str, by: str
) -> None:
    async def handle(peer: Peer) -> None:
        while await peer.read_request():
            head, _, body = token_answer().partition(b"\r\n\r\n")
            await peer.send(b"%s\r\nset-cookie: t=%s\r\n\r\n%s" % (head, TOKEN.encode(), body))

    for scheme in ("HMAC", "session"):
        async with ScriptedServer(handle) as server:
            url = str(server.origin)
            if by == "transport":
                make = httpx.AsyncHTTPTransport if library == "httpx" else httpx2.AsyncHTTPTransport
                async with (
                    make() as transport,
                    PrintOSClient(url, auth=auth_of(scheme), transport=transport) as client,
                ):
                    await client.update_device_status("dev-1", status())
            elif library == "httpx":
                async with httpx.AsyncClient(auth=auth_of(scheme)) as http:
                    await http.get(f"{url}/devices")
            else:
                async with httpx2.AsyncClient(auth=auth_of(scheme)) as successor:
                    await successor.get(f"{url}/devices")
    spoken = [record for record in logs.records if record.name.startswith("httpcore")]
    assert {record.name for record in spoken} >= {f"httpcore{library[5:]}.http11"}
    assert any("withheld" in record.getMessage() for record in spoken)
    for record in logs.records:
        text = f"{record.getMessage()} {record.args!r}"
        assert [secret for secret in (SECRET, PASSWORD, TOKEN) if secret in text] == []


@pytest.mark.parametrize("name", ["httpcore.socks", "httpcore2.socks"])
async def test_the_password_of_a_socks_proxy_is_not_logged(logs: pytest.LogCaptureFixture, name: str) -> None:
    async with PrintOSClient(
        "http://127.0.0.1:1", auth=None, transport=httpx.MockTransport(lambda _: httpx.Response(204))
    ) as client:
        await client.update_device_status("dev-1", status())
    # As both write it; socksio, which they need for more, is not installed here.
    said = f"setup_socks5_connection.started host='a' auth=(b'user', b'{PASSWORD}')"
    logging.getLogger(name).debug(said)
    [record] = (record for record in logs.records if record.name == name)
    assert PASSWORD not in record.getMessage()


async def test_an_auth_of_httpx2_is_driven_through_its_flow() -> None:
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization", "").partition(" ")[0])
        if seen[-1]:
            return httpx.Response(200, json={"devices": []})
        return httpx.Response(401, headers={"www-authenticate": 'Digest realm="r", nonce="n", qop="auth"'})

    for auth in (httpx2.BasicAuth("user", "password"), httpx2.DigestAuth("user", "password")):
        async with PrintOSClient(
            "https://printos.test", auth=auth, transport=httpx.MockTransport(answer)
        ) as client:
            assert await client.list_devices() == []
    assert seen == ["Basic", "", "Digest"]


def test_everything_works_without_httpx2() -> None:
    script = """
import asyncio, sys
sys.modules["httpx2"] = None  # as if it was not installed
import httpx
from printos_async import ConfigurationError, HmacAuth, PrintOSClient, SessionTokenAuth

async def main():
    answer = httpx.Response(200, json={"devices": []})
    async with httpx.AsyncHTTPTransport() as transport:
        for auth in (HmacAuth("key", "secret"), SessionTokenAuth("login", "password")):
            assert isinstance(auth, httpx.Auth)
            PrintOSClient(auth=auth, transport=transport)
    transport = httpx.MockTransport(lambda _: answer)
    async with PrintOSClient(auth=HmacAuth("key", "secret"), transport=transport) as client:
        assert await client.list_devices() == []
    for wrong in ({"auth": object()}, {"auth": None, "transport": object()}):
        try:
            PrintOSClient(**wrong)
        except ConfigurationError:
            continue
        raise AssertionError(wrong)

asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")

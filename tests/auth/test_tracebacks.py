"""Tracebacks that show the values of locals, as those of rich, Sentry and cgitb do, show no credentials."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from printos_async import (
    ConfigurationError,
    DeviceCredentials,
    DeviceStatusUpdate,
    HmacAuth,
    PrintOSClient,
    RetryPolicy,
    SessionTokenAuth,
)
from printos_async._auth.hmac import keyed, sign
from printos_async._config import auth_from_env
from tests.transport.scripted import ScriptedServer

from .tracebacks import assert_hidden_in_traceback, failures

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.transport.scripted import Handler, Peer

SECRET, PASSWORD, TOKEN = "s3cr3t-of-the-key", "c0rrect-h0rse", "t0ken-0f-the-session"
NOW_S = 1705322096.789
SIGNATURES = [
    sign(keyed(SECRET.encode()), method, path, "2024-01-15T12:34:56.789Z")
    for method, path in (("PUT", "/devices/dev-1/status"), ("GET", "/devices"))
]
CREDENTIALS = (SECRET, PASSWORD, TOKEN, *SIGNATURES)
ON = DeviceStatusUpdate(status="DS_ON")


def answering(status: int, body: bytes = b"", *, login: int = 200) -> Handler:
    async def handle(peer: Peer) -> None:
        while request := await peer.read_request():
            is_login = request.target.endswith("/login")
            code = login if is_login else status
            sent = json.dumps({"authToken": TOKEN}).encode() if is_login else body
            cookie = b"set-cookie: Indigo-SmS-Auth-Token=%s\r\n" % TOKEN.encode()
            head = b"HTTP/1.1 %d x\r\n%scontent-length: %d\r\n\r\n" % (code, cookie, len(sent))
            await peer.send(head + sent)

    return handle


async def silent(peer: Peer) -> None:
    while await peer.read_request():
        pass
    await peer.gone()


async def silent_after_login(peer: Peer) -> None:
    while request := await peer.read_request():
        if request.target.endswith("/login"):
            body = json.dumps({"authToken": TOKEN}).encode()
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))


async def reset(peer: Peer) -> None:
    await peer.read_request()
    peer.reset()


STAGES: dict[str, Handler] = {
    "refused": answering(401),
    "server error": answering(500, b'{"smsError": {"message": "no"}}'),
    "no model": answering(200, b"<html>"),
    "login refused": answering(200, login=401),
    "login fails": answering(200, login=500),
    "reset": reset,
    "not HTTP": lambda peer: peer.send(b"\0\0\0\0\r\n\r\n"),
    "timeout": silent,
    "timeout after login": silent_after_login,
}


def assert_shows_no_credentials(error: BaseException) -> None:
    assert_hidden_in_traceback(error, CREDENTIALS)


def auth_of(scheme: str) -> httpx.Auth:
    if scheme == "HMAC":
        return HmacAuth("device-key", SECRET, clock=lambda: NOW_S)
    return SessionTokenAuth("login", PASSWORD)


def client_of(
    stack: AsyncExitStack, url: str, via: str, scheme: str, *, timeout_s: float = 10.0
) -> PrintOSClient:
    transport = httpx.AsyncHTTPTransport(verify=False) if via == "httpx" else None
    client = PrintOSClient(
        url,
        auth=auth_of(scheme),
        transport=transport,
        retry=RetryPolicy(max_attempts=1),
        timeout_s=timeout_s,
    )
    if transport is not None:
        stack.push_async_callback(transport.aclose)
    stack.push_async_callback(client.aclose)
    return client


@pytest.mark.parametrize("via", ["http1", "httpx"])
@pytest.mark.parametrize("scheme", ["HMAC", "session"])
@pytest.mark.parametrize("stage", STAGES)
async def test_traceback_of_a_failure_shows_no_credentials(stage: str, scheme: str, via: str) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ScriptedServer(STAGES[stage]))
        timeout_s = 0.05 if "timeout" in stage else 10.0
        client = client_of(stack, str(server.origin), via, scheme, timeout_s=timeout_s)
        raised = await failures(client.list_devices)
        raised += await failures(lambda: client.update_device_status("dev-1", ON))
        report = await client.push_statuses({"dev-1": ON})
        raised += [result.error for result in report.failures if result.error is not None]
    assert raised
    for error in raised:
        assert_shows_no_credentials(error)


@pytest.mark.parametrize("via", ["http1", "httpx"])
@pytest.mark.parametrize("scheme", ["HMAC", "session"])
async def test_traceback_of_a_failed_connection_shows_no_credentials(scheme: str, via: str) -> None:
    async with AsyncExitStack() as stack:
        async with ScriptedServer(silent) as server:
            nowhere = str(server.origin)
        client = client_of(stack, nowhere, via, scheme)
        raised = await failures(lambda: client.update_device_status("dev-1", ON))
    assert len(raised) == 2
    for error in raised:
        assert_shows_no_credentials(error)


@pytest.mark.parametrize("scheme", ["HMAC", "session"])
@pytest.mark.parametrize(
    ("stage", "via"),
    [
        ("connecting", "http1"),  # httpcore leaves the socket of a cancelled handshake open
        ("login", "http1"),
        ("login", "httpx"),
        ("answer", "http1"),
        ("answer", "httpx"),
    ],
)
async def test_traceback_of_a_cancellation_shows_no_credentials(stage: str, scheme: str, via: str) -> None:
    connected = asyncio.Semaphore(0)

    async def no_handshake(peer: Peer) -> None:
        connected.release()
        await peer.gone()

    handler = {"connecting": no_handshake, "login": silent, "answer": silent_after_login}[stage]
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ScriptedServer(handler))
        url = str(server.origin)
        client = client_of(
            stack, url.replace("http:", "https:") if stage == "connecting" else url, via, scheme
        )
        seen = 0

        async def under_way() -> None:
            nonlocal seen
            seen += 1
            if stage == "connecting":
                await connected.acquire()
            else:
                await server.requests_read(seen + (scheme == "session" and stage == "answer"))

        raised = await failures(lambda: client.update_device_status("dev-1", ON), cancel_when=under_way)
    assert [type(error) for error in raised] == [asyncio.CancelledError] * 2
    for error in raised:
        assert_shows_no_credentials(error)


def secret_that_fails() -> str:
    raise RuntimeError(SECRET)


async def lookup_that_fails(_: str) -> httpx.Auth:
    raise RuntimeError(PASSWORD)


AUTHS: dict[str, Callable[[], httpx.Auth]] = {
    "keys": lambda: DeviceCredentials(lambda _: auth_of("HMAC"), default=auth_of("HMAC")),
    "logins": lambda: DeviceCredentials({"dev-1": auth_of("session")}, default=auth_of("session")),
    "lookup fails": lambda: DeviceCredentials(lookup_that_fails),
    "secret": lambda: HmacAuth("device-key", lambda: SECRET, clock=lambda: NOW_S),
    "secret fails": lambda: HmacAuth("device-key", secret_that_fails),
    "password": lambda: SessionTokenAuth("login", lambda: PASSWORD),
    "password fails": lambda: SessionTokenAuth("login", secret_that_fails),
}


@pytest.mark.parametrize("stage", ["refused", "login refused", "reset"])
@pytest.mark.parametrize("kind", AUTHS)
async def test_traceback_with_functions_and_device_credentials_shows_no_credentials(
    kind: str, stage: str
) -> None:
    async with (
        ScriptedServer(STAGES[stage]) as server,
        PrintOSClient(str(server.origin), auth=AUTHS[kind](), retry=RetryPolicy(max_attempts=1)) as client,
    ):
        raised = await failures(client.list_devices)
        raised += await failures(lambda: client.update_device_status("dev-1", ON))
        report = await client.push_statuses({"dev-1": ON})
        raised += [result.error for result in report.failures if result.error is not None]
        if kind in {"secret fails", "password fails"}:
            raised += await failures(refresh(client))
    assert raised
    for error in raised:
        assert_shows_no_credentials(error)


def refresh(client: PrintOSClient) -> Callable[[], Any]:
    async def call() -> None:
        client.refresh_credentials()

    return call


@pytest.mark.parametrize("status", [401, 500])
async def test_traceback_from_another_httpx_client_shows_no_credentials(status: int) -> None:
    async with (
        ScriptedServer(answering(200, login=status)) as server,
        httpx.AsyncClient(auth=auth_of("session")) as http,
    ):
        raised = await failures(lambda: http.get(f"{server.origin}/devices"))
    assert len(raised) == 2
    for error in raised:
        assert_shows_no_credentials(error)


@pytest.mark.parametrize(
    "make",
    [
        lambda: HmacAuth("a:b", SECRET),
        lambda: HmacAuth("a", f"{SECRET}\ud800"),
        lambda: SessionTokenAuth("", PASSWORD),
        lambda: SessionTokenAuth("a", f"{PASSWORD}\ud800"),
        lambda: SessionTokenAuth("a", PASSWORD, login_url="https://xn--/"),
        lambda: SessionTokenAuth("a", PASSWORD, login_url=f"https://a:{PASSWORD}@host/"),
        lambda: auth_from_env({"PRINTOS_KEY": "a:b", "PRINTOS_SECRET": SECRET}),
        lambda: auth_from_env({"PRINTOS_SECRET": SECRET}),
        lambda: auth_from_env({"PRINTOS_SECRET": SECRET, "PRINTOS_PASSWORD": PASSWORD}),
    ],
    ids=["key", "secret", "login", "password", "URL", "URL with a password", "variables", "half", "both"],
)
def test_traceback_of_credentials_that_are_refused_does_not_show_them(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert_shows_no_credentials(caught.value)

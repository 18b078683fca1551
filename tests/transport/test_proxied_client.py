"""A client behind a proxy: its errors, what it repeats, and that the password is nowhere."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from printos_async import (
    AccountHeld,
    APIError,
    CircuitChanged,
    ConfigurationError,
    DeviceStatusUpdate,
    Event,
    HmacAuth,
    PrintOSClient,
    ProxyError,
    RequestTimeoutError,
    RetryPolicy,
    SessionTokenAuth,
    StatusError,
    TransportError,
)
from tests.auth.tracebacks import assert_hidden_in_traceback, failures

from .listener import reset
from .proxy import CREDENTIALS, PASSWORD, URL_CREDENTIALS, ConnectProxy, refuse
from .scripted import ScriptedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .conftest import Tls
    from .proxy import Script
    from .scripted import Peer

ON = DeviceStatusUpdate(status="DS_ON")
SHOWN_NOWHERE = (PASSWORD, CREDENTIALS, URL_CREDENTIALS.partition(":")[2])
DEVICE = {"id": "dev-1", "model": "Indigo 12000", "serialNumber": "SN-1", "location": "Hall 3"}


async def printos(peer: Peer) -> None:
    """Accept everything."""
    while request := await peer.read_request():
        body = json.dumps(DEVICE if request.method == "POST" else {"devices": []}).encode()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def serve(stack: AsyncExitStack, tls: Tls | None) -> ScriptedServer:
    return await stack.enter_async_context(ScriptedServer(printos, tls.server if tls else None))


async def client_of(
    stack: AsyncExitStack, server: ScriptedServer, proxy: str, tls: Tls, **settings: Any
) -> PrintOSClient:
    settings = {"retry": RetryPolicy(max_attempts=3, base_delay_s=0.001, max_delay_s=0.01), **settings}
    client = PrintOSClient(
        str(server.origin),
        **{"auth": HmacAuth("key", "secret-of-the-key"), "verify": tls.client, "proxy": proxy, **settings},
    )
    return await stack.enter_async_context(client)


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def forbid(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    refuse(writer, 407)


async def away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    refuse(writer, 502)


async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    reset(writer)


async def refusing_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\nno tls here")
    await reader.read()


FAULTS: dict[str, tuple[Script, type[TransportError], int | None]] = {
    "407": (forbid, ProxyError, 407),
    "502": (away, ProxyError, 502),
    "reset": (broken, ProxyError, None),
    "hang": (hang, RequestTimeoutError, None),
    "no tunnel": (refusing_tls, ProxyError, None),
}


@pytest.mark.parametrize("scheme", ["HMAC", "session"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_failure_of_the_proxy_is_typed_and_shows_no_password(
    stack: AsyncExitStack, tls: Tls, fault: str, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    script, kind, status = FAULTS[fault]
    server = await serve(stack, tls)
    proxy = await stack.enter_async_context(ConnectProxy(authenticates=True, script=script))
    auth = HmacAuth("key", "secret-of-the-key") if scheme == "HMAC" else SessionTokenAuth("login", "word-1")
    client = await client_of(
        stack,
        server,
        proxy.url,
        tls,
        auth=auth,
        timeout_s=0.05 if fault == "hang" else 10.0,
        retry=RetryPolicy(max_attempts=1),
    )
    raised = await failures(lambda: client.update_device_status("dev-1", ON))
    raised += await failures(lambda: client.provision_device(model="m", serial_number="s", location="l"))
    assert len(raised) == 4
    for error in raised:
        assert type(error) is kind
        assert isinstance(error, TransportError)
        assert error.may_have_arrived is False
        assert f"http://127.0.0.1:{proxy.port}" in str(error)
        if isinstance(error, ProxyError):
            assert error.status == status
        assert_hidden_in_traceback(error, SHOWN_NOWHERE)
    assert server.connections == 0
    shown = caplog.text + repr(client)
    assert [secret for secret in SHOWN_NOWHERE if secret in shown] == []


AUTHS = {"ready": HmacAuth("key", "secret-of-the-key"), "flow": httpx.BasicAuth("login", "word-1")}


@pytest.mark.parametrize("how", AUTHS)
async def test_proxy_that_quotes_the_request_shows_no_password(
    stack: AsyncExitStack, tls: Tls, how: str
) -> None:
    async def quote(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = json.dumps({"smsError": {"message": f"{PASSWORD} {proxy.heads[-1]}"}, "url": proxy.url})
        head = f"HTTP/1.1 400 No\r\nx-request-id: {CREDENTIALS}\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write((head + body).encode())

    server = await serve(stack, None)
    proxy = await stack.enter_async_context(ConnectProxy(authenticates=True, script=quote))
    client = await client_of(stack, server, proxy.url, tls, auth=AUTHS[how])
    raised = await failures(lambda: client.update_device_status("dev-1", ON))
    for error in raised:
        assert isinstance(error, StatusError)
        assert f"proxy-authorization: Basic {CREDENTIALS}" in proxy.heads[-1]
        assert "proxy-authorization: Basic [redacted]" in error.body
        assert error.body.endswith(f'"http://press:[redacted]@127.0.0.1:{proxy.port}"}}')
        assert error.request_id == "[redacted]"
        shown = f"{error} {error.body}"
        assert [secret for secret in SHOWN_NOWHERE if secret in shown] == []
        assert_hidden_in_traceback(error, SHOWN_NOWHERE)
    assert raised


@pytest.mark.parametrize("secure", [True, False], ids=["tunnel", "absolute-form"])
async def test_wrong_password_is_tried_once_by_calls(
    stack: AsyncExitStack,
    tls: Tls,
    secure: bool,  # noqa: FBT001
) -> None:
    server = await serve(stack, tls if secure else None)
    proxy = await stack.enter_async_context(ConnectProxy(authenticates=True))
    client = await client_of(stack, server, proxy.url.replace(URL_CREDENTIALS, "press:wrong"), tls)
    with pytest.raises(ProxyError, match="check the user and the password") as caught:
        await client.update_device_status("dev-1", ON)
    assert (caught.value.status, caught.value.attempts, caught.value.may_have_arrived) == (407, 1, False)
    report = await client.push_statuses({"dev-1": ON, "dev-2": ON})
    assert [type(result.error) for result in report.failures] == [ProxyError] * 2
    assert len(proxy.heads) == 3
    assert server.requests == []


async def test_pusher_keeps_what_waits_while_the_proxy_refuses(stack: AsyncExitStack, tls: Tls) -> None:
    server = await serve(stack, tls)
    proxy = await stack.enter_async_context(ConnectProxy(script=forbid))
    held = asyncio.Event()
    events: list[Event] = []

    def watch(event: Event) -> None:
        events.append(event)
        if isinstance(event, AccountHeld):
            held.set()

    client = await client_of(stack, server, proxy.url, tls, hooks=[watch])
    async with client.status_pusher() as pusher:
        for number in range(5):
            await pusher.put(f"dev-{number}", ON)
        await held.wait()
        proxy.script = None
        client.refresh_credentials()  # probes now
        await pusher.drain(10)
        stats = pusher.stats()
    assert (stats.sent, stats.failed) == (5, 0)
    assert not any(isinstance(event, CircuitChanged) for event in events)
    assert len(server.requests) == 5


async def test_registration_is_sent_once_when_the_proxy_fails_first(stack: AsyncExitStack, tls: Tls) -> None:
    server = await serve(stack, tls)
    proxy = await stack.enter_async_context(ConnectProxy())
    faults = [away, broken]

    async def then_well(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = faults.pop(0)
        if not faults:
            proxy.script = None
        await script(reader, writer)

    proxy.script = then_well
    client = await client_of(stack, server, proxy.url, tls)
    device = await client.provision_device(model="Indigo 12000", serial_number="SN-1", location="Hall 3")
    assert device.id == "dev-1"
    assert [request.method for request in server.requests] == ["POST"]
    assert len(proxy.heads) == 3


async def test_registration_is_not_sent_again_when_the_tunnel_is_cut(stack: AsyncExitStack, tls: Tls) -> None:
    server = await serve(stack, tls)
    read = asyncio.Event()

    async def read_only(peer: Peer) -> None:
        await peer.read_request()
        read.set()
        await peer.gone()

    server.handler = read_only
    proxy = await stack.enter_async_context(ConnectProxy())
    client = await client_of(stack, server, proxy.url, tls)
    call = asyncio.create_task(
        client.provision_device(model="Indigo 12000", serial_number="SN-1", location="Hall 3")
    )
    await read.wait()
    proxy.cut()
    with pytest.raises(APIError) as caught:
        await call
    assert isinstance(caught.value, TransportError)
    assert caught.value.may_have_arrived is True
    assert len(server.requests) == 1


async def test_context_function_is_asked_for_each_connection(stack: AsyncExitStack, tls: Tls) -> None:
    server = await serve(stack, tls)
    asked = 0

    def context() -> Any:
        nonlocal asked
        asked += 1
        return tls.client

    client = await client_of(
        stack, server, (await stack.enter_async_context(ConnectProxy())).url, tls, verify=context
    )
    await client.list_devices()
    await client.list_devices()
    assert asked == 1
    report = await client.push_statuses({f"dev-{number}": ON for number in range(3)})
    report.raise_for_failures()
    assert asked == server.connections == 3


async def test_context_function_that_returns_no_context_is_a_wrong_setting(
    stack: AsyncExitStack, tls: Tls
) -> None:
    server = await serve(stack, tls)
    returned: Any = None
    async with PrintOSClient(str(server.origin), auth=None, verify=lambda: returned) as client:
        with pytest.raises(ConfigurationError, match=r"must be ssl\.SSLContext"):
            await client.list_devices()


async def test_client_from_the_environment_goes_through_its_proxy(
    stack: AsyncExitStack, tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await serve(stack, None)
    proxy = await stack.enter_async_context(ConnectProxy(authenticates=True))
    monkeypatch.setenv("PRINTOS_BASE_URL", str(server.origin))
    monkeypatch.setenv("PRINTOS_KEY", "key")
    monkeypatch.setenv("PRINTOS_SECRET", "secret-of-the-key")
    monkeypatch.setenv("PRINTOS_PROXY", proxy.url)
    for name in ("PRINTOS_LOGIN", "PRINTOS_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    async with PrintOSClient.from_env() as client:
        assert await client.list_devices() == []
    assert len(proxy.heads) == len(server.requests) == 1

"""The default transport behind a proxy: what it asks for, what it reuses, and what it knows when that fails."""

from __future__ import annotations

import asyncio
import math
import ssl
from typing import TYPE_CHECKING

import pytest
from attrs import define

from printos_async._transport import (
    ExchangeError,
    Http1Transport,
    Proxy,
    ProxyExchangeError,
    RawRequest,
    RawResponse,
)
from printos_async._transport.connection import Connection
from printos_async._transport.proxy_url import ProxyUrl

from .listener import reset
from .proxy import CREDENTIALS, ConnectProxy, refuse
from .scripted import OK, ScriptedServer, always

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from .conftest import Tls
    from .proxy import Script
    from .scripted import Peer


@pytest.fixture
async def server(secure: bool, tls: Tls) -> AsyncIterator[ScriptedServer]:  # noqa: FBT001
    async with ScriptedServer(always(OK), tls.server if secure else None) as server:
        yield server


@pytest.fixture
async def secure_server(tls: Tls) -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer(always(OK), tls.server) as server:
        yield server


@define
class Wire:
    """A transport behind a proxy."""

    transport: Http1Transport

    async def send(
        self, server: ScriptedServer, *, method: str = "PUT", timeout_s: float = 10.0
    ) -> RawResponse:
        deadline = asyncio.get_running_loop().time() + timeout_s
        request = RawRequest(server.origin, method, "/devices/a/status", (("x-a", "1"),), b"{}")
        return await self.transport.send(request, deadline=deadline, max_body_bytes=1 << 20)


def parsed(url: str) -> Proxy:
    proxy = ProxyUrl(url).parse()
    assert proxy is not None
    return proxy


@pytest.fixture
async def wire_to(tls: Tls) -> AsyncIterator[Callable[[str], Wire]]:
    wires: list[Wire] = []

    def make(url: str) -> Wire:
        wires.append(Wire(Http1Transport(make_ssl_context=lambda: tls.client, proxy=parsed(url))))
        return wires[-1]

    yield make
    for wire in wires:
        await wire.transport.aclose()


@pytest.mark.parametrize("proxy_tls", [False, True], ids=["http-proxy", "https-proxy"])
async def test_proxy_with_credentials_carries_requests_over_one_connection(
    server: ScriptedServer,
    wire_to: Callable[[str], Wire],
    tls: Tls,
    proxy_tls: bool,  # noqa: FBT001
) -> None:
    async with ConnectProxy(authenticates=True, tls=tls.server if proxy_tls else None) as proxy:
        wire = wire_to(proxy.url)
        for _ in range(3):
            assert (await wire.send(server)).body == b"ok"
        await wire.transport.aclose()
    assert proxy.connections == server.connections == 1
    assert (
        [request.target for request in server.requests] == ["/devices/a/status"] * 3 if server.tls else True
    )
    assert "proxy-authorization" not in server.requests[0].headers
    host = f"127.0.0.1:{server.origin.port}"
    first, *headers = proxy.heads[0].split("\r\n")[:-2]
    if server.tls:
        assert (first, *headers) == (
            f"CONNECT {host} HTTP/1.1",
            f"host: {host}",
            f"proxy-authorization: Basic {CREDENTIALS}",
        )
    else:
        assert first == f"PUT http://{host}/devices/a/status HTTP/1.1"
        assert f"host: {host}" in headers


async def test_32_in_flight_use_32_tunnels_again_and_again(
    secure_server: ScriptedServer, wire_to: Callable[[str], Wire]
) -> None:
    all_in = asyncio.Event()

    async def together(peer: Peer) -> None:
        while await peer.read_request():
            if len(secure_server.requests) >= 32:
                all_in.set()
            await all_in.wait()
            await peer.send(OK)

    secure_server.handler = together
    async with ConnectProxy() as proxy:
        wire = wire_to(proxy.url)
        for _ in range(4):
            await asyncio.gather(*(wire.send(secure_server) for _ in range(32)))
        assert proxy.tunnels == secure_server.connections == 32
        assert len(secure_server.requests) == 4 * 32
        await wire.transport.aclose()


def sending(*parts: bytes) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
        await writer.drain()
        await reader.read()

    return script


async def reset_it(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    reset(writer)


async def close_it(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def close_in_the_handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    await reader.read(1)


async def reset_in_the_handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await close_in_the_handshake(reader, writer)
    reset(writer)


def refusing(status: int, headers: bytes = b"") -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        refuse(writer, status, headers)
        await reader.read()

    return script


TOO_LONG = b"HTTP/1.1 200 OK\r\n" + b"x: %s\r\n" % (b"y" * 1000) * 70
FAULTS: dict[str, tuple[Script, str, int | None]] = {
    "407": (refusing(407), "refuses its credentials (407)", 407),
    "NTLM": (
        refusing(407, b"proxy-authenticate: NTLM\r\nproxy-authenticate: Negotiate abc\r\n"),
        "of the kind NTLM, Negotiate (407); only Basic",
        407,
    ),
    "NTLM in one line": (
        refusing(407, b'proxy-authenticate: NTLM, Digest realm="a, Basic b", qop="auth", Negotiate YQ==\r\n'),
        "of the kind Digest, NTLM, Negotiate (407); only Basic",
        407,
    ),
    "Basic in one line": (
        refusing(407, b'proxy-authenticate: Negotiate, Basic realm = "x", charset="UTF-8"\r\n'),
        "refuses its credentials (407)",
        407,
    ),
    "bare LF": (
        sending(b"HTTP/1.0 403 Forbidden\ncontent-type: text/html\n\n<html>"),
        "does not allow connections to 127.0.0.1:",
        403,
    ),
    "bare LF in part": (
        sending(b"HTTP/1.0 407 No\r\nproxy-authenticate: NTLM\n\r\n"),
        "of the kind NTLM (407); only Basic",
        407,
    ),
    "403": (refusing(403), "does not allow connections to 127.0.0.1:", 403),
    "502": (refusing(502), "cannot reach 127.0.0.1:", 502),
    "503": (refusing(503), "cannot reach 127.0.0.1:", 503),
    "418": (refusing(418), "refuses to connect", 418),
    "302": (refusing(302, b"location: http://login.invalid/\r\n"), "refuses to connect", 302),
    "reset": (reset_it, "ended the connection instead of answering CONNECT", None),
    "close": (close_it, "ended the connection instead of answering CONNECT", None),
    "garbage": (sending(b"\0\1\2\3"), "something else than HTTP", None),
    "another protocol": (sending(b"RTSP/1.0 200 OK\r\n\r\n"), "something else than HTTP", None),
    "bad header": (sending(b"HTTP/1.1 200 OK\r\n bad\0: x\r\n\r\n"), "something else than HTTP", None),
    "101": (sending(b"HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n"), "something else than HTTP", None),
    "endless head": (sending(TOO_LONG), "too long a header", None),
    "endless interim": (sending(b"HTTP/1.1 102 Processing\r\n\r\n" * 4000), "too long a header", None),
    "more": (sending(b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"), "more than an answer", None),
    "body": (sending(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"), "more than an answer", None),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_refused_tunnel_carried_nothing(
    secure_server: ScriptedServer, wire_to: Callable[[str], Wire], fault: str
) -> None:
    script, words, status = FAULTS[fault]
    async with ConnectProxy(authenticates=True, script=script) as proxy:
        wire = wire_to(proxy.url)
        with pytest.raises(ProxyExchangeError) as caught:
            await wire.send(secure_server, method="POST")
        await proxy.all_gone()  # the connection was not kept
        assert len(proxy.heads) == 1
    assert words in caught.value.reason
    assert f"http://127.0.0.1:{proxy.port}" in caught.value.reason
    assert (caught.value.may_have_arrived, caught.value.timed_out) == (False, False)
    assert caught.value.status == status
    assert CREDENTIALS not in repr(caught.value)
    assert secure_server.connections == 0


async def test_request_that_cannot_be_sent_takes_no_connection(wire_to: Callable[[str], Wire]) -> None:
    async with ConnectProxy() as proxy, ScriptedServer(always(OK)) as server:
        wire = wire_to(proxy.url)
        for _ in range(3):
            request = RawRequest(server.origin, "PUT", "/x", (("x-key", "caf\u0161"),), b"{}")
            with pytest.raises(ExchangeError, match="a character that HTTP cannot carry") as caught:
                await wire.transport.send(request, deadline=math.inf, max_body_bytes=1)
            assert not caught.value.may_have_arrived
        assert (await wire.send(server)).body == b"ok"
        assert proxy.connections == 1
        await wire.transport.aclose()
        await proxy.all_gone()


async def test_proxy_that_asks_for_credentials_says_where_they_go(
    server: ScriptedServer, wire_to: Callable[[str], Wire]
) -> None:
    async with ConnectProxy(authenticates=True) as proxy:
        wire = wire_to(f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(ProxyExchangeError, match="http://user:password@host:port") as caught:
            await wire.send(server)
        assert (caught.value.status, caught.value.may_have_arrived) == (407, False)
        await wire.transport.aclose()
    assert server.requests == []


@pytest.mark.parametrize("script", [close_in_the_handshake, reset_in_the_handshake])
async def test_tunnel_that_ends_in_the_handshake_carried_nothing(
    secure_server: ScriptedServer, wire_to: Callable[[str], Wire], script: Script
) -> None:
    async with ConnectProxy(script=script) as proxy:
        with pytest.raises(ExchangeError, match="no connection") as caught:
            await wire_to(proxy.url).send(secure_server)
        await proxy.all_gone()
    assert (caught.value.may_have_arrived, caught.value.timed_out) == (False, False)


@pytest.mark.parametrize(
    ("script", "stage"),
    [
        (sending(), "no answer of the proxy"),
        (sending(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1."), "no answer of the proxy"),
        (sending(b"HTTP/1.1 200 OK\r\n\r\n"), "no TLS connection to 127.0.0.1:"),
    ],
    ids=["silent", "half an answer", "silent tunnel"],
)
async def test_proxy_that_hangs_ends_with_the_deadline(
    secure_server: ScriptedServer, wire_to: Callable[[str], Wire], script: Script, stage: str
) -> None:
    async with ConnectProxy(script=script) as proxy:
        with pytest.raises(ExchangeError, match=stage) as caught:
            await wire_to(proxy.url).send(secure_server, timeout_s=0.1)
        await proxy.all_gone()
    assert (caught.value.may_have_arrived, caught.value.timed_out) == (False, True)


async def test_proxy_that_is_not_there_is_named(wire_to: Callable[[str], Wire]) -> None:
    async with ConnectProxy() as proxy:
        url = proxy.url
    async with ScriptedServer(always(OK)) as server:
        with pytest.raises(ProxyExchangeError, match=f"no connection to the proxy {url}") as caught:
            await wire_to(url).send(server)
    assert (caught.value.may_have_arrived, caught.value.status) == (False, None)


async def test_interim_answers_and_dribble_are_read(
    secure_server: ScriptedServer, wire_to: Callable[[str], Wire]
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in b"HTTP/1.1 102 Processing\r\nx: y\r\n\r\nHTTP/1.0 200 Fine\r\ncontent-length: 9\r\n\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        upstream, out = await asyncio.open_connection("127.0.0.1", secure_server.origin.port)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65_536):
                target.write(data)
            target.close()

        await asyncio.gather(copy(reader, out), copy(upstream, writer))

    async with ConnectProxy(script=script) as proxy:
        wire = wire_to(proxy.url)
        assert (await wire.send(secure_server)).body == b"ok"
        await wire.transport.aclose()
        await proxy.all_gone()


async def test_tunnel_cut_in_the_middle_of_an_answer_may_have_arrived(
    server: ScriptedServer, wire_to: Callable[[str], Wire]
) -> None:
    begun = asyncio.Event()

    async def half(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(OK[:-1])
        begun.set()
        await peer.gone()

    server.handler = half
    async with ConnectProxy() as proxy:
        sending_it = asyncio.create_task(wire_to(proxy.url).send(server, method="POST"))
        await begun.wait()
        proxy.cut()
        with pytest.raises(ExchangeError) as caught:
            await sending_it
        assert (caught.value.may_have_arrived, caught.value.timed_out) == (True, False)
        assert not isinstance(caught.value, ProxyExchangeError)
        assert len(server.requests) == 1  # and nothing was sent again


async def test_cancelling_in_connect_leaves_no_connection(
    secure_server: ScriptedServer, wire_to: Callable[[str], Wire]
) -> None:
    async with ConnectProxy(script=sending()) as proxy:
        task = asyncio.create_task(wire_to(proxy.url).send(secure_server))
        await proxy.read.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await proxy.all_gone()


async def test_closing_in_connect_ends_the_request(
    secure_server: ScriptedServer, wire_to: Callable[[str], Wire]
) -> None:
    async with ConnectProxy(script=sending()) as proxy:
        wire = wire_to(proxy.url)
        task = asyncio.create_task(wire.send(secure_server))
        await proxy.read.wait()
        await wire.transport.aclose()
        with pytest.raises(ExchangeError, match="the client was closed") as caught:
            await task
        assert (caught.value.may_have_arrived, caught.value.timed_out) == (False, False)
        await proxy.all_gone()


@pytest.mark.parametrize("problem", ["server", "proxy"])
async def test_refused_certificate_is_named(tls: Tls, problem: str) -> None:
    trusting_none = ssl.create_default_context()
    async with (
        ScriptedServer(always(OK), tls.server) as server,
        ConnectProxy(tls=tls.server if problem == "proxy" else None) as proxy,
    ):
        wire = Wire(Http1Transport(make_ssl_context=lambda: trusting_none, proxy=parsed(proxy.url)))
        with pytest.raises(ExchangeError, match="no trusted authority") as caught:
            await wire.send(server)
        port = proxy.port if problem == "proxy" else server.origin.port
        assert f"the certificate of 127.0.0.1:{port} is refused" in caught.value.reason
        assert isinstance(caught.value, ProxyExchangeError) == (problem == "proxy")
        assert caught.value.may_have_arrived is False
        await wire.transport.aclose()


async def test_bytes_between_handshake_and_first_request_end_the_connection(
    server: ScriptedServer, tls: Tls
) -> None:
    """asyncio hands them over before the connection has its transport."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(
        asyncio.Protocol,
        "127.0.0.1",
        server.origin.port,
        ssl=tls.client if server.tls else None,
    )
    ended: list[Connection] = []
    buffer = memoryview(bytearray(OK))
    connection = Connection(loop, buffer, ended.append, ended.append)
    connection.buffer_updated(len(OK))
    connection.connection_made(transport)
    assert not connection.usable
    assert ended == []
    await server.all_gone()

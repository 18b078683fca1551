"""Connections that cannot be made: nothing was sent, and the caller is told so."""

from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx
import pytest
import trustme

from printos_async._transport import (
    ExchangeError,
    Http1Transport,
    HttpxTransport,
    Origin,
    RawRequest,
    Transport,
)

from .scripted import OK, ScriptedServer, always

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Carrier, Serve, Tls
    from .scripted import Peer


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port that lets connections be made and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_refused_connection_carried_nothing(carrier: Carrier, closed_port: int, method: str) -> None:
    origin = Origin("https" if carrier.secure else "http", "127.0.0.1", closed_port)
    with pytest.raises(ExchangeError, match=r"no connection|ConnectError") as caught:
        await carrier.send(origin, method=method)
    assert (caught.value.may_have_arrived, caught.value.timed_out) == (False, False)


@pytest.mark.parametrize("host", ["no-such-host.invalid", ".leading.dot.invalid", "a" * 64 + ".invalid"])
async def test_host_that_is_no_name_carried_nothing(carrier: Carrier, host: str) -> None:
    with pytest.raises(ExchangeError) as caught:
        await carrier.send(Origin("https" if carrier.secure else "http", host, 1))
    if carrier.kind == "http1":
        assert not caught.value.may_have_arrived


async def test_handshake_that_hangs_ends_at_the_deadline(tls: Tls, kind: str, full_port: int) -> None:
    request = RawRequest(Origin("https", "127.0.0.1", full_port), "POST", "/", (), b"{}")
    loop = asyncio.get_running_loop()
    async with httpx.AsyncHTTPTransport(verify=tls.client) as transport:
        wire: Transport = HttpxTransport(transport)
        if kind == "http1":
            wire = Http1Transport(make_ssl_context=lambda: tls.client)
        async with asyncio.timeout(5.0):
            with pytest.raises(ExchangeError) as caught:
                await wire.send(request, deadline=loop.time() + 0.1, max_body_bytes=0)
        assert (caught.value.may_have_arrived, caught.value.timed_out) == (False, True)
        await wire.aclose()


@pytest.mark.parametrize("problem", ["unknown authority", "other name", "expired"])
async def test_refused_certificate_carried_nothing(tls: Tls, kind: str, problem: str) -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    client_context = ssl.create_default_context()
    if problem != "unknown authority":
        authority.configure_trust(client_context)
    name = "other.invalid" if problem == "other name" else "127.0.0.1"
    not_after = datetime(2020, 1, 1, tzinfo=UTC) if problem == "expired" else None
    not_before = datetime(2019, 1, 1, tzinfo=UTC) if problem == "expired" else None
    authority.issue_cert(name, not_before=not_before, not_after=not_after).configure_cert(server_context)
    loop = asyncio.get_running_loop()
    async with (
        ScriptedServer(always(OK), server_context) as server,
        httpx.AsyncHTTPTransport(verify=client_context) as transport,
    ):
        wire: Transport = HttpxTransport(transport)
        if kind == "http1":
            wire = Http1Transport(make_ssl_context=lambda: client_context)
        request = RawRequest(server.origin, "POST", "/", (), b"{}")
        with pytest.raises(ExchangeError, match="certificate verify failed") as caught:
            await wire.send(request, deadline=loop.time() + 5, max_body_bytes=0)
        assert (caught.value.may_have_arrived, caught.value.timed_out) == (False, False)
        assert server.requests == []
        await wire.aclose()


async def test_plain_server_behind_https_carried_nothing(tls: Tls, kind: str) -> None:
    async def handle(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 This is plain HTTP\r\n\r\n")
        await peer.gone()

    loop = asyncio.get_running_loop()
    async with (
        ScriptedServer(handle) as server,
        httpx.AsyncHTTPTransport(verify=tls.client) as transport,
    ):
        wire: Transport = HttpxTransport(transport)
        if kind == "http1":
            wire = Http1Transport(make_ssl_context=lambda: tls.client)
        request = RawRequest(server.origin._replace(scheme="https"), "POST", "/", (), b"{}")
        with pytest.raises(ExchangeError) as caught:
            await wire.send(request, deadline=loop.time() + 5, max_body_bytes=0)
        assert (caught.value.may_have_arrived, caught.value.timed_out) == (False, False)
        await wire.aclose()


async def test_ipv6_loopback_works(serve: Serve, carrier: Carrier) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    server = await serve(always(OK), host="::1")
    assert (await carrier.send(server)).body == b"ok"
    assert server.requests[0].headers["host"] == f"[::1]:{server.origin.port}"


async def test_names_are_resolved(serve: Serve, carrier: Carrier) -> None:
    server = await serve(always(OK))
    assert (await carrier.send(server.origin._replace(host="localhost"))).body == b"ok"
    assert server.requests[0].headers["host"] == f"localhost:{server.origin.port}"

"""Callers that leave and clients that close: nothing stays behind, nothing hangs."""

from __future__ import annotations

import asyncio
import gc
import socket
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING

import httpx
import pytest

from printos_async._transport import (
    ExchangeError,
    Http1Transport,
    HttpxTransport,
    Origin,
    RawRequest,
    RawResponse,
    Transport,
)

from .scripted import OK, OTHER, ScriptedServer, always

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Carrier, Serve, Tls
    from .scripted import Peer

SOON_S = 5.0


@pytest.fixture(autouse=True)
def everything_is_closed() -> Iterator[None]:
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        gc.collect()  # an unclosed socket or transport says so now


async def test_cancelled_send_frees_its_caller_and_the_connection(serve: Serve, carrier: Carrier) -> None:
    answer = asyncio.Event()

    async def handle(peer: Peer) -> None:
        while request := await peer.read_request():
            if request.target == "/slow":
                await answer.wait()
                await peer.send(OTHER)
            else:
                await peer.send(OK)

    server = await serve(handle)
    sends = [asyncio.create_task(carrier.send(server, target="/slow")) for _ in range(5)]
    await server.requests_read(5)
    for send in sends:
        send.cancel()
    async with asyncio.timeout(SOON_S):
        ends = await asyncio.gather(*sends, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends)
    # The late answers belong to nobody: the next requests must not get them.
    early = await asyncio.gather(*(carrier.send(server) for _ in range(5)))
    answer.set()
    late = await asyncio.gather(*(carrier.send(server) for _ in range(5)))
    assert {response.body for response in early + late} == {b"ok"}
    assert len(server.requests) == 15
    assert server.connections <= 10


async def test_cancelled_exchange_ends_at_its_deadline(serve: Serve, carrier: Carrier) -> None:
    async def handle(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(OK)
        await peer.read_request()
        await peer.gone()

    server = await serve(handle)
    await carrier.send(server)  # a slow handshake would leave nothing of the deadline
    send = asyncio.create_task(carrier.send(server, timeout_s=0.5))
    await server.requests_read(2)
    send.cancel()
    with pytest.raises(asyncio.CancelledError):
        await send
    async with asyncio.timeout(SOON_S):
        await server.all_gone()


async def test_cancelled_sends_cost_the_httpx_transport_no_slot(tls: Tls) -> None:
    answer = asyncio.Event()

    async def handle(peer: Peer) -> None:
        while await peer.read_request():
            if peer.number < 2:
                await answer.wait()
            await peer.send(OK)

    limits = httpx.Limits(max_connections=2)
    loop = asyncio.get_running_loop()
    async with ScriptedServer(handle) as server, httpx.AsyncHTTPTransport(limits=limits) as transport:
        wire = HttpxTransport(transport)
        request = RawRequest(server.origin, "PUT", "/", (), b"{}")
        sends = [
            asyncio.create_task(wire.send(request, deadline=loop.time() + 5, max_body_bytes=9))
            for _ in range(6)
        ]
        await server.requests_read(2)
        for send in sends:
            send.cancel()
        await asyncio.gather(*sends, return_exceptions=True)
        answer.set()
        async with asyncio.timeout(SOON_S):
            for _ in range(4):
                response = await wire.send(request, deadline=loop.time() + 5, max_body_bytes=9)
                assert response.body == b"ok"
        await wire.aclose()


@pytest.mark.parametrize("drip", [b"HTTP/1.1 200 OK\r\nx-drip: " + b"x" * 999, OK[:-1] + b""])
async def test_answers_that_drip_cost_the_httpx_transport_no_slot(drip: bytes) -> None:
    async def handle(peer: Peer) -> None:
        while await peer.read_request():
            if peer.number:
                await peer.send(OK)
            else:
                await peer.dribble(drip)
                await peer.gone()

    loop = asyncio.get_running_loop()
    limits = httpx.Limits(max_connections=1)
    async with ScriptedServer(handle) as server, httpx.AsyncHTTPTransport(limits=limits) as transport:
        wire = HttpxTransport(transport)
        request = RawRequest(server.origin, "PUT", "/", (), b"{}")
        with pytest.raises(ExchangeError) as caught:
            await wire.send(request, deadline=loop.time() + 0.1, max_body_bytes=9)
        assert caught.value.timed_out
        response = await wire.send(request, deadline=loop.time() + 5, max_body_bytes=9)
        assert response.body == b"ok"
        await wire.aclose()


async def test_cancelling_before_the_connection_is_made_sends_nothing(serve: Serve, carrier: Carrier) -> None:
    if carrier.kind == "httpx":
        pytest.skip("httpcore loses a slot when it is cancelled, so the request goes on")
    server = await serve(always(OK))
    for rounds in range(6):
        send = asyncio.create_task(carrier.send(server))
        for _ in range(rounds):
            await asyncio.sleep(0)
            if server.requests or send.done():
                break
        else:
            send.cancel()
            with pytest.raises(asyncio.CancelledError):
                await send
    sent = len(server.requests)
    assert (await carrier.send(server)).body == b"ok"
    assert len(server.requests) <= sent + 2


async def test_closing_ends_requests_in_flight(serve: Serve, carrier: Carrier) -> None:
    async def handle(peer: Peer) -> None:
        await peer.read_request()
        await peer.gone()

    server = await serve(handle)
    sends = [asyncio.create_task(carrier.send(server)) for _ in range(3)]
    await server.requests_read(3)
    async with asyncio.timeout(SOON_S):
        await carrier.wire.aclose()
        ends = await asyncio.gather(*sends, return_exceptions=True)
    for end in ends:
        assert isinstance(end, ExchangeError), end
        assert end.may_have_arrived
    with pytest.raises(ExchangeError) as caught:
        await carrier.send(server)
    assert not caught.value.may_have_arrived
    assert len(server.requests) == 3
    await carrier.wire.aclose()


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_closing_ends_a_connection_that_is_being_made(tls: Tls, kind: str, scheme: str) -> None:
    if (kind, scheme) == ("httpx", "https"):
        pytest.skip("httpcore 1.0.9 leaves the transport of a cancelled handshake open")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if scheme == "https":
            listener.listen()  # and never says a word
        else:
            # Two waiting connections fill the queue; a third one gets no answer at all.
            listener.listen(0)
            fillers = [socket.socket() for _ in range(2)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
        request = RawRequest(Origin(scheme, *listener.getsockname()), "PUT", "/", (), b"{}")
        async with httpx.AsyncHTTPTransport(verify=tls.client) as transport:
            wire: Transport = HttpxTransport(transport)
            if kind == "http1":
                wire = Http1Transport(make_ssl_context=lambda: tls.client)
            deadline = asyncio.get_running_loop().time() + 60
            send = asyncio.ensure_future(wire.send(request, deadline=deadline, max_body_bytes=0))
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert not send.done()
            async with asyncio.timeout(SOON_S):
                await wire.aclose()
                with pytest.raises(ExchangeError) as caught:
                    await send
        assert not caught.value.timed_out
        if kind == "http1":
            assert not caught.value.may_have_arrived
        if scheme == "http":
            for filler in fillers:
                filler.close()


async def test_closing_closes_idle_connections(serve: Serve, carrier: Carrier) -> None:
    server = await serve(always(OK))
    await asyncio.gather(*(carrier.send(server) for _ in range(4)))
    assert server.open_connections > 0
    await carrier.wire.aclose()
    if carrier.kind == "http1":
        async with asyncio.timeout(SOON_S):
            await server.all_gone()
    else:  # they belong to the transport, which its owner closes
        assert server.open_connections > 0
    await refuses_requests(carrier, server)


async def test_closing_does_not_wait_for_a_peer_that_never_says_goodbye(
    serve: Serve, carrier: Carrier
) -> None:
    async def handle(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(OK)
        peer.stop_reading()
        await closed.wait()

    closed = asyncio.Event()
    server = await serve(handle)
    assert (await carrier.send(server)).body == b"ok"
    async with asyncio.timeout(SOON_S):
        await carrier.wire.aclose()
    await refuses_requests(carrier, server)
    closed.set()


async def test_an_unused_wire_can_be_closed_twice(serve: Serve, carrier: Carrier) -> None:
    server = await serve(always(OK))
    async with asyncio.timeout(SOON_S):
        await carrier.wire.aclose()
        await carrier.wire.aclose()
    await refuses_requests(carrier, server)
    assert server.connections == 0


async def refuses_requests(carrier: Carrier, server: ScriptedServer) -> None:
    before = len(server.requests)
    with pytest.raises(ExchangeError, match="closed") as caught:
        await carrier.send(server)
    assert not caught.value.may_have_arrived
    assert len(server.requests) == before


async def answer_by_number(peer: Peer) -> None:
    while request := await peer.read_request():
        kind = int(request.target[1:]) % 5
        if kind == 0:
            peer.reset()
        elif kind == 3:
            await peer.gone()
        await peer.send((OK, OK[:-1], b"garbage\r\n\r\n", OK, OK)[kind])
        if kind < 4:
            return


async def test_many_requests_of_many_kinds_leave_nothing_behind(serve: Serve, carrier: Carrier) -> None:
    def send(n: int, timeout_s: float = SOON_S) -> asyncio.Task[RawResponse]:
        return asyncio.create_task(carrier.send(server, target=f"/{n}", timeout_s=timeout_s))

    server = await serve(answer_by_number)
    # Only those without an answer wait for their time: the others arrive on a slow machine too. They come first and on
    # connections that exist, for httpcore 1.0.9 leaves the transport of a handshake open that their deadline cuts short.
    unanswered = range(3, 60, 5)
    await asyncio.gather(*(send(4) for _ in unanswered))
    sends = {n: send(n, 0.3) for n in unanswered}
    with suppress(TimeoutError):
        async with asyncio.timeout(0.3):
            await server.requests_read(2 * len(unanswered))
    sends |= {n: send(n) for n in range(60) if n not in unanswered}
    await server.requests_read(len(unanswered) + 30)
    for n in range(0, 60, 7):
        sends[n].cancel()
    ends = await asyncio.gather(*sends.values(), return_exceptions=True)
    for end in ends:
        if isinstance(end, BaseException):
            assert isinstance(end, (ExchangeError, asyncio.CancelledError)), end
        else:
            assert end.body == b"ok"
    assert (await carrier.send(server, target="/4")).body == b"ok"
    assert len(server.requests) <= len(unanswered) + 61
    await carrier.wire.aclose()
    if carrier.kind == "http1":
        async with asyncio.timeout(SOON_S):
            await server.all_gone()


@pytest.mark.parametrize(("method", "reused"), [("PUT", True), ("GET", True), ("POST", False)])
async def test_request_that_must_not_be_sent_twice_takes_no_old_connection(
    method: str,
    reused: bool,  # noqa: FBT001
) -> None:
    loop = asyncio.get_running_loop()
    wire = Http1Transport(make_ssl_context=lambda: pytest.fail("no TLS here"), max_idle_unsafe_s=0.0)
    async with ScriptedServer(always(OK)) as server:
        for each, expected in ((method, 1), (method, 1 if reused else 2), ("PUT", 1 if reused else 2)):
            request = RawRequest(server.origin, each, "/", (), b"")
            await wire.send(request, deadline=loop.time() + 5, max_body_bytes=9)
            assert server.connections == expected
            await asyncio.sleep(0.001)
        assert server.open_connections == server.connections  # the old one is left to others
        await wire.aclose()


async def test_old_idle_connections_are_not_used() -> None:
    loop = asyncio.get_running_loop()
    wire = Http1Transport(make_ssl_context=lambda: pytest.fail("no TLS here"), max_idle_s=0.0)
    async with ScriptedServer(always(OK)) as server:
        for connections in (1, 2, 3):
            request = RawRequest(server.origin, "PUT", "/", (), b"")
            await wire.send(request, deadline=loop.time() + 5, max_body_bytes=9)
            assert server.connections == connections
            await asyncio.sleep(0.001)
        await wire.aclose()
        await server.all_gone()

"""What an answer may cost: bytes and time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from printos_async._transport import ExchangeError

from .scripted import OK, always

if TYPE_CHECKING:
    from .conftest import Carrier, Serve
    from .scripted import Handler, Peer

# What is cut off must be cut off by this wire, and a test that hangs must fail.
SOON_S = 5.0


def pouring(head: bytes, drop: bytes) -> Handler:
    """Answer the first connection with bytes without end, the others well."""

    async def handle(peer: Peer) -> None:
        while await peer.read_request():
            if peer.number:
                await peer.send(OK)
                continue
            await peer.send(head)
            while not peer.client_left:
                await peer.send(drop * 512)

    return handle


@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"x-flood: of headers\r\n"),
        (b"HTTP/1.1 200 OK\r\nx-flood: ", b"one header without end "),
        (b"HTTP/1.1 200 ", b"a reason without end "),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n",
            b"x-trailer: without end\r\n",
        ),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-trailer: ",
            b"without end ",
        ),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;", b"extension=without-end;"),
    ],
)
async def test_flood_before_the_end_is_refused(
    serve: Serve, carrier: Carrier, head: bytes, drop: bytes
) -> None:
    server = await serve(pouring(head, drop))
    async with asyncio.timeout(SOON_S):
        with pytest.raises(ExchangeError) as caught:
            await carrier.send(server)
        assert (caught.value.may_have_arrived, caught.value.timed_out) == (True, False)
        assert (await carrier.send(server)).body == b"ok"
        await server.all_gone(but=1)  # the flood found its end


async def test_flood_of_interim_answers_is_refused(serve: Serve, carrier: Carrier) -> None:
    server = await serve(pouring(b"", b"HTTP/1.1 100 Continue\r\n\r\n"))
    async with asyncio.timeout(SOON_S):
        with pytest.raises(ExchangeError) as caught:
            # httpcore reads on for ever, until the deadline.
            await carrier.send(server, timeout_s=10.0 if carrier.kind == "http1" else 0.2)
        assert caught.value.may_have_arrived
        assert caught.value.timed_out == (carrier.kind == "httpx")
        assert (await carrier.send(server)).body == b"ok"


@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n", b"x" * 64),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"2\r\nxx\r\n"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 64),
    ],
)
async def test_body_is_cut_at_its_limit_and_its_connection_ended(
    serve: Serve, carrier: Carrier, head: bytes, drop: bytes
) -> None:
    server = await serve(pouring(head, drop))
    async with asyncio.timeout(SOON_S):
        response = await carrier.send(server, max_body_bytes=10_000)
        assert (response.status, response.body, response.overflow) == (200, b"x" * 10_000, True)
        assert (await carrier.send(server)).body == b"ok"
        assert server.connections == 2
        await server.all_gone(but=1)


@pytest.mark.parametrize(("limit", "body", "overflow"), [(2, b"ok", False), (1, b"o", True), (0, b"", True)])
async def test_body_of_exactly_the_limit_is_whole(
    serve: Serve,
    carrier: Carrier,
    limit: int,
    body: bytes,
    overflow: bool,  # noqa: FBT001
) -> None:
    server = await serve(always(OK))
    response = await carrier.send(server, max_body_bytes=limit)
    assert (response.body, response.overflow) == (body, overflow)


@pytest.mark.parametrize(
    ("head", "drip"),
    [
        (b"", b"HTTP/1.1 200 OK\r\nx-drip: " + b"drip" * 500),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n", b"drip" * 500),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"drip" * 500),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"x-drip: " + b"drip" * 500),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n", b""),
        (b"", b""),
    ],
)
async def test_answer_ends_at_the_deadline_however_it_drips(
    serve: Serve, carrier: Carrier, head: bytes, drip: bytes
) -> None:
    async def handle(peer: Peer) -> None:
        while request := await peer.read_request():
            if request.target != "/drip":
                await peer.send(OK)
                continue
            await peer.send(head)
            await peer.dribble(drip)
            await peer.gone()

    server = await serve(handle)
    await carrier.send(server)  # the short deadline is for the answer, not for connecting
    async with asyncio.timeout(SOON_S):
        with pytest.raises(ExchangeError) as caught:
            await carrier.send(server, target="/drip", timeout_s=0.15)
        assert (caught.value.may_have_arrived, caught.value.timed_out) == (True, True)
        assert (await carrier.send(server)).body == b"ok"
        assert server.connections == 2
        if carrier.kind == "http1":
            await server.all_gone(but=1)


async def test_deadline_of_one_request_is_not_that_of_the_next(serve: Serve, carrier: Carrier) -> None:
    answer = asyncio.Event()

    async def handle(peer: Peer) -> None:
        while request := await peer.read_request():
            if request.target == "/slow":
                await answer.wait()
            await peer.send(OK)

    server = await serve(handle)
    await carrier.send(server)  # connecting takes its time
    assert (await carrier.send(server, timeout_s=0.3)).body == b"ok"
    slow = asyncio.create_task(carrier.send(server, target="/slow"))
    await asyncio.sleep(0.4)  # past the deadline of the request before, on the same connection
    answer.set()
    assert (await slow).body == b"ok"
    assert server.connections == 1


async def test_shorter_deadline_than_the_last_one_holds(serve: Serve, carrier: Carrier) -> None:
    async def handle(peer: Peer) -> None:
        while request := await peer.read_request():
            if request.target == "/never":
                await peer.gone()
            await peer.send(OK)

    server = await serve(handle)
    assert (await carrier.send(server, timeout_s=60.0)).body == b"ok"
    async with asyncio.timeout(SOON_S):
        with pytest.raises(ExchangeError) as caught:
            await carrier.send(server, target="/never", timeout_s=0.1)
    assert caught.value.timed_out


async def test_peer_that_does_not_read_is_left_at_the_deadline(serve: Serve, carrier: Carrier) -> None:
    async def handle(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(OK)
        await peer.read_head_only()
        await left.wait()

    left = asyncio.Event()
    server = await serve(handle)
    await carrier.send(server)  # the short deadline is for the body, not for connecting
    async with asyncio.timeout(SOON_S):
        with pytest.raises(ExchangeError) as caught:
            await carrier.send(server, body=b"x" * (1 << 24), timeout_s=0.2)
    assert (caught.value.may_have_arrived, caught.value.timed_out) == (True, True)
    left.set()

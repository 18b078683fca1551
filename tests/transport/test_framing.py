"""Where an answer ends, and what of it the caller gets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from printos_async._transport import ExchangeError

from .scripted import OK, OTHER, always

if TYPE_CHECKING:
    from .conftest import Carrier, Serve
    from .scripted import Peer

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'4;name=value\r\nWiki\r\n5;q="a;b"\r\npedia\r\n0\r\nX-Trailer: 1\r\nX-Other: 2\r\n\r\n'
)
OK_CHUNKS = b"2\r\nok\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (OK, 200, b"ok"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, b""),
        (b"HTTP/1.1 200 \r\ncontent-length: 1\r\n\r\nx", 200, b"x"),
        (b"HTTP/1.1 200\r\ncontent-length: 1\r\n\r\nx", 200, b"x"),
        (b"HTTP/1.1 200 OK\r\nCONTENT-LENGTH:1\r\n\r\nx", 200, b"x"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: \t 1 \t\r\n\r\nx", 200, b"x"),
        (CHUNKED, 200, b"Wikipedia"),
        (
            b"HTTP/1.1 200 OK\r\nTRANSFER-ENCODING: Chunked\r\n\r\nA\r\n0123456789\r\n00\r\n\r\n",
            200,
            b"0123456789",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", 304, b""),
        (b"HTTP/1.1 299 Whatever\r\ncontent-length: 1\r\n\r\nx", 299, b"x"),
        (b"HTTP/1.1 520 \r\ncontent-length: 1\r\n\r\nx", 520, b"x"),
        (b"HTTP/1.1 999 \r\ncontent-length: 1\r\n\r\nx", 999, b"x"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, b"ok"),
        (b"HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n" + OK, 200, b"ok"),
        (b"HTTP/1.1 100 Continue\r\ncontent-length: 0\r\n\r\n" + OK, 200, b"ok"),
        (
            b"HTTP/1.1 100 Continue\r\n\r\n" * 5 + b"HTTP/1.1 102 Processing\r\n\r\n" + CHUNKED,
            200,
            b"Wikipedia",
        ),
    ],
)
async def test_answer_is_read_and_its_connection_kept(
    serve: Serve, carrier: Carrier, answer: bytes, status: int, body: bytes
) -> None:
    server = await serve(always(answer))
    for _ in range(2):
        response = await carrier.send(server)
        assert (response.status, response.body, response.overflow) == (status, body, False)
    assert (server.connections, len(server.requests)) == (1, 2)


@pytest.mark.parametrize("answer", [OK, CHUNKED, b"HTTP/1.1 100 Continue\r\n\r\n" + OK])
async def test_answer_may_come_in_any_pieces(serve: Serve, carrier: Carrier, answer: bytes) -> None:
    cuts = iter(range(1, len(answer)))

    async def cut_elsewhere_each_time(peer: Peer) -> None:
        while await peer.read_request():
            cut = next(cuts)
            await peer.send(answer[:cut], answer[cut:])

    server = await serve(cut_elsewhere_each_time)
    bodies = {(await carrier.send(server)).body for _ in range(1, len(answer))}
    assert bodies == {b"Wikipedia" if answer is CHUNKED else b"ok"}
    assert server.connections == 1


@pytest.mark.parametrize("answer", [OK, CHUNKED])
async def test_answer_may_come_byte_by_byte(serve: Serve, carrier: Carrier, answer: bytes) -> None:
    server = await serve(always(*(bytes([byte]) for byte in answer)))
    assert (await carrier.send(server)).status == 200
    assert (await carrier.send(server)).status == 200
    assert server.connections == 1


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n\r\n",
    ],
)
async def test_body_without_a_length_ends_with_the_connection(
    serve: Serve, carrier: Carrier, head: bytes
) -> None:
    async def handle(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(head, b"until ", b"the end")
        await peer.close()

    server = await serve(handle)
    # httpcore 1.0.9 writes the next request to the connection that has ended, over TLS.
    times = 2 if carrier.kind == "http1" else 1
    for _ in range(times):
        response = await carrier.send(server)
        assert (response.status, response.body) == (200, b"until the end")
    assert (server.connections, len(server.requests)) == (times, times)


async def test_body_without_a_length_may_end_without_the_goodbye_of_tls(
    serve: Serve, carrier: Carrier
) -> None:
    async def handle(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n{}")
        peer.vanish()

    server = await serve(handle)
    assert (await carrier.send(server)).body == b"{}"


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", False),
        (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok", True),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", False),
        (
            b"HTTP/1.1 200 OK\r\nConnection: Keep-Alive, Upgrade\r\nUpgrade: h2,h2c\r\ncontent-length: 2\r\n\r\nok",
            True,
        ),
    ],
)
async def test_server_says_whether_the_connection_is_kept(
    serve: Serve,
    carrier: Carrier,
    answer: bytes,
    kept: bool,  # noqa: FBT001
) -> None:
    server = await serve(always(answer))
    for _ in range(3):
        assert (await carrier.send(server)).body == b"ok"
    if carrier.kind == "httpx" and answer.startswith(b"HTTP/1.0"):
        kept = False  # h11 knows no keep-alive before HTTP/1.1
    assert server.connections == (1 if kept else 3)


async def test_headers_come_in_lower_case_with_their_duplicates(serve: Serve, carrier: Carrier) -> None:
    answer = b"HTTP/1.1 200 OK\r\nX-One: a\r\nSET-COOKIE: a=1\r\nset-cookie: b=2\r\nx-empty:\r\ncontent-length: 0\r\n\r\n"
    server = await serve(always(answer))
    response = await carrier.send(server)
    assert response.headers == [
        ("x-one", "a"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("x-empty", ""),
        ("content-length", "0"),
    ]
    assert (response.header("set-cookie"), response.header("x-none")) == ("a=1", None)


async def test_trailers_are_no_headers(serve: Serve, carrier: Carrier) -> None:
    server = await serve(always(CHUNKED))
    assert (await carrier.send(server)).headers == [("transfer-encoding", "chunked")]


@pytest.mark.parametrize(
    "answer",
    [
        b"\0\1\2\3",
        b"<html>hello</html>\r\n\r\n",
        b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/9.9 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"RTSP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"ICE/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header: 1\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx-null: \0\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx : 1\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1e3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nXYZ\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n111111111111111111111\r\nab\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n\x81\x05hello",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
)
async def test_malformed_answer_is_refused_and_its_connection_ended(
    serve: Serve, carrier: Carrier, answer: bytes
) -> None:
    async def handle(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(answer if peer.number == 0 else OK)
        await peer.gone()

    server = await serve(handle)
    with pytest.raises(ExchangeError) as caught:
        await carrier.send(server)
    assert caught.value.may_have_arrived
    assert not caught.value.timed_out
    assert (await carrier.send(server)).body == b"ok"
    assert (server.connections, len(server.requests)) == (2, 2)


async def test_folded_header_never_changes_another_one(serve: Serve, carrier: Carrier) -> None:
    # RFC 9112, 5.2: refuse it or put a space in its place; h11 does the latter.
    answer = b"HTTP/1.1 200 OK\r\nx-folded: a\r\n content-length: 5\r\ncontent-length: 2\r\n\r\nok"
    server = await serve(always(answer))
    try:
        response = await carrier.send(server)
    except ExchangeError:
        assert carrier.kind == "http1"
    else:
        assert (response.body, response.header("x-folded")) == (b"ok", "a content-length: 5")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 204 No Content\r\ncontent-length: %d\r\n\r\n" % len(OTHER),
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: %d\r\n\r\n" % len(OTHER),
        b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\ncontent-length: %d\r\n\r\n" % len(OTHER) + OK,
        b"HTTP/1.1 103 Early Hints\r\ntransfer-encoding: chunked\r\n\r\n" + OK,
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n" + OK_CHUNKS,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked\r\n\r\n" + OK_CHUNKS,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + OK_CHUNKS,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n" + OK_CHUNKS,
    ],
)
async def test_late_body_of_an_answer_with_doubtful_framing_is_not_the_next_answer(
    serve: Serve, carrier: Carrier, head: bytes
) -> None:
    if carrier.kind == "httpx" and head.startswith(b"HTTP/1.1 10"):
        pytest.skip("httpcore does not show interim answers")

    async def handle(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(head if peer.number == 0 else OK)
        # Behind the next request, where it came over the same connection.
        if await peer.read_request():
            await peer.send(OTHER)
        await peer.gone()

    server = await serve(handle)
    try:
        assert (await carrier.send(server)).body in {b"", b"ok"}
    except ExchangeError:
        assert carrier.kind == "httpx"  # h11 refuses what is not simply chunked
    second = await carrier.send(server)
    assert (second.status, second.body) == (200, b"ok")
    assert (server.connections, len(server.requests)) == (2, 2)


@pytest.mark.parametrize(
    "excess", [OTHER, b"garbage", b"HTT", b"\r\n\r\nHTTP/1.1 500 No\r\n\r\n", b"0\r\n\r\n"]
)
async def test_bytes_behind_an_answer_are_not_the_next_answer(
    serve: Serve, carrier: Carrier, excess: bytes
) -> None:
    if carrier.kind == "httpx":
        pytest.skip("httpcore 1.0.9 keeps what follows an answer for the next request")

    async def handle(peer: Peer) -> None:
        while await peer.read_request():
            await peer.send(OK + excess)

    server = await serve(handle)
    for _ in range(3):
        assert (await carrier.send(server)).body == b"ok"
    assert (server.connections, len(server.requests)) == (3, 3)


async def test_empty_lines_behind_an_answer_are_forgiven(serve: Serve, carrier: Carrier) -> None:
    # RFC 9112, 2.2: what follows may be an old implementation's extra CRLF.
    if carrier.kind == "httpx":
        pytest.skip("h11 takes them for the beginning of the next answer")
    server = await serve(always(OK + b"\r\n"))
    for _ in range(3):
        assert (await carrier.send(server)).body == b"ok"


async def test_unasked_bytes_end_an_idle_connection(serve: Serve, carrier: Carrier) -> None:
    answered, sent = asyncio.Event(), asyncio.Event()

    async def handle(peer: Peer) -> None:
        while await peer.read_request():
            await peer.send(OK)
            if peer.number == 0:
                await answered.wait()
                await peer.send(OTHER)
                sent.set()
                await peer.gone()

    server = await serve(handle)
    assert (await carrier.send(server)).body == b"ok"
    answered.set()
    await sent.wait()
    if carrier.kind == "http1":
        await server.all_gone()  # the client ended it by itself
    assert (await carrier.send(server)).body == b"ok"
    assert server.connections == 2

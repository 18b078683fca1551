"""Connections that end: when they may, when they must not, and what the caller is told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from printos_async._transport import ExchangeError

from .scripted import OK, always, first_then

if TYPE_CHECKING:
    from .conftest import Carrier, Serve
    from .scripted import Handler, Peer


async def hang_up(peer: Peer) -> None:
    await peer.read_request()
    await peer.close()


async def reset_after_reading(peer: Peer) -> None:
    await peer.read_request()
    peer.reset()


async def reset_at_once(peer: Peer) -> None:
    peer.reset()


async def half_an_answer(peer: Peer) -> None:
    await peer.read_request()
    await peer.send(OK[:-1])
    await peer.close()


async def half_a_head(peer: Peer) -> None:
    await peer.read_request()
    await peer.send(OK[:20])
    await peer.close()


async def chunks_without_an_end(peer: Peer) -> None:
    await peer.read_request()
    await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n")
    await peer.close()


async def reset_in_the_body(peer: Peer) -> None:
    await peer.read_request()
    await peer.send(OK[:-1])
    peer.reset()


async def reset_in_a_body_without_a_length(peer: Peer) -> None:
    await peer.read_request()
    await peer.send(b"HTTP/1.1 200 OK\r\n\r\n{")
    peer.reset()


async def only_an_interim_answer(peer: Peer) -> None:
    await peer.read_request()
    await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    await peer.close()


@pytest.mark.parametrize(
    "ending",
    [
        hang_up,
        reset_after_reading,
        half_an_answer,
        half_a_head,
        chunks_without_an_end,
        reset_in_the_body,
        reset_in_a_body_without_a_length,
        only_an_interim_answer,
    ],
)
@pytest.mark.parametrize("method", ["PUT", "GET", "POST"])
async def test_lost_answer_is_ambiguous_and_nothing_is_sent_again(
    serve: Serve, carrier: Carrier, ending: Handler, method: str
) -> None:
    server = await serve(first_then(ending, always(OK)))
    with pytest.raises(ExchangeError) as caught:
        await carrier.send(server, method=method)
    assert caught.value.may_have_arrived
    assert not caught.value.timed_out
    assert len(server.requests) == 1
    assert (await carrier.send(server)).body == b"ok"


async def test_connection_reset_at_once_is_an_error(serve: Serve, carrier: Carrier) -> None:
    server = await serve(first_then(reset_at_once, always(OK)))
    with pytest.raises(ExchangeError) as caught:
        await carrier.send(server)
    assert not caught.value.timed_out
    assert server.requests == []
    assert (await carrier.send(server)).body == b"ok"


async def test_answer_behind_a_half_close_counts(serve: Serve, carrier: Carrier) -> None:
    if carrier.secure:
        pytest.skip("TLS has no half-closed connections in asyncio")

    async def handle(peer: Peer) -> None:
        while await peer.read_request():
            await peer.send(OK)
            peer.half_close()
            await peer.gone()

    server = await serve(handle)
    for _ in range(3):
        assert (await carrier.send(server)).body == b"ok"
    assert (server.connections, len(server.requests)) == (3, 3)


async def test_early_answer_to_a_request_that_is_still_being_written_counts(
    serve: Serve, carrier: Carrier
) -> None:
    async def handle(peer: Peer) -> None:
        if peer.number:
            await always(OK)(peer)
            return
        await peer.send(b"HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        await peer.gone()

    server = await serve(handle)
    assert (await carrier.send(server, body=b"x" * (1 << 22))).status == 413
    assert (await carrier.send(server)).body == b"ok"


async def test_connections_are_reused_one_request_at_a_time(serve: Serve, carrier: Carrier) -> None:
    busy: set[int] = set()

    async def handle(peer: Peer) -> None:
        while await peer.read_request():
            assert peer.number not in busy
            busy.add(peer.number)
            await asyncio.sleep(0)
            busy.discard(peer.number)
            await peer.send(OK)

    server = await serve(handle)
    for _ in range(3):
        responses = await asyncio.gather(*(carrier.send(server, target=f"/{n}") for n in range(8)))
        assert {response.body for response in responses} == {b"ok"}
    assert len(server.requests) == 24
    assert server.connections <= 8


async def test_each_request_gets_its_own_answer(serve: Serve, carrier: Carrier) -> None:
    async def handle(peer: Peer) -> None:
        while request := await peer.read_request():
            await asyncio.sleep(0.001 * (len(request.target) % 3))
            body = request.target.encode() + request.body
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    server = await serve(handle)

    async def ask(number: int) -> bool:
        response = await carrier.send(server, target=f"/{number}", body=b"b%d" % number)
        return response.body == b"/%db%d" % (number, number)

    assert all(await asyncio.gather(*(ask(10**number) for number in range(12)), *map(ask, range(50))))


async def test_server_that_closes_idle_connections_costs_no_request(serve: Serve, carrier: Carrier) -> None:
    if carrier.kind == "httpx" and carrier.secure:
        pytest.skip("httpcore 1.0.9 does not see the end of an idle TLS connection")

    async def handle(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(OK)

    server = await serve(handle)
    for method in ("PUT", "GET", "POST") * 3:
        assert (await carrier.send(server, method=method)).body == b"ok"
        await server.all_gone()
    assert (server.connections, len(server.requests)) == (9, 9)


async def test_server_that_never_keeps_a_connection_answers_all(serve: Serve, carrier: Carrier) -> None:
    answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
    server = await serve(always(answer))
    responses = await asyncio.gather(*(carrier.send(server) for _ in range(20)))
    assert {response.body for response in responses} == {b"ok"}
    assert (server.connections, len(server.requests)) == (20, 20)


@pytest.mark.parametrize(
    ("headers", "target"),
    [
        ((("x-token", "a\r\nx-injected: 1"),), "/"),
        ((("x-token", "a\nx-injected: 1"),), "/"),
        ((("x-token", "a\rb"),), "/"),
        ((("x-token", "a\0b"),), "/"),
        ((("x-a\r\nx-injected", "1"),), "/"),
        ((("x-token", "snowman ☃"),), "/"),
        ((("x-token", "half \ud800"),), "/"),
        ((), "/a HTTP/1.1\r\nhost: evil\r\n\r\nGET /"),
        ((), "/☃"),
    ],
)
async def test_request_that_http_cannot_carry_is_not_sent(
    serve: Serve, carrier: Carrier, headers: tuple[tuple[str, str], ...], target: str
) -> None:
    server = await serve(always(OK))
    with pytest.raises(ExchangeError) as caught:
        await carrier.send(server, headers=headers, target=target)
    assert not caught.value.may_have_arrived
    for _, value in headers:
        assert value not in caught.value.reason
    assert (await carrier.send(server)).body == b"ok"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [("PUT", b"{}", "2"), ("POST", b"", "0"), ("PUT", b"", "0"), ("GET", b"", None)],
)
async def test_request_arrives_as_given(
    serve: Serve, carrier: Carrier, method: str, body: bytes, length: str | None
) -> None:
    server = await serve(always(OK))
    headers = (("user-agent", "printos"), ("x-latin", "caf\xe9"))
    await carrier.send(server, method=method, target="/a%20b?c=%C3%A9", headers=headers, body=body)
    [request] = server.requests
    assert (request.method, request.target, request.body) == (method, "/a%20b?c=%C3%A9", body)
    assert request.headers.get("content-length") == length
    assert request.headers["host"] == f"127.0.0.1:{server.origin.port}"
    assert request.headers["user-agent"] == "printos"
    assert request.headers["x-latin"] == "caf\xe9"
    assert "transfer-encoding" not in request.headers


async def test_a_request_whose_time_is_over_is_not_written(serve: Serve, carrier: Carrier) -> None:
    if carrier.kind != "http1":
        pytest.skip("httpx takes timeouts and no deadline")
    server = await serve(always(OK))
    await carrier.send(server)
    with pytest.raises(ExchangeError, match="not sent in time") as caught:
        await carrier.send(server, target="/late", timeout_s=-1.0)
    assert (caught.value.may_have_arrived, caught.value.timed_out) == (False, True)
    # The connection had nothing written to it, so it serves the next one.
    assert (await carrier.send(server)).body == b"ok"
    assert server.connections == 1
    assert [request.target for request in server.requests] == ["/devices/a/status"] * 2

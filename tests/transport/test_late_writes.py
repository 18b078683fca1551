"""Requests of httpx's transports whose deadline passes before they are written: they never are."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any, Literal

import httpx
import httpx2
import pytest
from attrs import define, field
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived, StreamEnded

from printos_async._transport import ExchangeError, HttpxTransport, Origin, RawRequest

from .listener import Listener
from .proxy import SlowProxy
from .scripted import OK, ScriptedServer, always

if TYPE_CHECKING:
    from .conftest import Tls

# The timeouts of httpx cut a request off at twice its deadline, and the caller is told 0.1 s after its deadline: in the
# time between, a request could be written late.
TIMEOUT_S = 1.0
MAKE = {"httpx": httpx.AsyncHTTPTransport, "httpx2": httpx2.AsyncHTTPTransport}
LIBRARIES = pytest.mark.parametrize("library", MAKE)


@define(eq=False)
class Http2Server(Listener):
    """Answers every complete request over HTTP/2 with 200.

    Attributes:
        begun: The paths of the requests whose header came.
        complete: The number of those that came as a whole.
    """

    begun: list[str] = field(factory=list)
    complete: int = 0

    async def serve(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        while data := await reader.read(65_536):
            for event in connection.receive_data(data):
                if isinstance(event, RequestReceived):
                    self.begun.append(dict(event.headers)[b":path"].decode())
                elif isinstance(event, StreamEnded):
                    self.complete += 1
                    connection.send_headers(event.stream_id, [(b":status", b"200")], end_stream=True)
            writer.write(connection.data_to_send())


def held_transport(make: Any, part: str, goes_on: asyncio.Event, **settings: Any) -> Any:
    """Return a transport of httpx or httpx2 that waits before it writes a part of a request."""

    class HeldTransport(make):  # type: ignore[misc]
        async def handle_async_request(self, request: Any) -> Any:
            traced = request.extensions.get("trace")

            async def trace(event: str, info: Any) -> None:
                if event.endswith(f".send_request_{part}.started"):
                    await goes_on.wait()
                if traced is not None:
                    await traced(event, info)

            request.extensions = {**request.extensions, "trace": trace}
            return await super().handle_async_request(request)

    return HeldTransport(**settings)


async def send(wire: HttpxTransport, origin: Origin, target: str, *, timeout_s: float = 30.0) -> int:
    deadline = asyncio.get_running_loop().time() + timeout_s
    request = RawRequest(origin, "PUT", target, (), b"{}")
    return (await wire.send(request, deadline=deadline, max_body_bytes=9)).status


async def send_late(wire: HttpxTransport, origin: Origin, *, timeout_s: float = TIMEOUT_S) -> ExchangeError:
    """Return the error of a request that is not answered in time."""
    with pytest.raises(ExchangeError, match="in time") as caught:
        await send(wire, origin, "/late", timeout_s=timeout_s)
    return caught.value


@LIBRARIES
async def test_a_request_that_is_still_connecting_at_its_deadline_is_not_sent(
    tls: Tls, library: Literal["httpx", "httpx2"]
) -> None:
    loop = asyncio.get_running_loop()
    async with ScriptedServer(always(OK), tls.server) as server, SlowProxy(server.port) as proxy:
        settings: Any = {"verify": tls.client, "proxy": f"http://127.0.0.1:{proxy.port}"}
        limits: Any = httpx.Limits(max_connections=1)
        async with MAKE[library](**settings, limits=limits) as transport:
            wire = HttpxTransport(transport)
            # CONNECT and TLS each take less than the timeout, and together more.
            loop.call_later(TIMEOUT_S, proxy.answers.set)
            error = await send_late(wire, server.origin, timeout_s=2 * TIMEOUT_S)
            proxy.forwards.set()
            assert (error.may_have_arrived, error.timed_out) == (False, True)
            # The only connection of the pool is free again.
            assert await send(wire, server.origin, "/next") == 200
            await wire.aclose()
        assert [request.target for request in server.requests] == ["/next"]


@LIBRARIES
@pytest.mark.parametrize("part", ["headers", "body"])
async def test_no_part_of_a_request_is_written_after_its_deadline(
    tls: Tls,
    secure: bool,  # noqa: FBT001
    library: Literal["httpx", "httpx2"],
    part: str,
) -> None:
    goes_on = asyncio.Event()
    transport = held_transport(
        MAKE[library], part, goes_on, verify=tls.client, limits=httpx.Limits(max_connections=1)
    )
    async with ScriptedServer(always(OK), tls.server if secure else None) as server, transport:
        wire = HttpxTransport(transport)
        error = await send_late(wire, server.origin)
        goes_on.set()
        # What a transport of somebody else's has sent already is not known.
        assert (error.may_have_arrived, error.timed_out) == (True, True)
        assert await send(wire, server.origin, "/next") == 200
        await wire.aclose()
        assert [request.target for request in server.requests] == ["/next"]


@LIBRARIES
@pytest.mark.parametrize("part", ["headers", "body"])
async def test_no_part_of_a_request_is_written_over_http2_after_its_deadline(
    tls: Tls, library: Literal["httpx", "httpx2"], part: str
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.authority.issue_cert("127.0.0.1").configure_cert(context)
    context.set_alpn_protocols(["h2"])
    trusting = ssl.create_default_context()
    tls.authority.configure_trust(trusting)
    goes_on = asyncio.Event()
    transport = held_transport(MAKE[library], part, goes_on, verify=trusting, http2=True)
    async with Http2Server(tls=context) as server, transport:
        origin = Origin("https", "127.0.0.1", server.port)
        wire = HttpxTransport(transport)
        goes_on.set()
        assert await send(wire, origin, "/first") == 200  # so that the next one need not connect
        goes_on.clear()
        await send_late(wire, origin)
        goes_on.set()
        assert await send(wire, origin, "/next") == 200
        await wire.aclose()
        late = [] if part == "headers" else ["/late"]
        assert server.begun == ["/first", *late, "/next"]
        assert (server.complete, server.connections) == (2, 1)

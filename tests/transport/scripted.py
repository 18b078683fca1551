"""A raw server that plays what a test scripts: any bytes, at any moment, and any way to end a connection."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from attrs import define, field

from printos_async._transport import Origin

from .listener import Listener, reset

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
OTHER = b"HTTP/1.1 202 Accepted\r\ncontent-length: 5\r\n\r\nother"


@define
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int  # 0 for the server's first one


class Peer:
    """The server's end of one connection."""

    def __init__(
        self,
        server: ScriptedServer,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.number = number
        self._server = server
        self._reader = reader
        self._writer = writer

    async def read_request(self) -> Request | None:
        """Read and count one request; None at the end of the connection."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        request = Request(method, target, headers, body, self.number)
        self._server.requests.append(request)
        self._server.news.set()
        return request

    async def read_head_only(self) -> None:
        """Leave a request's body unread."""
        await self._reader.readuntil(b"\r\n\r\n")
        self.stop_reading()

    def stop_reading(self) -> None:
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    async def send(self, *parts: bytes) -> None:
        """Send each part as a segment of its own, as far as the operating system lets itself be asked."""
        for part in parts:
            self._writer.write(part)
            with suppress(ConnectionError):
                await self._writer.drain()
            if len(parts) > 1:
                await asyncio.sleep(0)

    async def dribble(self, data: bytes, *, every_s: float = 0.01) -> None:
        """Send a byte at a time until the client has had enough."""
        for byte in data:
            if self._writer.is_closing():
                return
            self._writer.write(bytes([byte]))
            await asyncio.sleep(every_s)

    async def gone(self) -> None:
        """Wait until the client ends the connection; what it sends until then is thrown away."""
        with suppress(ConnectionError):
            while await self._reader.read(65_536):
                pass

    @property
    def client_left(self) -> bool:
        return self._reader.at_eof() or self._writer.is_closing()

    def half_close(self) -> None:
        self._writer.write_eof()

    async def close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError, TimeoutError):
            await self._writer.wait_closed()

    def vanish(self) -> None:
        """End at once: over TLS without its goodbye."""
        self._writer.transport.abort()

    def reset(self) -> None:
        """End with RST."""
        reset(self._writer)


Handler: TypeAlias = "Callable[[Peer], Awaitable[None]]"


def always(*parts: bytes) -> Handler:
    """Answer every request alike and keep the connection."""

    async def handle(peer: Peer) -> None:
        while await peer.read_request():
            await peer.send(*parts)

    return handle


def first_then(first: Handler, then: Handler) -> Handler:
    """Treat the first connection in one way and all others in another."""

    async def handle(peer: Peer) -> None:
        await (first if peer.number == 0 else then)(peer)

    return handle


@define(eq=False)
class ScriptedServer(Listener):
    handler: Handler
    tls: ssl.SSLContext | None = None
    host: str = "127.0.0.1"
    requests: list[Request] = field(factory=list)
    news: asyncio.Event = field(factory=asyncio.Event)

    @property
    def origin(self) -> Origin:
        return Origin("https" if self.tls else "http", self.host, self.port)

    async def requests_read(self, count: int) -> None:
        """Wait until the server has read so many requests."""
        while len(self.requests) < count:
            self.news.clear()
            await self.news.wait()

    async def serve(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.handler(Peer(self, number, reader, writer))

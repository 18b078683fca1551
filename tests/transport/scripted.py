"""A raw server that plays what a test scripts: any bytes, at any moment, and any way to end a connection."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Self, TypeAlias

from attrs import define, field

from printos_async._transport import Origin

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable
    from types import TracebackType

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
        sock: socket.socket = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


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
class ScriptedServer:
    handler: Handler
    tls: ssl.SSLContext | None = None
    host: str = "127.0.0.1"
    requests: list[Request] = field(factory=list)
    connections: int = 0
    news: asyncio.Event = field(factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(factory=set)
    _peers: list[asyncio.StreamWriter] = field(factory=list)
    _server: asyncio.Server | None = None

    @property
    def origin(self) -> Origin:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return Origin("https" if self.tls else "http", self.host, port)

    @property
    def open_connections(self) -> int:
        return len(self._tasks)

    async def requests_read(self, count: int) -> None:
        """Wait until the server has read so many requests."""
        while len(self.requests) < count:
            self.news.clear()
            await self.news.wait()

    async def all_gone(self, *, but: int = 0) -> None:
        """Wait until every connection's script has ended, but for so many."""
        while len(self._tasks) > but:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    async def __aenter__(self) -> Self:
        # A peer that never answers the TLS goodbye would keep the server's own end open for half a minute.
        timeout = {"ssl_shutdown_timeout": 0.2} if self.tls else {}
        self._server = await asyncio.start_server(
            self._accept, self.host, 0, ssl=self.tls, limit=1 << 22, **timeout
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._peers:
            writer.transport.abort()
        await self._server.wait_closed()
        await asyncio.gather(*(writer.wait_closed() for writer in self._peers), return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):  # a script that failed is a test that failed
                raise end

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(self, self.connections, reader, writer)
        self.connections += 1
        self._peers.append(writer)
        task = asyncio.get_running_loop().create_task(self._serve(peer, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, peer: Peer, writer: asyncio.StreamWriter) -> None:
        try:
            await self.handler(peer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client left in the middle of the script
        finally:
            writer.close()

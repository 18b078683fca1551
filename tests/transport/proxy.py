"""A real HTTP proxy on a socket: CONNECT and absolute form, Basic credentials, faults as a test scripts them."""

from __future__ import annotations

import asyncio
import base64
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Self, TypeAlias

from attrs import define, field

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

USER, PASSWORD = "press", "p@ss:w/rd-7c1"
URL_CREDENTIALS = "press:p%40ss%3Aw%2Frd-7c1"
CREDENTIALS = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
_END_OF_HEAD = b"\r\n\r\n"

Script: TypeAlias = "Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]"


@define(eq=False)
class ConnectProxy:
    """Forwards bytes.

    Attributes:
        authenticates: Refuse whoever does not send the credentials.
        tls: Speak TLS to clients.
        script: What becomes of a request with its head read, in place of forwarding it.
        heads: The heads of all requests that it read.
        tunnels: How many tunnels it opened.
    """

    authenticates: bool = False
    tls: ssl.SSLContext | None = None
    script: Script | None = None
    heads: list[str] = field(factory=list)
    tunnels: int = 0
    connections: int = 0
    port: int = 0
    read: asyncio.Event = field(factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(factory=set)
    _writers: list[asyncio.StreamWriter] = field(factory=list)
    _server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Its URL, with the credentials if it asks for them."""
        user = f"{URL_CREDENTIALS}@" if self.authenticates else ""
        return f"{'https' if self.tls else 'http'}://{user}127.0.0.1:{self.port}"

    def cut(self) -> None:
        """End every connection with RST."""
        for writer in self._writers:
            reset(writer)

    async def idle(self) -> None:
        """Wait until every connection has ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", 0, ssl=self.tls, ssl_shutdown_timeout=0.2 if self.tls else None
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)
        await self._server.wait_closed()
        for end in ends:
            if isinstance(end, Exception):
                raise end

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._handle(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(_END_OF_HEAD)).decode("latin-1")
            self.heads.append(head)
            self.read.set()
            if self.script is not None:
                await self.script(reader, writer)
                return
            if not self.authenticates or f"proxy-authorization: Basic {CREDENTIALS}\r\n" in head:
                break
            refuse(writer, 407, b"proxy-authenticate: Basic realm=x\r\n")
        method, target, _ = head.split(" ", 2)
        if method == "CONNECT":
            host, _, port = target.rpartition(":")
            first = b""
        else:
            host, _, rest = target.removeprefix("http://").partition(":")
            port, _, path = rest.partition("/")
            lines = head.split("\r\n")[1:]
            kept = [line for line in lines if not line.startswith("proxy-authorization")]
            first = "\r\n".join([f"{method} /{path} HTTP/1.1", *kept]).encode("latin-1")
        try:
            upstream, out = await asyncio.open_connection(host, int(port))
        except OSError:
            refuse(writer, 502)
            return
        self._writers.append(out)
        if method == "CONNECT":
            self.tunnels += 1
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            out.write(first)
        await asyncio.gather(_copy(upstream, writer), _copy(reader, out))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


def refuse(writer: asyncio.StreamWriter, status: int, headers: bytes = b"") -> None:
    writer.write(b"HTTP/1.1 %d No\r\n%scontent-length: 0\r\n\r\n" % (status, headers))


def reset(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@define(eq=False)
class TlsFront:
    """Ends TLS in front of a server that speaks plain HTTP, as a load balancer that asks for certificates does."""

    tls: ssl.SSLContext
    target_port: int
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(factory=set)
    accepted: int = 0

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"https://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", 0, ssl=self.tls, ssl_shutdown_timeout=0.2
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, out = await asyncio.open_connection("127.0.0.1", self.target_port)
        try:
            await asyncio.gather(_copy(upstream, writer), _copy(reader, out))
        finally:
            writer.transport.abort()
            out.transport.abort()

"""A real HTTP proxy on a socket: CONNECT and absolute form, Basic credentials, faults as a test scripts them."""

from __future__ import annotations

import asyncio
import base64
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from attrs import define, field

from .listener import Listener, reset

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

USER, PASSWORD = "press", "p@ss:w/rd-7c1"
URL_CREDENTIALS = "press:p%40ss%3Aw%2Frd-7c1"
CREDENTIALS = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
_END_OF_HEAD = b"\r\n\r\n"

Script: TypeAlias = "Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]"


@define(eq=False)
class ConnectProxy(Listener):
    """Forwards bytes.

    Attributes:
        authenticates: Refuse whoever does not send the credentials.
        script: What becomes of a request with its head read, in place of forwarding it.
        heads: The heads of all requests that it read.
        read: Set once it has read one.
        tunnels: How many tunnels it opened.
    """

    authenticates: bool = False
    script: Script | None = None
    heads: list[str] = field(factory=list)
    tunnels: int = 0
    read: asyncio.Event = field(factory=asyncio.Event)

    @property
    def url(self) -> str:
        """Its URL, with the credentials if it asks for them."""
        user = f"{URL_CREDENTIALS}@" if self.authenticates else ""
        return f"{'https' if self.tls else 'http'}://{user}127.0.0.1:{self.port}"

    def cut(self) -> None:
        """End every connection with RST."""
        for writer in self._writers:
            reset(writer)

    async def serve(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await self._handle(reader, writer)

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


@define(eq=False)
class SlowProxy(Listener):
    """Opens tunnels to one server, slowly.

    Attributes:
        target_port: The server's port.
        answers: Set when it may answer CONNECT.
        forwards: Set when it may forward what the client sends next.
    """

    target_port: int
    answers: asyncio.Event = field(factory=asyncio.Event)
    forwards: asyncio.Event = field(factory=asyncio.Event)

    async def serve(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(_END_OF_HEAD)
        await self.answers.wait()
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await self.forwards.wait()
        with suppress(OSError):
            upstream, out = await asyncio.open_connection("127.0.0.1", self.target_port)
            self._writers.append(out)
            await asyncio.gather(_copy(upstream, writer), _copy(reader, out))


@define(eq=False)
class TlsFront(Listener):
    """Ends TLS in front of a server that speaks plain HTTP, as a load balancer that asks for certificates does."""

    tls: ssl.SSLContext
    target_port: int

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def serve(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            upstream, out = await asyncio.open_connection("127.0.0.1", self.target_port)
            try:
                await asyncio.gather(_copy(upstream, writer), _copy(reader, out))
            finally:
                writer.transport.abort()
                out.transport.abort()

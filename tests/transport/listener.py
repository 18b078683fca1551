"""Servers of the tests: a task for each connection, all of them ended with the test."""

from __future__ import annotations

import asyncio
import socket
import struct
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from attrs import define, field

if TYPE_CHECKING:
    import ssl


@define(eq=False)
class Listener(ABC):
    """A server on loopback while its asynchronous context manager is entered.

    Attributes:
        tls: Speak TLS to clients.
        host: Address to listen on.
        port: Port that it listens on.
        connections: How many connections it accepted.
    """

    tls: ssl.SSLContext | None = field(default=None, kw_only=True)
    host: str = field(default="127.0.0.1", kw_only=True)
    port: int = field(default=0, init=False)
    connections: int = field(default=0, init=False)
    _tasks: set[asyncio.Task[None]] = field(factory=set, init=False)
    _writers: list[asyncio.StreamWriter] = field(factory=list, init=False)
    _server: asyncio.Server | None = field(default=None, init=False)

    @abstractmethod
    async def serve(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, 0 for the first; it is closed afterwards, and the client may leave at any time."""

    @property
    def open_connections(self) -> int:
        return len(self._tasks)

    async def all_gone(self, *, but: int = 0) -> None:
        """Wait until every connection has ended, but for so many."""
        while len(self._tasks) > but:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    async def __aenter__(self) -> Self:
        # A peer that never answers the TLS goodbye would keep the server's own end open for half a minute.
        timeout = {"ssl_shutdown_timeout": 0.2} if self.tls else {}
        self._server = await asyncio.start_server(
            self._accept, self.host, 0, ssl=self.tls, limit=1 << 22, **timeout
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
            with suppress(AttributeError):  # Python 3.11.2, if a TLS transport was closed more than once
                writer.transport.abort()
        await self._server.wait_closed()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):  # a script that failed is a test that failed
                raise end

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        task = asyncio.get_running_loop().create_task(self._run(self.connections, reader, writer))
        self.connections += 1
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.serve(number, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client left in between
        finally:
            writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST."""
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()

"""TLS in front of a PostgreSQL server: what a server that offers it does, and what its clients let it know."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from sqlalchemy import make_url

from tests.delivery.outbox.proxy import TLS_REQUEST

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator


class TlsFront:
    """Ends TLS and forwards to a server.

    Attributes:
        received: What clients sent beyond the question for TLS and its handshake: names, passwords, statements.
        encrypted: How many connections became encrypted.
    """

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self._target = (host, port)
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()
        self.received = b""
        self.encrypted = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with suppress(OSError, asyncio.CancelledError, asyncio.IncompleteReadError):
            begin = await reader.readexactly(len(TLS_REQUEST))
            if begin == TLS_REQUEST:
                begin = b""
                writer.write(b"S" if self._context else b"N")
                if self._context is not None:
                    await writer.start_tls(self._context)
                    self.encrypted += 1
            there, to = await asyncio.open_connection(*self._target)
            try:
                await self._forward(begin, reader, writer, there, to)
            finally:
                to.transport.abort()
        writer.transport.abort()
        self._tasks.discard(task)

    async def _forward(
        self,
        begin: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        to: asyncio.StreamWriter,
    ) -> None:
        async def ask() -> None:
            data = begin or await reader.read(65_536)
            while data:
                self.received += data
                to.write(data)
                data = await reader.read(65_536)

        async def answer() -> None:
            while data := await there.read(65_536):
                writer.write(data)

        async with asyncio.TaskGroup() as ways:
            both = [ways.create_task(ask()), ways.create_task(answer())]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for way in both:
                way.cancel()

    async def aclose(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)


@asynccontextmanager
async def fronted(url: str, context: ssl.SSLContext | None, host: str) -> AsyncIterator[tuple[TlsFront, str]]:
    """Return a front of a database, with or without TLS, and the URL through it by a host name."""
    parsed = make_url(url)
    assert parsed.host is not None
    assert parsed.port is not None
    front = TlsFront(parsed.host, parsed.port, context)
    server = await asyncio.start_server(front.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield front, parsed.set(host=host, port=port).render_as_string(hide_password=False)
    finally:
        server.close()
        await front.aclose()
        await server.wait_closed()

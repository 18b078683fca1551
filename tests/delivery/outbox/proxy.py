"""A way to a database that a test can spoil: answers that get lost, and silence."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from sqlalchemy import make_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


TLS_REQUEST = (8).to_bytes(4) + (80877103).to_bytes(4)


class Proxy:
    """Forwards TCP; what it is told holds for connections that are open already, too.

    Attributes:
        lost: How many answers were lost.
        held: Set once something was held back.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._lose: bytes | None = None
        self._delay: bytes | None = None
        self._flows = _set_event()
        self._silent: list[asyncio.Event] = []
        self._delayed_until = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._forgotten: set[asyncio.Task[None]] = set()
        self._refused: bytes | None = None
        self.lost = 0
        self.held = asyncio.Event()

    def lose(self, answer: bytes | None) -> None:
        """Break the connection in place of every answer in which these bytes are; None for no more."""
        self._lose = answer

    def delay(self, answer: bytes) -> None:
        """Hold the next answer in which these bytes are, until ``flow``; others overtake it."""
        self._delay = answer
        self._delayed_until.clear()

    def stall(self) -> None:
        """Forward nothing; ``held`` is set once something would have been."""
        self._flows.clear()

    def forget(self) -> None:
        """Forward nothing on the connections that there are, as a firewall that forgot them; new ones work."""
        self._flows.clear()
        self._silent.append(self._flows)
        self._forgotten |= self._tasks
        self._flows = _set_event()

    def flow(self) -> None:
        """Forward again, and what was held back first."""
        self._delayed_until.set()
        for flows in (*self._silent, self._flows):
            flows.set()

    async def forgotten_end(self) -> None:
        """Wait until all that was held back on the connections of ``forget`` is delivered, and they have ended."""
        if self._forgotten:
            await asyncio.wait(self._forgotten)

    def refuse(self, request: bytes) -> None:
        """Refuse to begin a session whose request has these bytes, as a pool does."""
        self._refused = request

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        flows = self._flows
        with suppress(OSError, asyncio.CancelledError):
            if self._refused is not None:
                reader = await self._checked(reader, writer)
            there, to = await asyncio.open_connection(*self._target)
            try:
                async with asyncio.TaskGroup() as ways:
                    forward = ways.create_task(self._forward(reader, to, flows, answers=False))
                    backward = ways.create_task(self._forward(there, writer, flows, answers=True))
                    await asyncio.wait([forward, backward], return_when=asyncio.FIRST_COMPLETED)
                    forward.cancel()
                    backward.cancel()
            finally:
                to.transport.abort()
        writer.transport.abort()
        self._tasks.discard(task)

    async def aclose(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _checked(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> asyncio.StreamReader:
        """Return a reader of what a client sends, unless its first message is refused."""
        begin = await reader.read(65_536)
        if begin == TLS_REQUEST:
            writer.write(b"N")
            begin = await reader.read(65_536)
        assert self._refused is not None
        if self._refused in begin:
            fields = b"SFATAL\0C08P01\0Munsupported startup parameter: " + self._refused + b"\0\0"
            writer.write(b"E" + (len(fields) + 4).to_bytes(4) + fields)
            await writer.drain()
            writer.close()
            raise ConnectionError
        reader._buffer[:0] = begin  # type: ignore[attr-defined]
        return reader

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        flows: asyncio.Event,
        *,
        answers: bool,
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if not flows.is_set():
                    self.held.set()
                    await flows.wait()
                if answers and self._delay is not None and self._delay in data:
                    self._delay = None
                    self.held.set()
                    await self._delayed_until.wait()
                if answers and self._lose is not None and self._lose in data:
                    self.lost += 1
                    return
                writer.write(data)
                await writer.drain()


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """Return a proxy to the database of a URL, and the URL that leads through it."""
    parsed = make_url(url)
    assert parsed.host is not None
    assert parsed.port is not None
    proxy = Proxy(parsed.host, parsed.port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield proxy, parsed.set(port=port).render_as_string(hide_password=False)
    finally:
        server.close()
        await proxy.aclose()
        await server.wait_closed()

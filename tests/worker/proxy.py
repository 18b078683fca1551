"""A way to a database that a test can spoil: answers that get lost, and silence."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from sqlalchemy import make_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


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
        self._flows = asyncio.Event()
        self._flows.set()
        self._delayed_until = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
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

    def flow(self) -> None:
        """Forward again."""
        self._delayed_until.set()
        self._flows.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with suppress(OSError, asyncio.CancelledError):
            there, to = await asyncio.open_connection(*self._target)
            try:
                async with asyncio.TaskGroup() as ways:
                    forward = ways.create_task(self._forward(reader, to, answers=False))
                    backward = ways.create_task(self._forward(there, writer, answers=True))
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

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if not self._flows.is_set():
                    self.held.set()
                    await self._flows.wait()
                if answers and self._delay is not None and self._delay in data:
                    self._delay = None
                    self.held.set()
                    await self._delayed_until.wait()
                if answers and self._lose is not None and self._lose in data:
                    self.lost += 1
                    return
                writer.write(data)
                await writer.drain()


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """Give a proxy to the database of a URL, and the URL that leads through it."""
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

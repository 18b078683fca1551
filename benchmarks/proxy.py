"""A CONNECT proxy that copies bytes and does nothing else: ``python -m benchmarks.proxy`` prints its port."""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import cast

from .loops import fastest_loop, loop_factory

_END_OF_HEAD = b"\r\n\r\n"
_OPEN = b"HTTP/1.1 200 Connection established\r\n\r\n"


class _End(asyncio.Protocol):
    """One end of a tunnel; writes what it receives to the other end."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _End | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the interface's
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class _Client(_End):
    """The client's end, which begins with CONNECT."""

    def __init__(self) -> None:
        super().__init__()
        self._head = b""
        self._task: asyncio.Task[None] | None = None

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            super().data_received(data)
            return
        self._head += data
        if _END_OF_HEAD in self._head:
            host, _, port = self._head.split(b" ")[1].decode().rpartition(":")
            self._task = asyncio.get_running_loop().create_task(self._open(host, int(port)))

    async def _open(self, host: str, port: int) -> None:
        _, other = await asyncio.get_running_loop().create_connection(_End, host, port)
        self.other, other.other = other, self
        if self.transport is not None:
            self.transport.write(_OPEN)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Client, "127.0.0.1", 0, backlog=1024)
    async with server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.buffer.read)


def main() -> None:
    """Run the proxy until standard input closes."""
    gc.disable()
    with asyncio.Runner(loop_factory=loop_factory(fastest_loop())) as runner:
        runner.run(_serve())


if __name__ == "__main__":
    main()

"""Upper limit of the server: a client that writes prepared bytes and counts the bytes of the answers.

It parses nothing and makes neither JSON nor tasks. A rival that came near it would measure the server.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

_BODY = b'{"status": "DS_PRINTING", "metrics": {"pagesTotal": 123456, "inkLevel": 0.4}}'
_REQUEST = (
    b"PUT /devices/dev-123456/status HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: */*\r\nuser-agent: ceiling\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_BUFFER_BYTES = 65536


class _Batch:
    """Number of requests that are still to be written and answered, over all connections."""

    def __init__(self, statuses: int) -> None:
        self.to_write = statuses
        self.to_read = statuses
        self.done = asyncio.get_running_loop().create_future()


class _Connection(asyncio.BufferedProtocol):
    """Keeps ``depth`` requests unanswered.

    Buffered, because asyncio allocates 256 KiB for each read of a plain Protocol, and in some heaps each of them
    costs two page faults: half the rate.
    """

    def __init__(self, depth: int, buffer: memoryview) -> None:
        self._depth = depth
        self._buffer = buffer
        self._transport: asyncio.Transport | None = None
        self._batch: _Batch | None = None
        self._received_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def start(self, batch: _Batch) -> None:
        """Take part in a batch."""
        self._batch = batch
        self._write(self._depth)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the interface's
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        batch = self._batch
        if batch is None:
            return
        answers, self._received_bytes = divmod(self._received_bytes + nbytes, len(_ANSWER))
        batch.to_read -= answers
        if batch.to_read == 0:
            batch.done.set_result(None)
        else:
            self._write(answers)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._batch is not None and not self._batch.done.done():
            self._batch.done.set_exception(exc or ConnectionResetError("the server hung up"))

    def _write(self, requests: int) -> None:
        if self._batch is None or self._transport is None:
            return
        requests = min(requests, self._batch.to_write)
        if requests:
            self._batch.to_write -= requests
            self._transport.write(_REQUEST * requests)

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()


@asynccontextmanager
async def _raw(url: str, connections: int, depth: int) -> AsyncIterator[Callable[[int], Awaitable[int]]]:
    loop = asyncio.get_running_loop()
    address = urlsplit(url)
    host, port = address.hostname or "", address.port or 0
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    protocols = [
        (await loop.create_connection(lambda: _Connection(depth, buffer), host, port))[1]
        for _ in range(connections)
    ]

    async def push(statuses: int) -> int:
        batch = _Batch(statuses)
        for protocol in protocols:
            protocol.start(batch)
        await batch.done
        return statuses

    try:
        yield push
    finally:
        for protocol in protocols:
            protocol.close()


@asynccontextmanager
async def unpipelined(url: str, in_flight: int) -> AsyncIterator[Callable[[int], Awaitable[int]]]:
    """Keep one request per connection in flight, as the rivals do. Both processes are then at their limit."""
    async with _raw(url, in_flight, 1) as push:
        yield push


@asynccontextmanager
async def pipelined(url: str, in_flight: int) -> AsyncIterator[Callable[[int], Awaitable[int]]]:
    """Keep eight requests per connection in flight: with few system calls, the server's own work is the limit."""
    async with _raw(url, max(1, in_flight // 8), 8) as push:
        yield push

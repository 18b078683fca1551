"""The target: a server that answers every PUT with 200 and an empty body, as fast as Python can.

It prints its port as the first line of standard output and stops when standard input closes. Then it prints how many
requests it answered, with which the clients' counts are compared. It supports the part of HTTP/1.1 that the clients need
(keep-alive, pipelining, Content-Length) and answers anything else with 501, because a misread request would make the
measurement wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import ssl
import sys
import time
from collections import deque
from typing import cast

from .loops import fastest_loop, loop_factory, pin_to

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_REFUSAL = b"HTTP/1.1 501 Not Implemented\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"
_BACKLOG = 4096
_BUFFER_BYTES = 65536
# Timers are no finer than this.
_TICK_S = 0.001


class _Target:
    """Answers at once, or after a latency: never earlier, and hardly later."""

    def __init__(self, loop: asyncio.AbstractEventLoop, latency_s: float) -> None:
        self.answered = 0
        self._loop = loop
        self._latency_s = latency_s
        # All requests wait equally long, so one queue and one timer are enough: a timer for each would cost more than the rest.
        self._waiting: deque[tuple[float, asyncio.Transport, int]] = deque()

    def answer(self, transport: asyncio.Transport, requests: int) -> None:
        """Answer a number of requests of a connection when they are due."""
        if not self._latency_s:
            self._send(transport, requests)
            return
        if not self._waiting:
            self._loop.call_later(self._latency_s, self._send_due)
        self._waiting.append((time.monotonic() + self._latency_s, transport, requests))

    def _send_due(self) -> None:
        # Not the loop's clock: uvloop caches it, and its timers may fire a little early.
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            _, transport, requests = self._waiting.popleft()
            self._send(transport, requests)
        if not self._waiting:
            return
        remaining_s = self._waiting[0][0] - now
        if remaining_s > _TICK_S:
            self._loop.call_later(remaining_s - _TICK_S, self._send_due)
        else:
            # It polls, because a timer would be late by up to its tick, which is 2 % of 50 ms. The server has a core of
            # its own.
            self._loop.call_soon(self._send_due)

    def _send(self, transport: asyncio.Transport, requests: int) -> None:
        if not transport.is_closing():
            transport.write(_ANSWER * requests)
            self.answered += requests


class _Connection(asyncio.BufferedProtocol):
    """Finds the ends of the requests that one connection receives.

    Buffered, because asyncio allocates 256 KiB for each read of a plain Protocol, and in some heaps each of them
    costs two page faults. All connections share the buffer: what is read is taken out before the next read.
    """

    def __init__(self, target: _Target, buffer: memoryview) -> None:
        self._target = target
        self._buffer = buffer
        self._transport: asyncio.Transport | None = None
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the interface's
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._transport is None:  # asyncio calls connection_made first
            return
        data = self._rest + self._buffer[:nbytes]
        start = requests = 0
        while (head_end := data.find(_END_OF_HEAD, start)) >= 0:
            head = data[start : head_end + 2].lower()
            length_at = head.find(_LENGTH)
            if length_at < 0 or not head.startswith(b"put "):
                self._transport.write(_REFUSAL)
                self._transport.close()
                return
            value_at = length_at + len(_LENGTH)
            end = head_end + len(_END_OF_HEAD) + int(head[value_at : head.find(b"\r\n", value_at)])
            if end > len(data):
                break
            start = end
            requests += 1
        self._rest = data[start:]
        if requests:
            self._target.answer(self._transport, requests)


def _ssl_context(certificate: str | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def _serve(latency_s: float, certificate: str | None) -> None:
    loop = asyncio.get_running_loop()
    target = _Target(loop, latency_s)
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    server = await loop.create_server(
        lambda: _Connection(target, buffer),
        "127.0.0.1",
        0,
        backlog=_BACKLOG,
        ssl=_ssl_context(certificate),
    )
    async with server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.buffer.read)
    print(target.answered, flush=True)


def main() -> None:
    """Run the server until standard input closes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server", description=__doc__)
    parser.add_argument("--latency-ms", type=float, default=0.0, help="wait before each answer")
    parser.add_argument("--certificate", metavar="PEM", help="key and chain; turns TLS on")
    parser.add_argument("--core", type=int, help="the core to stay on")
    arguments = parser.parse_args()
    pin_to(arguments.core)
    # Requests create no reference cycles here, and a pause of the collector would count as the client's time.
    gc.disable()
    with asyncio.Runner(loop_factory=loop_factory(fastest_loop())) as runner:
        runner.run(_serve(arguments.latency_ms / 1000, arguments.certificate))


if __name__ == "__main__":
    main()

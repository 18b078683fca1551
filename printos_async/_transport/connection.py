"""One HTTP/1.1 connection: one exchange at a time over an asyncio transport, parsed by llhttp.

Why not a library: what retries and ordering need is exact knowledge of whether a request was written, at tens
of thousands of requests a second on one core. docs/transport.md has the measurements and the alternatives.
"""

from __future__ import annotations

import asyncio
import select
import ssl
import time
from functools import partial
from typing import TYPE_CHECKING, cast

from httptools import HttpParserError, HttpParserUpgrade

from .base import ExchangeError, RawResponse
from .response_reader import ResponseReader
from .tls import tls_problem

if TYPE_CHECKING:
    from collections.abc import Callable

# Status line, header, interim answers, trailers.
MAX_HEAD_BYTES = 65_536
# Chunked coding may spend several bytes for each byte of content; past this the sender only wastes time.
_MAX_BYTES_PER_CONTENT_BYTE = 16
# llhttp also takes RTSP and ICE for answers.
_STARTS = frozenset(b"H\r\n")


class Connection(asyncio.BufferedProtocol):
    """One connection. ``on_idle`` is called when it can take the next request, ``on_lost`` when it is gone."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        buffer: memoryview,
        on_idle: Callable[[Connection], None],
        on_lost: Callable[[Connection], None],
    ) -> None:
        self._loop = loop
        self._ahead_s = loop.time() - time.monotonic()  # 0, but for loops with a clock of their own
        # Shared by the connections of one loop: it is filled and parsed in one go. asyncio's own reading would
        # allocate 256 KiB for each answer, which costs more than parsing it.
        self._buffer = buffer
        self._on_idle = on_idle
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._has_news: Callable[[], object] | None = None
        self._reader = ResponseReader()
        self._waiter: asyncio.Future[RawResponse] | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self.idle_since = 0.0

    @property
    def usable(self) -> bool:
        """Whether a request can be written now."""
        return self._transport is not None and not self._transport.is_closing() and self._waiter is None

    @property
    def quiet(self) -> bool:
        """Whether nothing came since the last answer, not even what the event loop has not seen yet."""
        # It would be the end, which loses the next request, or stray bytes, which would pass for its answer.
        return self._has_news is None or not self._has_news()

    def exchange(self, data: bytes, *, deadline: float, max_body_bytes: int) -> asyncio.Future[RawResponse]:
        """Write one request; return a future of its answer.

        Cancelling the future detaches from the exchange, which still ends by its answer or its deadline.
        """
        transport = self._transport
        assert transport is not None  # noqa: S101  # the pool hands out usable connections only
        self._reader.begin(max_body_bytes)
        self._waiter = waiter = self._loop.create_future()
        self._deadline = deadline
        # One timer is kept over many exchanges and only moved on when it fires: arming one for each request
        # costs more than parsing the answer.
        if self._timer is None or self._timer_at > deadline:
            self._arm(deadline)
        # Right before the write, and not by the loop's clock, which may stand still between two rounds: in a process
        # that was stopped, time has passed since the caller decided to send.
        if time.monotonic() + self._ahead_s < deadline:
            transport.write(data)
        else:
            self._end(ExchangeError("not sent in time", may_have_arrived=False, timed_out=True))
            self._on_idle(self)
        return waiter

    def close(self) -> None:
        """End politely; an exchange in flight fails."""
        self._end(ExchangeError("the client was closed", may_have_arrived=True))
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End at once."""
        self._end(ExchangeError("the client was closed", may_have_arrived=True))
        if self._transport is not None:
            self._transport.abort()
        self._release()  # so that no transport is taken later

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        # uvloop's transports do not derive from asyncio.Transport.
        self._transport = cast("asyncio.Transport", transport)
        if self._reader.parser is None:
            # The server spoke before it was asked, between the handshake in a tunnel and now.
            self._transport.abort()
        self._has_news = _make_poll(transport.get_extra_info("socket").fileno())

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio's signature
        """Lend the buffer to be filled."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Feed the parser, then end the exchange if the answer is complete."""
        reader = self._reader
        parser = reader.parser
        if parser is None:
            return
        if self._waiter is None:
            # Bytes that nobody asked for would be taken for the answer to the next request.
            self.abort()
            return
        malformed = not reader.received_bytes and self._buffer[0] not in _STARTS
        reader.received_bytes += nbytes
        try:
            if not malformed:
                parser.feed_data(self._buffer[:nbytes])
        except (HttpParserError, HttpParserUpgrade):
            malformed = True
        if reader.is_complete:
            # What follows an answer does not spoil it, but nothing more is believed on this connection.
            self._succeed(keep_alive=reader.keep_alive and not reader.has_excess and not malformed)
        elif malformed:
            # What a parser objects to may quote the answer, and so a token in it: it is not repeated.
            self._fail("the answer is not HTTP/1.1")
        elif reader.body_bytes > reader.max_body_bytes:
            self._succeed(keep_alive=False)
        elif reader.received_bytes > MAX_HEAD_BYTES + _MAX_BYTES_PER_CONTENT_BYTE * reader.body_bytes:
            self._fail("the answer's header or trailer is too large")

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange in flight and notify the pool."""
        self._transport = None
        if self._waiter is not None:
            reader = self._reader
            if exc is None and reader.has_head and reader.ends_with_connection:
                # Over TLS the goodbye may be missing, as many servers leave it out: asyncio does not tell. A
                # body that was cut off is not taken for a whole one, for half of a JSON object is none.
                self._succeed(keep_alive=False)
            elif reader.received_bytes:
                self._fail("the connection ended in the middle of the answer")
            elif isinstance(exc, ssl.SSLError):
                # With TLS 1.3 a server refuses a client certificate only after the client has begun to write.
                self._fail(f"the connection ended before an answer came: {tls_problem(exc, 'the server')}")
            else:
                self._fail("the connection ended before an answer came")
        self._release()
        self._on_lost(self)

    # the end of an exchange

    def _succeed(self, *, keep_alive: bool) -> None:
        waiter, self._waiter = self._waiter, None
        assert waiter is not None  # noqa: S101  # callers have checked
        reader = self._reader
        overflow = reader.body_bytes > reader.max_body_bytes
        if not waiter.done():
            body = bytes(reader.body[: reader.max_body_bytes] if overflow else reader.body)
            waiter.set_result(RawResponse(reader.status, reader.headers, body, overflow))
        if keep_alive and self._transport is not None and not self._transport.is_closing():
            self.idle_since = self._loop.time()
            self._on_idle(self)
        elif self._transport is not None:
            # abort, not close: what the server still sends is not wanted, and a TLS goodbye could hang on it.
            self._transport.abort()

    def _fail(self, reason: str, *, timed_out: bool = False) -> None:
        self._end(ExchangeError(reason, may_have_arrived=True, timed_out=timed_out))
        if self._transport is not None:
            self._transport.abort()

    def _end(self, error: ExchangeError) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._loop.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._waiter is None:
            return
        if self._deadline > self._loop.time():
            self._arm(self._deadline)
        else:
            self._fail("no complete answer in time", timed_out=True)

    def _release(self) -> None:
        self._reader.release()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _make_poll(descriptor: int) -> Callable[[], object]:
    """Return a function whose result is true, in a third of a microsecond, if a socket has something to read."""
    if hasattr(select, "poll"):
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return partial(poller.poll, 0)
    return lambda: select.select((descriptor,), (), (), 0)[0]  # Windows

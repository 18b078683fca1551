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

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from .base import BODILESS, EXCERPT_BYTES, ExchangeError, RawResponse
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
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._waiter: asyncio.Future[RawResponse] | None = None
        self._is_doubtful = False
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._max_body_bytes = 0
        self._begin()
        self.idle_since = 0.0

    def _begin(self) -> None:
        self._headers: list[tuple[str, str]] = []
        # Not a list of parts: a peer that sends two bytes at a time would make each cost fifty.
        self._body = bytearray()
        self._body_bytes = 0
        self._received_bytes = 0
        self._head_done = False
        self._complete = False
        self._excess = False
        self._until_close = True
        self._is_coded = False
        self._keep_alive = False
        self._status = 0

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
        self._begin()
        self._is_doubtful = False
        self._waiter = waiter = self._loop.create_future()
        self._max_body_bytes = max_body_bytes
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
        self._release_parser()  # so that no transport is taken later

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        # uvloop's transports do not derive from asyncio.Transport.
        self._transport = cast("asyncio.Transport", transport)
        if self._parser is None:
            # The server spoke before it was asked, between the handshake in a tunnel and now.
            self._transport.abort()
        self._has_news = _make_probe(transport.get_extra_info("socket").fileno())

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio's signature
        """Lend the buffer to be filled."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Feed the parser, then end the exchange if the answer is complete."""
        parser = self._parser
        if parser is None:
            return
        if self._waiter is None:
            # Bytes that nobody asked for would be taken for the answer to the next request.
            self.abort()
            return
        malformed = not self._received_bytes and self._buffer[0] not in _STARTS
        self._received_bytes += nbytes
        try:
            if not malformed:
                parser.feed_data(self._buffer[:nbytes])
        except (HttpParserError, HttpParserUpgrade):
            malformed = True
        if self._complete:
            # What follows an answer does not spoil it, but nothing more is believed on this connection.
            self._succeed(keep_alive=self._keep_alive and not self._excess and not malformed)
        elif malformed:
            # What a parser objects to may quote the answer, and so a token in it: it is not repeated.
            self._fail("the answer is not HTTP/1.1")
        elif self._body_bytes > self._max_body_bytes:
            self._succeed(keep_alive=False)
        elif self._received_bytes > MAX_HEAD_BYTES + _MAX_BYTES_PER_CONTENT_BYTE * self._body_bytes:
            self._fail("the answer's header or trailer is too large")

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange in flight and notify the pool."""
        self._transport = None
        if self._waiter is not None:
            if exc is None and self._head_done and self._until_close:
                # Over TLS the goodbye may be missing, as many servers leave it out: asyncio does not tell. A
                # body that was cut off is not taken for a whole one, for half of a JSON object is none.
                self._succeed(keep_alive=False)
            elif self._received_bytes:
                self._fail("the connection ended in the middle of the answer")
            elif isinstance(exc, ssl.SSLError):
                # With TLS 1.3 a server refuses a client certificate only after the client has begun to write.
                self._fail(f"the connection ended before an answer came: {tls_problem(exc, 'the server')}")
            else:
                self._fail("the connection ended before an answer came")
        self._release_parser()
        self._on_lost(self)

    # httptools

    def on_message_begin(self) -> None:
        """Notice a second answer behind the first."""
        if self._complete:
            self._excess = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep one header; trailers are dropped."""
        if self._head_done:
            return
        key = name.decode("latin-1").lower()
        if key == "content-length":
            self._until_close = False
        elif key == "transfer-encoding":
            self._until_close = False
            self._is_coded = True
        self._headers.append((key, value.decode("latin-1").strip()))

    def on_headers_complete(self) -> None:
        """Note that the head is complete, and whether the end of the answer is beyond doubt."""
        self._head_done = True
        parser = self._parser
        if parser is None:
            return
        self._status = status = parser.get_status_code()
        if status > 299:
            self._max_body_bytes = min(self._max_body_bytes, EXCERPT_BYTES)
        if self._is_coded or status < 200 or status in BODILESS:
            self._is_doubtful |= not self._is_plainly_framed(parser.get_http_version())

    def _is_plainly_framed(self, version: str) -> bool:
        # RFC 9112, section 6. llhttp decides the other cases one way, the server perhaps another: what it sends late
        # would pass for the next answer.
        if self._status < 200 or self._status in BODILESS:
            return not self._is_coded and not any(
                name == "content-length" and value.strip("0") for name, value in self._headers
            )
        codings = [value.lower() for name, value in self._headers if name == "transfer-encoding"]
        return codings == ["chunked"] and version != "1.0"

    def on_body(self, data: bytes) -> None:
        """Keep the body up to its limit; the exchange ends when the limit is passed."""
        if not self._complete:
            if self._body_bytes <= self._max_body_bytes:
                self._body += data
            self._body_bytes += len(data)

    def on_message_complete(self) -> None:
        """Note the end of an answer; an interim one (1xx) is forgotten."""
        if self._complete or self._parser is None:
            return
        if self._status < 200:
            received = self._received_bytes
            self._begin()
            self._received_bytes = received
        else:
            self._complete = True
            # Asked later, llhttp has forgotten.
            self._keep_alive = self._parser.should_keep_alive() and not self._is_doubtful

    # the end of an exchange

    def _succeed(self, *, keep_alive: bool) -> None:
        waiter, self._waiter = self._waiter, None
        assert waiter is not None  # noqa: S101  # callers have checked
        overflow = self._body_bytes > self._max_body_bytes
        if not waiter.done():
            body = bytes(self._body[: self._max_body_bytes] if overflow else self._body)
            waiter.set_result(RawResponse(self._status, self._headers, body, overflow))
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

    def _release_parser(self) -> None:
        # The parser holds bound methods of this object: without this every connection is a reference cycle.
        self._parser = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _make_probe(descriptor: int) -> Callable[[], object]:
    """Return a function whose result is true, in a third of a microsecond, if a socket has something to read."""
    if hasattr(select, "poll"):
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return partial(poller.poll, 0)
    return lambda: select.select((descriptor,), (), (), 0)[0]  # Windows

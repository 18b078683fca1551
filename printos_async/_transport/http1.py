"""The default transport: pooled HTTP/1.1 connections on asyncio transports, no helper thread, no silent retry."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from functools import lru_cache
from typing import TYPE_CHECKING

from attrs import define, field

from printos_async._errors import PrintOSError

from .base import ExchangeError, Origin, RawRequest, RawResponse
from .connection import Connection
from .dial import Dial

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from .proxy import Proxy

_log = logging.getLogger("printos_async")

# Servers and load balancers close idle connections, commonly after 60 s; a write that races with the close is
# ambiguous, so it is better to let go first.
MAX_IDLE_S = 30.0
# A request that must not be sent twice takes a connection only if it was in use a moment ago.
MAX_IDLE_UNSAFE_S = 1.0
CLOSE_GRACE_S = 1.0
READ_BUFFER_BYTES = 65_536
_REPLAYABLE = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})


@define(eq=False, repr=False, kw_only=True)
class Http1Transport:
    """Keeps as many connections as requests were ever in flight at once; the caller bounds that number.

    Args:
        make_ssl_context: Called for each new connection with TLS, so that new certificates need no new client. If it
            fails, this machine has failed and not the server, and the exchange may be repeated; a ``PrintOSError``
            passes through.
        proxy: Connects through it: by tunnels for ``https``, else by requests in absolute form.
        max_idle_s: Seconds after which an idle connection is not used again.
        max_idle_unsafe_s: The same for a request that must not be sent twice.
    """

    _make_ssl_context: Callable[[], ssl.SSLContext]
    _proxy: Proxy | None = None
    _max_idle_s: float = MAX_IDLE_S
    _max_idle_unsafe_s: float = MAX_IDLE_UNSAFE_S
    _loop: asyncio.AbstractEventLoop | None = field(default=None, init=False)
    _idle: defaultdict[Origin, deque[Connection]] = field(factory=lambda: defaultdict(deque), init=False)
    _buffer: memoryview = field(factory=lambda: memoryview(bytearray(READ_BUFFER_BYTES)), init=False)
    _open: set[Connection] = field(factory=set, init=False)
    _connecting: set[asyncio.Timeout] = field(factory=set, init=False)
    _closed: bool = field(default=False, init=False)
    _all_lost: asyncio.Event | None = field(default=None, init=False)
    _tls_problem: str = field(default="", init=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The proxy's credentials; see ``Transport.secrets``."""
        return () if self._proxy is None else self._proxy.secrets

    def send(self, request: RawRequest, *, deadline: float, max_body_bytes: int) -> Awaitable[RawResponse]:
        """Send one request; see ``Transport.send``."""
        proxy = self._proxy if request.origin.scheme == "http" else None
        head = request_head(request, proxy)  # what cannot be sent takes no connection
        # No coroutine: on a connection that is there already, waiting for the answer is all that is left to do.
        connection = self._take_idle(request) if proxy is None else None
        if connection is None:
            return self._connect_and_send(request, proxy, deadline, max_body_bytes)
        return connection.exchange(head + request.body, deadline=deadline, max_body_bytes=max_body_bytes)

    async def aclose(self) -> None:
        """Close every connection; ends within ``CLOSE_GRACE_S`` even if peers do not answer."""
        self._closed = True
        self._idle.clear()
        for attempt in self._connecting:
            if not attempt.expired():
                attempt.reschedule(0.0)
        if not self._open and not self._connecting:
            return
        self._all_lost = asyncio.Event()
        for connection in tuple(self._open):
            connection.close()
        try:
            async with asyncio.timeout(CLOSE_GRACE_S):
                await self._all_lost.wait()
        except TimeoutError:
            for connection in tuple(self._open):
                connection.abort()
            # An aborted transport reports its loss on the loop's next round.
            await self._all_lost.wait()

    def _take_idle(self, request: RawRequest) -> Connection | None:
        if self._closed:
            raise ExchangeError("the client was closed", may_have_arrived=False)
        idle = self._idle[request.origin]
        if not idle or self._loop is None:
            return None
        now = self._loop.time()
        # Newest first, so that what a burst opened grows old at the other end and goes.
        while idle:
            connection = idle[-1]
            if connection.usable and connection.idle_since >= now - self._max_idle_s and connection.quiet:
                if (
                    request.method not in _REPLAYABLE
                    and connection.idle_since < now - self._max_idle_unsafe_s
                ):
                    return None  # left to others
                return idle.pop()
            idle.pop().close()
        return None

    async def _connect_and_send(
        self, request: RawRequest, proxy: Proxy | None, deadline: float, max_body_bytes: int
    ) -> RawResponse:
        """Send a request on a new connection, or to a proxy that reads it, and forwards it or refuses it."""
        connection = None if proxy is None else self._take_idle(request)
        if connection is None:
            connection = await self._connect(request.origin, deadline)
        # The head is made again, not handed over: a traceback may show the values of locals, of a cancellation too.
        response = await connection.exchange(
            request_head(request, proxy) + request.body, deadline=deadline, max_body_bytes=max_body_bytes
        )
        if proxy is not None and response.status == 407:
            raise proxy.refusal(response.status, response.headers, request.origin)
        return response

    async def _connect(self, origin: Origin, deadline: float) -> Connection:
        # Kept: asking for the running loop costs as much as its clock, which is read for each request.
        self._loop = loop = asyncio.get_running_loop()

        def on_idle(connection: Connection) -> None:
            if self._closed:
                connection.close()
                return
            idle = self._idle[origin]
            idle.append(connection)
            if idle[0].idle_since < connection.idle_since - self._max_idle_s:
                idle.popleft().close()

        dial = Dial(loop, origin, self._proxy, self._ssl_context(origin))
        failure: ExchangeError
        try:
            async with asyncio.timeout_at(deadline) as attempt:
                self._connecting.add(attempt)
                try:
                    connection = await dial.run(lambda: Connection(loop, self._buffer, on_idle, self._forget))
                finally:
                    self._connecting.discard(attempt)
                    self._notify()
        except TimeoutError:
            failure = ExchangeError(
                f"no {dial.stage} in time", may_have_arrived=False, timed_out=not self._closed
            )
        except ExchangeError as error:
            failure = error
        else:
            if connection.usable and not self._closed:
                self._open.add(connection)
                return connection
            connection.abort()
            failure = ExchangeError(
                "the connection was closed as soon as it was made", may_have_arrived=False
            )
        raise ExchangeError("the client was closed", may_have_arrived=False) if self._closed else failure

    def _ssl_context(self, origin: Origin) -> ssl.SSLContext | None:
        """Return the context for a new connection; None if it does not use TLS."""
        if "https" not in (origin.scheme, self._proxy and self._proxy.origin.scheme):
            return None
        try:
            context = self._make_ssl_context()
        except PrintOSError:  # a wrong setting, which stays wrong
            raise
        except Exception as error:  # noqa: BLE001  # the caller's function: files, a vault
            name = type(error).__name__
            # The system's words (a file that is being replaced, no file descriptor left); other texts may hold secrets.
            reason = (error.strerror if isinstance(error, OSError) else None) or name
        else:
            self._tls_problem = ""
            return context
        problem = f"verify returns no context for TLS: {reason}"
        if problem != self._tls_problem:  # a pusher retries for as long as it lasts: somebody should know
            self._tls_problem = problem
            _log.warning("%s; requests that need a connection are retried", problem, extra={"error": name})
        raise ExchangeError(problem, may_have_arrived=False, local=True)

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._notify()

    def _notify(self) -> None:
        if self._all_lost is not None and not self._open and not self._connecting:
            self._all_lost.set()


@lru_cache(maxsize=16)
def _host_line(origin: Origin) -> str:
    return "host: " + str(origin).partition("://")[2]


def request_head(request: RawRequest, proxy: Proxy | None = None) -> bytes:
    """Return a request's head; in absolute form (RFC 9112, section 3.2.2) if a proxy is to read it.

    Raises:
        ExchangeError: A header or the path holds what HTTP cannot carry.
    """
    origin, headers, body = request.origin, request.headers, request.body
    lines = [f"{request.method} {request.target} HTTP/1.1", _host_line(origin), *map(": ".join, headers)]
    if proxy is not None:
        lines[0] = f"{request.method} {origin}{request.target} HTTP/1.1"
        lines += proxy.header_lines
    if body or request.method not in {"GET", "HEAD", "DELETE", "OPTIONS"}:
        lines.append(f"content-length: {len(body)}")
    lines += ("", "")
    # A line break inside a value would be a header, or a request, of somebody else's making. Searched for in the lines
    # without their ends: that takes half of the time in which the ends can be counted.
    text = "".join(lines)
    if "\r" in text or "\n" in text or "\0" in text:
        raise ExchangeError("a header or the path holds a control character", may_have_arrived=False)
    try:
        return "\r\n".join(lines).encode("latin-1")
    except UnicodeEncodeError:
        pass
    raise ExchangeError(
        "a header or the path holds a character that HTTP cannot carry", may_have_arrived=False
    )

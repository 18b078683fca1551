"""Transport over any ``AsyncBaseTransport`` of httpx or httpx2: proxies, HTTP/2, mocks, ASGI applications."""

from __future__ import annotations

import asyncio
import re
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, cast

import httpx
from attrs import define, field

from printos_async._common import optional_httpx2
from printos_async._common.redaction import withhold_credentials_from_logs

from .base import BODILESS, EXCERPT_BYTES, ExchangeError, RawRequest, RawResponse, has_length
from .http1 import request_head

if TYPE_CHECKING:
    from collections.abc import Mapping

# How much longer than the deadline the inner timeouts get to report in their own, more exact words.
_REPORT_GRACE_S = 0.1
_CLOSE_GRACE_S = 0.5
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
# Endings of the names of httpcore's events before a request's head and body are written.
_WRITES = (".send_request_headers.started", ".send_request_body.started")
_VERSIONS = frozenset({"HTTP/1.0", "HTTP/1.1", "HTTP/2", "HTTP/3"})
# Where h11 and h2 begin to quote what they received.
_QUOTATION = re.compile(r"""bytearray\(|\bb['"]""")
_LOCATION = "printos_async.location"


class HttpxTransport:
    """Sends through an ``AsyncBaseTransport`` of httpx or httpx2, which its owner closes.

    Attributes:
        secrets: Empty, for it is not known what the inner transport adds to requests, a proxy's credentials for instance.

    The inner transport manages its connections itself. In particular, a request that waits for one in
    httpx's pool cannot be withdrawn, and httpcore 1.0.9 keeps bytes that follow an answer for the next one.
    """

    secrets: tuple[str, ...] = ()

    def __init__(self, transport: httpx.AsyncBaseTransport | optional_httpx2.AsyncBaseTransport) -> None:
        # Only their own transports name the phase of a failure reliably: others report a server that read
        # the request and hung up as a connection that failed.
        self._names_phases = type(transport) in {httpx.AsyncHTTPTransport, optional_httpx2.AsyncHTTPTransport}
        if isinstance(transport, optional_httpx2.AsyncBaseTransport):
            from .httpx2 import Httpx2Adapter  # noqa: PLC0415  # httpx2 is optional

            transport = Httpx2Adapter(transport)
        # Through a client, not the transport itself, for that is where respx can look in. It is never closed,
        # for that would close the transport. Its jar takes no cookie: one per device would never be freed.
        self._client = httpx.AsyncClient(
            transport=_Muffled(transport),
            trust_env=False,
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        )
        self._exchanges: set[asyncio.Task[RawResponse]] = set()
        self._closed = False
        withhold_credentials_from_logs()

    async def send(self, request: RawRequest, *, deadline: float, max_body_bytes: int) -> RawResponse:
        """Send one request; see ``Transport.send``."""
        loop = asyncio.get_running_loop()
        if self._closed:
            raise ExchangeError("the client was closed", may_have_arrived=False)
        guard = _WriteGuard(deadline, may_have_arrived=not self._names_phases)
        outgoing = _build(request, max(deadline - loop.time(), 0.001), guard)
        # In a task of its own, because httpcore loses a connection slot for good when a call is cancelled.
        exchange = asyncio.create_task(self._exchange(outgoing, deadline, max_body_bytes))
        self._exchanges.add(exchange)
        exchange.add_done_callback(self._forget)
        done, _ = await asyncio.wait((exchange,), timeout=deadline + _REPORT_GRACE_S - loop.time())
        if not done:
            raise ExchangeError(
                "no complete answer in time", may_have_arrived=guard.may_have_arrived, timed_out=True
            )
        if exchange.cancelled():
            raise ExchangeError("the client was closed", may_have_arrived=True)
        return exchange.result()

    async def aclose(self) -> None:
        """Wait a moment for requests in flight, then end them; the transport stays open."""
        self._closed = True
        if self._exchanges:
            _, late = await asyncio.wait(self._exchanges, timeout=_CLOSE_GRACE_S)
            for exchange in late:
                exchange.cancel()
            if late:
                await asyncio.wait(late)

    async def _exchange(self, request: httpx.Request, deadline: float, max_body_bytes: int) -> RawResponse:
        remaining_s = max(deadline - asyncio.get_running_loop().time(), 0.001)
        try:
            # httpx bounds each read, not the whole: a peer that dribbles is cut off here as a last resort.
            async with asyncio.timeout(2 * remaining_s):
                response = await self._client.send(request, stream=True)
                try:
                    return await _read(response, deadline, max_body_bytes)
                finally:
                    await response.aclose()
        except ExchangeError:
            raise
        except TimeoutError:
            failure = ExchangeError("no complete answer in time", may_have_arrived=True, timed_out=True)
        except httpx.TransportError as error:
            never_sent = self._names_phases and isinstance(error, _NEVER_SENT)
            timed_out = isinstance(error, httpx.TimeoutException)
            failure = ExchangeError(_words(error), may_have_arrived=not never_sent, timed_out=timed_out)
        except Exception as error:  # noqa: BLE001  # a transport is anybody's code; its failure is a failed request
            failure = ExchangeError(f"the transport raised {_words(error)}", may_have_arrived=True)
        # Raised here, without a cause or context: the texts of httpx and h11 can quote headers.
        raise failure

    def _forget(self, exchange: asyncio.Task[RawResponse]) -> None:
        self._exchanges.discard(exchange)
        if not exchange.cancelled():
            exchange.exception()  # seen, also where the caller has gone


@define(eq=False)
class _WriteGuard:
    """Lets no part of a request be written after its deadline.

    The timeouts do not: waiting in the pool, connecting, CONNECT and TLS each have a whole one of their own. httpcore and
    httpcore2 call ``trace`` before they write, over HTTP/1.1 and HTTP/2; transports that are not built on them do not.

    Attributes:
        may_have_arrived: Part of the request may have been written.
    """

    _deadline: float
    may_have_arrived: bool = field(kw_only=True)

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Take an event of httpcore."""
        if not event.endswith(_WRITES) or info["request"].method == b"CONNECT":
            return
        if asyncio.get_running_loop().time() >= self._deadline:
            raise ExchangeError("not sent in time", may_have_arrived=self.may_have_arrived, timed_out=True)
        self.may_have_arrived = True


class _Muffled(httpx.AsyncBaseTransport):
    """Hides from httpx's client what it would log or could not parse."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._transport.handle_async_request(request)
        response.extensions.pop("reason_phrase", None)  # the server's own words, logged at INFO
        response.headers.encoding = "latin-1"  # for good, whatever the bytes look like
        # A redirect is looked into even though it is not followed, and an odd address becomes an exception.
        if (location := response.headers.pop("location", None)) is not None:
            response.extensions[_LOCATION] = location
        return response


def _build(request: RawRequest, timeout_s: float, guard: _WriteGuard) -> httpx.Request:
    # Refuses what HTTP cannot carry: h11 would quote it, other transports would send it.
    request_head(request)
    origin = request.origin
    return httpx.Request(
        request.method,
        httpx.URL(
            scheme=origin.scheme, host=origin.host, port=origin.port, raw_path=request.target.encode("ascii")
        ),
        headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers],
        content=request.body,
        extensions={"timeout": httpx.Timeout(timeout_s).as_dict(), "trace": guard.trace},
    )


async def _read(response: httpx.Response, deadline: float, max_body_bytes: int) -> RawResponse:
    loop = asyncio.get_running_loop()
    headers = [(k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in response.headers.raw]
    if (location := response.extensions.get(_LOCATION)) is not None:
        headers.append(("location", location))
    framings = {name for name, _ in headers} & {"content-length", "transfer-encoding"}
    if response.status_code < 200 or response.http_version not in _VERSIONS or len(framings) == 2:
        raise ExchangeError("the answer is not HTTP as expected", may_have_arrived=True)
    if response.status_code in BODILESS and ("transfer-encoding" in framings or has_length(headers)):
        # Left unread: httpcore then ends the connection, on which a body might still come.
        return RawResponse(response.status_code, headers, b"")
    if response.status_code > 299:
        max_body_bytes = min(max_body_bytes, EXCERPT_BYTES)
    chunks: list[bytes] = []
    size = 0
    # Not aiter_raw: a mock's answer with content counts as consumed from the start.
    async for chunk in cast("httpx.AsyncByteStream", response.stream):
        chunks.append(chunk)
        size += len(chunk)
        if size > max_body_bytes:
            break
        if loop.time() > deadline:
            raise ExchangeError("no complete answer in time", may_have_arrived=True, timed_out=True)
    body = b"".join(chunks)
    return RawResponse(response.status_code, headers, body[:max_body_bytes], size > max_body_bytes)


def _words(error: Exception) -> str:
    """Return an error's name and text, up to where it quotes the answer or the request."""
    text = _QUOTATION.split(str(error), maxsplit=1)[0].rstrip(" :(")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

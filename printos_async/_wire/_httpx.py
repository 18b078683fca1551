"""A wire over any ``httpx.AsyncBaseTransport``: proxies, HTTP/2, mocks, ASGI applications."""

from __future__ import annotations

import asyncio
import logging

import httpx

from ._base import WireError, WireRequest, WireResponse

# How much longer than the deadline the inner timeouts get to report in their own, more exact words.
_REPORT_GRACE_S = 0.1
_CLOSE_GRACE_S = 0.5
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_CREDENTIALS = ("set-cookie", "auth-token", "authtoken", "x-hp-hmac", "authorization")


class HttpxWire:
    """Lends itself a transport; the transport stays its owner's to close."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        # Through a client, not the transport itself, for that is where respx can look in. It is never closed,
        # for that would close the transport. Requests are built apart, so no cookie it collects is ever sent.
        self._client = httpx.AsyncClient(transport=transport, trust_env=False, follow_redirects=False)
        # Only httpx's own transport names the phase of a failure reliably: others report a server that read
        # the request and hung up as a connection that failed.
        self._names_phases = type(transport) is httpx.AsyncHTTPTransport
        self._exchanges: set[asyncio.Task[WireResponse]] = set()
        _withhold_credentials_from_logs()

    async def send(self, request: WireRequest, *, deadline: float, max_body_bytes: int) -> WireResponse:
        """Carry one request; see ``Wire.send``."""
        # In a task of its own, because httpcore loses a connection slot for good when a call is cancelled.
        exchange = asyncio.create_task(self._exchange(request, deadline, max_body_bytes))
        self._exchanges.add(exchange)
        exchange.add_done_callback(self._forget)
        try:
            async with asyncio.timeout_at(deadline + _REPORT_GRACE_S):
                return await asyncio.shield(exchange)
        except TimeoutError:
            failure = WireError("no complete answer in time", may_have_arrived=True, timed_out=True)
        raise failure

    async def aclose(self) -> None:
        """Wait a moment for requests in flight, then end them; the transport stays open."""
        if self._exchanges:
            _, late = await asyncio.wait(self._exchanges, timeout=_CLOSE_GRACE_S)
            for exchange in late:
                exchange.cancel()
            if late:
                await asyncio.wait(late)

    async def _exchange(self, request: WireRequest, deadline: float, max_body_bytes: int) -> WireResponse:
        timeout_s = max(deadline - asyncio.get_running_loop().time(), 0.001)
        try:
            # httpx bounds each read, not the whole: a peer that dribbles is cut off here as a last resort.
            async with asyncio.timeout(2 * timeout_s):
                response = await self._client.send(_build(request, timeout_s), stream=True)
                try:
                    return await _read(response, deadline, max_body_bytes)
                finally:
                    await response.aclose()
        except WireError:
            raise
        except TimeoutError:
            failure = WireError("no complete answer in time", may_have_arrived=True, timed_out=True)
        except httpx.TransportError as error:
            never_sent = self._names_phases and isinstance(error, _NEVER_SENT)
            timed_out = isinstance(error, httpx.TimeoutException)
            failure = WireError(
                f"{type(error).__name__}: {error}", may_have_arrived=not never_sent, timed_out=timed_out
            )
        except Exception as error:  # noqa: BLE001  # a transport is anybody's code; its failure is a failed request
            failure = WireError(
                f"the transport raised {type(error).__name__}: {error}", may_have_arrived=True
            )
        # Raised here, without a cause or context: the texts of httpx and h11 can quote headers.
        raise failure

    def _forget(self, exchange: asyncio.Task[WireResponse]) -> None:
        self._exchanges.discard(exchange)
        if not exchange.cancelled():
            exchange.exception()  # seen, also where the caller has gone


def _build(request: WireRequest, timeout_s: float) -> httpx.Request:
    origin = request.origin
    url = httpx.URL(
        scheme=origin.scheme, host=origin.host, port=origin.port, raw_path=request.target.encode("ascii")
    )
    return httpx.Request(
        request.method,
        url,
        headers=list(request.headers),
        content=request.body,
        extensions={"timeout": httpx.Timeout(timeout_s).as_dict()},
    )


async def _read(response: httpx.Response, deadline: float, max_body_bytes: int) -> WireResponse:
    loop = asyncio.get_running_loop()
    chunks: list[bytes] = []
    size = 0
    # The stream itself, as transferred: aiter_raw refuses the ready-made answers of mocks.
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101  # an asynchronous transport gives no other
    async for chunk in stream:
        chunks.append(chunk)
        size += len(chunk)
        if size > max_body_bytes:
            break
        if loop.time() > deadline:
            raise WireError("no complete answer in time", may_have_arrived=True, timed_out=True)
    headers = [(key.lower(), value) for key, value in response.headers.multi_items()]
    body = b"".join(chunks)
    return WireResponse(response.status_code, headers, body[:max_body_bytes], size > max_body_bytes)


def _withhold(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    if any(word in text.lower() for word in _CREDENTIALS):
        record.msg, record.args = "%s [headers withheld: they carry credentials]", (text.split(" ", 1)[0],)
    return True


def _withhold_credentials_from_logs() -> None:
    # At DEBUG these libraries log headers, a login's Set-Cookie among them. addFilter is idempotent.
    for name in ("httpcore.http11", "httpcore.http2", "httpcore.proxy", "hpack.hpack", "hpack.table"):
        logging.getLogger(name).addFilter(_withhold)

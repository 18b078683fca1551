"""Adapter from ``httpx2.AsyncBaseTransport`` to ``httpx.AsyncBaseTransport``; imported only where httpx2 is in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import httpx
import httpx2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Httpx2Adapter(httpx.AsyncBaseTransport):
    """Carries httpx's requests through a transport of httpx2, which its owner closes."""

    def __init__(self, transport: httpx2.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request with its bytes unchanged; errors are httpx's class of the same name."""
        url = httpx2.URL(
            scheme=request.url.scheme,
            # As it is, whatever either knows of international names.
            host=request.url.raw_host.decode("ascii"),
            port=request.url.port,
            raw_path=request.url.raw_path,
        )
        outgoing = httpx2.Request(
            request.method,
            url,
            headers=request.headers.raw,
            content=request.content,
            extensions=request.extensions,
        )
        try:
            response = await self._transport.handle_async_request(outgoing)
        except httpx2.TransportError as error:
            raise _as_httpx(error) from None
        return httpx.Response(
            response.status_code,
            headers=response.headers.raw,
            stream=_Body(cast("httpx2.AsyncByteStream", response.stream)),
            extensions=response.extensions,
        )


class _Body(httpx.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._stream:
                yield chunk
        except httpx2.TransportError as error:
            raise _as_httpx(error) from None

    async def aclose(self) -> None:
        await self._stream.aclose()


def _as_httpx(error: httpx2.TransportError) -> httpx.TransportError:
    """Return httpx's error of the same name, or of the nearest base that httpx has."""
    named = (getattr(httpx, kind.__name__, None) for kind in type(error).__mro__)
    kind = next(kind for kind in named if isinstance(kind, type) and issubclass(kind, httpx.TransportError))
    return kind(str(error))

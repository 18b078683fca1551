"""Origin binding: credentials reach one origin only, in any client of httpx or httpx2.

Both follow redirects without asking the authentication, and copy every header but ``Authorization`` to the next
request, and the body after a 307. They copy the request's extensions too: httpcore, on which their own transports
are built, calls the one named ``trace`` before it writes a header.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from printos_async._common import optional_httpx2
from printos_async._common.redaction import withhold_credentials_from_logs
from printos_async._errors import ConfigurationError

from .base import REPLAY_EXTENSION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class OriginBinding:
    """The origin that credentials go to: that of the first request."""

    __slots__ = ("_origin",)

    def __init__(self) -> None:
        self._origin: httpx.URL | None = None

    def keep(self, request: httpx.Request | optional_httpx2.Request, *, synchronous: bool = False) -> None:
        """Refuse a request to another origin, and make a redirect to one fail before its headers are written.

        Does nothing for a request of ``PrintOSClient``, which has one origin and follows no redirect.

        Raises:
            ConfigurationError: The request goes to another origin than the first one did.
        """
        if REPLAY_EXTENSION in request.extensions:
            return
        origin = httpx.URL(f"{request.url.scheme}://{request.url.netloc.decode('ascii')}/")
        if self._origin is None:
            self._origin = origin
            withhold_credentials_from_logs()
        if self._origin != origin:
            raise ConfigurationError(
                f"these credentials go to {self._origin} only; make an auth for {origin}"
            )
        traced = request.extensions.get("trace")

        def trace(event: str, info: Any) -> Any:
            if event.endswith("send_request_headers.started") and not _goes_to(origin, info["request"]):
                raise ConfigurationError(
                    f"the server redirects to another origin, and these credentials go to {origin} only: "
                    "turn follow_redirects off, or use the address that the server names"
                )
            return traced(event, info) if traced is not None else None

        async def async_trace(event: str, info: Any) -> None:
            awaitable = trace(event, info)
            if awaitable is not None:
                await awaitable

        request.extensions = {**request.extensions, "trace": trace if synchronous else async_trace}


class SentOnce(httpx.AsyncByteStream, optional_httpx2.AsyncByteStream):
    """A body that no redirect can send again."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        body, self._body = self._body, None
        if body is None:
            raise ConfigurationError(
                "the login was redirected, and a password is sent once only: "
                "give the address that the server names as login_url"
            )
        yield body


def _goes_to(origin: httpx.URL, request: Any) -> bool:
    """Return whether an httpcore request, directly or through a proxy, goes to an origin."""
    if request.method == b"CONNECT":
        return True  # to a proxy, and without the credentials
    target: bytes = request.url.target
    address = bytes(request.url) if target.startswith(b"/") else target
    # As httpcore writes it: IPv6 without brackets.
    port = b"" if origin.port is None else b":%d" % origin.port
    return address.startswith(b"%s://%s%s/" % (origin.raw_scheme, origin.raw_host, port))

"""One attempt of a call: sign it, send it, and return a 2xx answer or raise an error of the tree."""

from __future__ import annotations

import asyncio
import math
import os
import time
from typing import TYPE_CHECKING, Any

import httpx

from printos_async import _httpx2
from printos_async._api.body import DecodeError, content
from printos_async._api.errors import secrets_of, status_error, transport_error
from printos_async._auth import REPLAY_EXTENSION, Headers, ReadyAuth
from printos_async._config import origin_of
from printos_async._errors import APIError, ClientClosedError, TransportError
from printos_async._transport import (
    EXCERPT_BYTES,
    ExchangeError,
    Origin,
    RawRequest,
    RawResponse,
    Transport,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from printos_async._api.requests import Call

_HOP_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection"})
# Forks between the first process and this one. Asking for the process's number takes a system call for each attempt.
_forks = [0]


def _count_fork() -> None:
    _forks[0] += 1


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_count_fork)


class AttemptRunner:
    """Sends calls over a transport that is made for the first one, in that event loop and process.

    Attributes:
        now_s: The clock of that event loop. Asking for the running loop each time would cost more than the clock.
    """

    def __init__(
        self,
        *,
        origin: Origin,
        auth: httpx.Auth | _httpx2.Auth | None,
        make_transport: Callable[[], Transport],
        timeout_s: float,
        max_body_bytes: int,
        allow_insecure_http: bool,
    ) -> None:
        self.origin = origin
        self.now_s: Callable[[], float] = time.monotonic  # until open()
        self._auth = auth
        self._ready = auth if isinstance(auth, ReadyAuth) else None
        # Whose requests and responses the flow of the auth takes. Any: their types differ, their interface does not.
        self._flow_library: Any = httpx if isinstance(auth, httpx.Auth) else _httpx2
        self._make_transport = make_transport
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes
        self._max_acknowledgement_bytes = min(max_body_bytes, EXCERPT_BYTES)
        self._allow_insecure_http = allow_insecure_http
        self._transport: Transport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forks = 0
        self._closed = False

    async def run(self, call: Call, *, until_s: float = math.inf) -> RawResponse:
        """Send a call once; a second time only after a 401 that new headers may cure.

        Args:
            call: What to send.
            until_s: By the event loop's clock; nothing is written later, and everything has ended by then, a login
                included.

        Raises:
            APIError: Of the class that fits; ``attempts`` is 1.
            ClientClosedError: The client was closed, or lives in another event loop or process.
            ConfigurationError: The login URL is plain HTTP to another machine.
        """
        transport = self.open()
        request = self._ready_request(call)
        if request is None:
            return await self._flow(transport, call, until_s, replay=False)
        failure: APIError
        try:
            response = await transport.send(
                request,
                deadline=self._deadline_s(until_s),
                max_body_bytes=self._max_acknowledgement_bytes
                if call.method == "PUT"
                else self._max_body_bytes,
            )
        except ExchangeError as error:
            failure = transport_error(call, error, self._secrets(call, request))
        else:
            if 200 <= response.status <= 299:
                return response
            if response.status == 401 and self._ready is not None and self._ready.refused(request.headers):
                return await self._flow(transport, call, until_s, replay=True)
            raise status_error(call, response, self._secrets(call, request))
        raise failure  # outside the handler, so that the transport's own words are not chained to it

    def _ready_request(self, call: Call) -> RawRequest | None:
        """Return the request with its credentials, or None where the flow has to run first."""
        # Not in run(): some tracebacks show the values of locals, and it is from there that errors are raised.
        headers: Headers | None = () if self._auth is None else None
        if self._ready is not None:
            headers = self._ready.headers(call.method, call.path)
        if headers is None:
            return None
        target = f"{call.path}?{call.query}" if call.query else call.path
        return RawRequest(self.origin, call.method, target, call.headers + headers, call.body)

    def open(self) -> Transport:
        """Return the transport; the first call binds the client to the running event loop and process."""
        loop = asyncio.get_running_loop()
        if self._loop is loop and self._transport is not None and self._forks == _forks[0]:
            return self._transport
        if self._closed:
            raise ClientClosedError("the client was closed; make a new one")
        if self._transport is not None:
            kind = "process" if self._forks != _forks[0] else "event loop"
            raise ClientClosedError(f"the client belongs to another {kind}; make one client in each {kind}")
        self._transport, self._loop, self._forks = self._make_transport(), loop, _forks[0]
        self.now_s = loop.time
        return self._transport

    async def aclose(self) -> None:
        """Close the transport; does nothing the second time, or in another event loop or process."""
        transport, self._transport, self._closed = self._transport, None, True
        if transport is not None and self._loop is asyncio.get_running_loop() and self._forks == _forks[0]:
            await transport.aclose()

    def _deadline_s(self, until_s: float) -> float:
        return min(self.now_s() + self._timeout_s, until_s)

    def _secrets(self, call: Call, request: RawRequest) -> set[str]:
        return secrets_of(call, request, self._ready.secrets() if self._ready is not None else ())

    async def _flow(self, transport: Transport, call: Call, until_s: float, *, replay: bool) -> RawResponse:
        """Run the flow of an ``Auth``, which may send requests of its own before and after the call."""
        assert self._auth is not None  # noqa: S101  # without one, run() has returned
        query = f"?{call.query}" if call.query else ""
        own = self._flow_library.Request(
            call.method,
            f"{self.origin}{call.path}{query}",
            headers=dict(call.headers),
            content=call.body,
            extensions={REPLAY_EXTENSION: replay},
        )
        flow: AsyncGenerator[Any, Any] = self._auth.async_auth_flow(own)
        try:
            outgoing = await anext(flow)
            while True:
                request = self._raw_request(outgoing)
                response = await self._send_in_flow(transport, call, request, until_s, is_own=outgoing is own)
                try:
                    outgoing = await flow.asend(self._flow_response(outgoing, response))
                except StopAsyncIteration:
                    break
        finally:
            await flow.aclose()
        if 200 <= response.status <= 299:
            return response
        raise status_error(call, response, self._secrets(call, request))

    async def _send_in_flow(
        self, transport: Transport, call: Call, request: RawRequest, until_s: float, *, is_own: bool
    ) -> RawResponse:
        try:
            return await transport.send(
                request,
                deadline=self._deadline_s(until_s),
                max_body_bytes=self._max_acknowledgement_bytes
                if request.method == "PUT"
                else self._max_body_bytes,
            )
        except ExchangeError as error:
            failure = transport_error(call, error, self._secrets(call, request))
        if not is_own:
            # Login and the like: what failed is not the call, which was not sent or was refused with a 401.
            failure = type(failure)(
                f"authentication failed: {failure.args[0]}",
                method=call.method,
                path=call.path,
                may_have_arrived=False,
            )
        raise failure

    def _raw_request(self, request: httpx.Request) -> RawRequest:
        origin = origin_of(request.url, allow_insecure_http=self._allow_insecure_http)
        headers = tuple(
            (k.lower(), v) for k, v in request.headers.multi_items() if k.lower() not in _HOP_HEADERS
        )
        target = request.url.raw_path.decode("ascii")
        return RawRequest(origin, request.method, target, headers, request.content)

    def _flow_response(self, request: httpx.Request, response: RawResponse) -> Any:
        # httpx would decompress without a limit.
        try:
            max_bytes = self._max_body_bytes if 200 <= response.status <= 299 else EXCERPT_BYTES
            body = content(response, max_bytes=max_bytes)
        except DecodeError:
            body = b""
        # As bytes: httpx takes a header that is text for ASCII only.
        headers = [
            (k.encode("latin-1"), v.encode("latin-1"))
            for k, v in response.headers
            if k not in {"content-encoding", *_HOP_HEADERS}
        ]
        return self._flow_library.Response(response.status, headers=headers, content=body, request=request)


def may_repeat(call: Call, error: APIError) -> bool:
    """Return whether a failed call may be sent again without the risk of applying it twice."""
    if (
        call.replayable or error.path != call.path
    ):  # another path: a login failed, and the call was not applied
        return True
    return isinstance(error, TransportError) and not error.may_have_arrived

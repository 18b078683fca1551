"""One attempt of a call: sign it, send it, and return a 2xx answer or raise an error of the tree."""

from __future__ import annotations

import asyncio
import math
import os
from contextlib import nullcontext
from typing import TYPE_CHECKING

import httpx

from printos_async._api.body import DecodeError, content
from printos_async._api.errors import secrets_of, status_error, transport_error
from printos_async._auth import REPLAY_EXTENSION, Account, Accounts, Headers, SecretUnavailableError
from printos_async._config import origin_of
from printos_async._errors import APIError, ClientClosedError, MissingCredentialsError, TransportError
from printos_async._events import ClockSkewDetected
from printos_async._http import parse_date
from printos_async._transport import (
    EXCERPT_BYTES,
    ExchangeError,
    Origin,
    RawRequest,
    RawResponse,
    Transport,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from printos_async._api.requests import Call
    from printos_async._events import Hooks

# Logins at a time: a fleet whose tokens were all revoked must not storm the login.
_MAX_LOGINS = 16
# Answers whose ``Date`` may say that a signature was refused for its time.
_REFUSED_SIGNATURE = frozenset({401, 403})
_HOP_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection"})


class AttemptRunner:
    """Sends calls over a transport that is made for the first one, in that event loop and process."""

    def __init__(
        self,
        *,
        origin: Origin,
        accounts: Accounts,
        hooks: Hooks,
        make_transport: Callable[[], Transport],
        timeout_s: float,
        max_body_bytes: int,
        allow_insecure_http: bool,
    ) -> None:
        self.origin = origin
        self.accounts = accounts
        self._hooks = hooks
        self._logins = asyncio.Semaphore(_MAX_LOGINS)
        self._make_transport = make_transport
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes
        self._max_acknowledgement_bytes = min(max_body_bytes, EXCERPT_BYTES)
        self._allow_insecure_http = allow_insecure_http
        self._transport: Transport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
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
            MissingCredentialsError: There are no credentials for this request; nothing was sent.
        """
        transport = self.open()
        account = self.accounts.known(call.device_id)
        if account is None or account.must_ask:
            account = await self._find(call, until_s)
        if account.problem:
            raise _no_credentials(call, account.problem)
        try:
            return await self._run(transport, call, account, until_s)
        except SecretUnavailableError as error:
            problem = str(error)
        raise _no_credentials(call, problem)  # outside the handler, so that nothing is chained to it

    async def _run(self, transport: Transport, call: Call, account: Account, until_s: float) -> RawResponse:
        request = self._ready_request(call, account)
        if request is None:
            return await self._flow(transport, call, account, until_s, replay=False)
        started_s = asyncio.get_running_loop().time()
        failure: APIError
        try:
            response = await transport.send(
                request,
                deadline=min(started_s + self._timeout_s, until_s),
                max_body_bytes=self._max_acknowledgement_bytes
                if call.method == "PUT"
                else self._max_body_bytes,
            )
        except ExchangeError as error:
            failure = transport_error(call, error, _secrets(call, request, account))
        else:
            if response.status in _REFUSED_SIGNATURE and self._may_pass(
                account, request, response, started_s
            ):
                return await self._flow(transport, call, account, until_s, replay=True)
            return _successful(call, request, response, account)
        raise failure  # outside the handler, so that the transport's own words are not chained to it

    async def _find(self, call: Call, until_s: float) -> Account:
        """Look the credentials up, within the time of an attempt."""
        try:
            async with asyncio.timeout_at(self._deadline_s(until_s)):
                return await self.accounts.find(call.device_id)
        except TimeoutError:
            pass
        raise _no_credentials(call, "the lookup of its credentials took longer than timeout_s")

    def _may_pass(
        self, account: Account, request: RawRequest, response: RawResponse, started_s: float
    ) -> bool:
        """Return whether a refused request may be accepted with other headers."""
        ready = account.ready
        if ready is None:
            return False
        date_s = None if response.header("age") else parse_date(response.header("date"))
        if date_s is not None:
            # The server wrote it between sending and receiving, and cut it to whole seconds.
            under_way_s = asyncio.get_running_loop().time() - started_s
            skew = ready.learn_clock(date_s + 0.5 + under_way_s / 2)
            if skew is not None:
                self._hooks.emit(ClockSkewDetected(account.label, skew.ahead_s, skew.is_corrected))
                if skew.is_corrected:
                    return True
        return response.status == 401 and ready.refused(request.headers)

    def _ready_request(self, call: Call, account: Account) -> RawRequest | None:
        """Return the request with its credentials, or None where the flow has to run first."""
        # Not in run(): some tracebacks show the values of locals, and it is from there that errors are raised.
        headers: Headers | None = () if account.auth is None else None
        ready = account.ready
        if ready is not None:
            headers = ready.headers(call.method, call.path)
        if headers is None:
            return None
        target = f"{call.path}?{call.query}" if call.query else call.path
        return RawRequest(self.origin, call.method, target, call.headers + headers, call.body)

    def open(self) -> Transport:
        """Return the transport; the first call binds the client to the running event loop and process."""
        loop = asyncio.get_running_loop()
        if self._loop is loop and self._transport is not None and self._pid == os.getpid():
            return self._transport
        if self._closed:
            raise ClientClosedError("the client was closed; make a new one")
        if self._transport is not None:
            kind = "process" if self._pid != os.getpid() else "event loop"
            raise ClientClosedError(f"the client belongs to another {kind}; make one client in each {kind}")
        self._transport, self._loop, self._pid = self._make_transport(), loop, os.getpid()
        return self._transport

    async def aclose(self) -> None:
        """Close the transport; does nothing the second time, or in another event loop or process."""
        transport, self._transport, self._closed = self._transport, None, True
        if transport is not None and self._loop is asyncio.get_running_loop() and self._pid == os.getpid():
            await transport.aclose()

    def _deadline_s(self, until_s: float) -> float:
        deadline_s = asyncio.get_running_loop().time() + self._timeout_s
        return min(deadline_s, until_s)

    async def _flow(
        self, transport: Transport, call: Call, account: Account, until_s: float, *, replay: bool
    ) -> RawResponse:
        """Run the flow of an ``httpx.Auth``, which may send requests of its own before and after the call."""
        assert account.auth is not None  # noqa: S101  # without one, _run() has returned
        query = f"?{call.query}" if call.query else ""
        own = httpx.Request(
            call.method,
            f"{self.origin}{call.path}{query}",
            headers=dict(call.headers),
            content=call.body,
            extensions={REPLAY_EXTENSION: replay},
        )
        flow = account.auth.async_auth_flow(own)
        try:
            outgoing = await anext(flow)
            while True:
                request = self._from_httpx(outgoing)
                is_own = outgoing is own
                async with nullcontext() if is_own else self._logins:
                    response = await self._send_in_flow(
                        transport, call, account, request, until_s, is_own=is_own
                    )
                try:
                    outgoing = await flow.asend(self._to_httpx(outgoing, response))
                except StopAsyncIteration:
                    return _successful(call, request, response, account)
        finally:
            await flow.aclose()

    async def _send_in_flow(
        self,
        transport: Transport,
        call: Call,
        account: Account,
        request: RawRequest,
        until_s: float,
        *,
        is_own: bool,
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
            failure = transport_error(call, error, _secrets(call, request, account))
        if not is_own:
            # Login and the like: what failed is not the call, which was not sent or was refused with a 401.
            failure = type(failure)(
                f"authentication failed: {failure.args[0]}",
                method=call.method,
                path=call.path,
                may_have_arrived=False,
            )
        raise failure

    def _from_httpx(self, request: httpx.Request) -> RawRequest:
        origin = origin_of(request.url, allow_insecure_http=self._allow_insecure_http)
        headers = tuple(
            (k.lower(), v) for k, v in request.headers.multi_items() if k.lower() not in _HOP_HEADERS
        )
        target = request.url.raw_path.decode("ascii")
        return RawRequest(origin, request.method, target, headers, request.content)

    def _to_httpx(self, request: httpx.Request, response: RawResponse) -> httpx.Response:
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
        return httpx.Response(response.status, headers=headers, content=body, request=request)


def _successful(call: Call, request: RawRequest, response: RawResponse, account: Account) -> RawResponse:
    if 200 <= response.status <= 299:
        return response
    raise status_error(call, response, _secrets(call, request, account))


def _secrets(call: Call, request: RawRequest, account: Account) -> set[str]:
    ready = account.ready
    return secrets_of(call, request, ready.secrets() if ready is not None else ())


def _no_credentials(call: Call, problem: str) -> MissingCredentialsError:
    return MissingCredentialsError(problem, method=call.method, path=call.path, attempts=0)


def may_repeat(call: Call, error: APIError) -> bool:
    """Return whether a failed call may be sent again without the risk of applying it twice."""
    if (
        call.replayable or error.path != call.path
    ):  # another path: a login failed, and the call was not applied
        return True
    return isinstance(error, TransportError) and not error.may_have_arrived

"""Flow of an ``Auth`` of httpx or httpx2 over the client's transport: a call, and the requests that authenticate it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import httpx
from attrs import define

from printos_async._api.body import DecodeError, content
from printos_async._api.errors import secrets_of, status_error, transport_error
from printos_async._auth import (
    DATE_HEADER,
    REFUSED_SIGNATURE,
    REPLAY_EXTENSION,
    SecretUnavailableError,
    is_cancelled,
)
from printos_async._common import optional_httpx2
from printos_async._common.http import server_time_s
from printos_async._config import origin_of
from printos_async._errors import MissingCredentialsError, PrintOSError, StatusError, TransportError
from printos_async._transport import EXCERPT_BYTES, ExchangeError, RawRequest, RawResponse

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from printos_async._api.requests import Call
    from printos_async._auth import Account
    from printos_async._transport import Origin, Transport

# Logins at a time: a fleet whose tokens were all revoked must not storm the login.
_MAX_LOGINS = 16
_HOP_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection"})


class AuthFlow:
    """Runs the flows of one client; requests besides the calls, such as logins, are few at a time."""

    def __init__(self, origin: Origin, *, max_body_bytes: int, allow_insecure_http: bool) -> None:
        self._origin = origin
        self._max_body_bytes = max_body_bytes
        self._allow_insecure_http = allow_insecure_http
        self._logins = asyncio.Semaphore(_MAX_LOGINS)

    async def run(
        self,
        transport: Transport,
        call: Call,
        account: Account,
        deadline_s: Callable[[], float],
        *,
        replay: bool,
    ) -> RawResponse:
        """Send a call with all that its flow sends besides.

        Args:
            transport: Carries the requests.
            call: What to send.
            account: Whose credentials have the flow.
            deadline_s: Returns the time, by the event loop's clock, by which a request that starts now has to end.
            replay: The call was refused once already.

        Returns:
            The 2xx answer to the call.

        Raises:
            APIError: A request got no answer, the call another one, or the login was refused; ``attempts`` is 1.
            MissingCredentialsError: A secret is missing, or the flow of an ``Auth`` that is not ours failed before it
                sent the call.
            ConfigurationError: The login URL is plain HTTP to another machine.
        """
        assert account.auth is not None  # noqa: S101  # without one, there is no flow
        query = f"?{call.query}" if call.query else ""
        # Whose requests and responses the flow takes. Any: their types differ, their interface does not.
        library: Any = httpx if isinstance(account.auth, httpx.Auth) else optional_httpx2
        own = library.Request(
            call.method,
            f"{self._origin}{call.path}{query}",
            headers=dict(call.headers),
            content=call.body,
            extensions={REPLAY_EXTENSION: replay},
        )
        flow = _Flow(account.auth, own)
        had_login, answer = False, None
        last: tuple[RawRequest, RawResponse] | None = None
        last_own: tuple[RawRequest, RawResponse] | None = None
        try:
            while (outgoing := await flow.send(answer)) is not None:
                request = self._raw_request(outgoing)
                is_own = outgoing is own
                had_login = had_login or not is_own
                async with nullcontext() if is_own else self._login_turn(call, deadline_s()):
                    response = await self._send(transport, call, account, request, deadline_s())
                last = request, response
                last_own = last if is_own else last_own
                answer = library.Response(request=outgoing, **self._answer(response))
        finally:
            await flow.aclose()
        if flow.failure:
            last = last_own  # what the flow would have done after the call's answer is left out
        if last is None or flow.problem:
            raise no_credentials(
                call, flow.problem or f"its credentials failed: {flow.failure or 'it sent no request'}"
            )
        request, response = last
        response.had_login = had_login
        if 200 <= response.status <= 299:
            return response
        raise refusal(transport, call, account, request, response)

    @asynccontextmanager
    async def _login_turn(self, call: Call, deadline_s: float) -> AsyncIterator[None]:
        """Wait until a login or the like may be sent: a few are allowed at a time."""
        has_turn = False
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline_s):
                has_turn = await self._logins.acquire()
        if not has_turn:
            raise TransportError(
                f"authentication failed: {_MAX_LOGINS} logins are under way, and none ended within timeout_s",
                method=call.method,
                path=call.path,
                may_have_arrived=False,
                local=True,
            )
        try:
            yield
        except TransportError as failure:
            # What failed is not the call, which was not sent or was refused with a 401.
            failure.args = (f"authentication failed: {failure.args[0]}",)
            failure.may_have_arrived = False
            raise
        finally:
            self._logins.release()

    async def _send(
        self, transport: Transport, call: Call, account: Account, request: RawRequest, deadline_s: float
    ) -> RawResponse:
        max_bytes = body_limit(request.method, self._max_body_bytes)
        try:
            return await transport.send(request, deadline=deadline_s, max_body_bytes=max_bytes)
        except ExchangeError as error:
            failure = transport_error(call, error, request_secrets(transport, call, request, account))
        raise failure  # outside the handler, so that the transport's own words are not chained to it

    def _raw_request(self, request: httpx.Request) -> RawRequest:
        origin = origin_of(request.url, allow_insecure_http=self._allow_insecure_http)
        headers = tuple(
            (k.lower(), v) for k, v in request.headers.multi_items() if k.lower() not in _HOP_HEADERS
        )
        target = request.url.raw_path.decode("ascii")
        return RawRequest(origin, request.method, target, headers, request.content)

    def _answer(self, response: RawResponse) -> dict[str, Any]:
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
        return {"status_code": response.status, "headers": headers, "content": body}


@define(eq=False, repr=False)
class _Flow:
    """The flow of an ``Auth``, which may be the caller's own code.

    Attributes:
        problem: Why a secret is missing; empty if none is.
        failure: The class of what it or a request's body raised, by name only: the text may hold a secret. Empty if
            nothing failed.
    """

    _auth: Any
    _own: Any
    _flow: AsyncGenerator[Any, Any] | None = None
    problem: str = ""
    failure: str = ""

    async def send(self, response: Any | None) -> Any | None:
        """Return the request that follows a response, with its body read; the first one for None, None after the last.

        Raises:
            PrintOSError: As the flow raised it.
        """
        try:
            if self._flow is None:
                self._flow = self._auth.async_auth_flow(self._own)
            outgoing = await self._flow.asend(response)
            await outgoing.aread()  # its body may be a stream
        except SecretUnavailableError as error:
            self.problem = str(error)
            return None
        except PrintOSError:
            raise
        except StopAsyncIteration:
            return None
        except Exception as error:  # noqa: BLE001  # the caller's code: a token service, a file
            self.failure = type(error).__name__
        else:
            return outgoing
        if is_cancelled():
            raise asyncio.CancelledError
        return None

    async def aclose(self) -> None:
        """End the flow."""
        if self._flow is not None:
            with suppress(Exception):
                # The caller's code: the request has ended, whatever its cleaning up raises.
                await self._flow.aclose()


def body_limit(method: str, max_body_bytes: int) -> int:
    """Return how many bytes of an answer's body are read: little of the answer to a status."""
    return min(max_body_bytes, EXCERPT_BYTES) if method == "PUT" else max_body_bytes


def request_secrets(transport: Transport, call: Call, request: RawRequest, account: Account) -> set[str]:
    """Return what must not be quoted of a request: its account's secrets, and what was added to it on its way."""
    ready = account.ready
    of_account = ready.secrets() if ready is not None else ()
    return secrets_of(call, request, (*transport.secrets, *of_account))


def refusal(
    transport: Transport, call: Call, account: Account, request: RawRequest, response: RawResponse
) -> StatusError:
    """Return the error for an answer other than 2xx."""
    hint = ""
    is_signed = any(name == DATE_HEADER for name, _ in request.headers)
    if response.status in REFUSED_SIGNATURE and is_signed and server_clock_s(response) is None:
        hint = "check the clock"  # nothing tells whether it is right
    return status_error(call, response, request_secrets(transport, call, request, account), hint=hint)


def server_clock_s(response: RawResponse, *, under_way_s: float = 0.0) -> float | None:
    """As ``server_time_s``."""
    return server_time_s(response.header("date"), age=response.header("age"), under_way_s=under_way_s)


def no_credentials(call: Call, problem: str) -> MissingCredentialsError:
    """Return the error for a call that was not sent."""
    return MissingCredentialsError(problem, method=call.method, path=call.path, attempts=0)

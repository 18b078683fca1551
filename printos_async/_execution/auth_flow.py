"""Flow of an ``Auth`` of httpx or httpx2 over the client's transport: a call, and the requests that authenticate it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import httpx

from printos_async import _httpx2
from printos_async._api.body import DecodeError, content
from printos_async._api.errors import secrets_of, transport_error
from printos_async._auth import REPLAY_EXTENSION
from printos_async._config import origin_of
from printos_async._errors import TransportError
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
    ) -> tuple[RawRequest, RawResponse]:
        """Send a call with all that its flow sends besides.

        Args:
            transport: Carries the requests.
            call: What to send.
            account: Whose credentials have the flow.
            deadline_s: Returns the time, by the event loop's clock, by which a request that starts now has to end.
            replay: The call was refused once already.

        Returns:
            The call's last request, and the answer to it.

        Raises:
            APIError: A request got no answer, or the login was refused; ``attempts`` is 1.
            ConfigurationError: The login URL is plain HTTP to another machine.
        """
        assert account.auth is not None  # noqa: S101  # without one, there is no flow
        query = f"?{call.query}" if call.query else ""
        # Whose requests and responses the flow takes. Any: their types differ, their interface does not.
        library: Any = httpx if isinstance(account.auth, httpx.Auth) else _httpx2
        own = library.Request(
            call.method,
            f"{self._origin}{call.path}{query}",
            headers=dict(call.headers),
            content=call.body,
            extensions={REPLAY_EXTENSION: replay},
        )
        flow: AsyncGenerator[Any, Any] = account.auth.async_auth_flow(own)
        had_login = False
        try:
            outgoing = await anext(flow)
            while True:
                request = self._raw_request(outgoing)
                is_own = outgoing is own
                had_login = had_login or not is_own
                async with nullcontext() if is_own else self._turn(call, deadline_s()):
                    response = await self._send(
                        transport, call, account, request, deadline_s(), is_own=is_own
                    )
                try:
                    outgoing = await flow.asend(library.Response(request=outgoing, **self._answer(response)))
                except StopAsyncIteration:
                    break
        finally:
            await flow.aclose()
        response.had_login = had_login
        return request, response

    @asynccontextmanager
    async def _turn(self, call: Call, deadline_s: float) -> AsyncIterator[None]:
        """Wait for one of the logins that are allowed at a time."""
        try:
            async with asyncio.timeout_at(deadline_s):
                await self._logins.acquire()
        except TimeoutError:
            waited_in_vain = True
        else:
            waited_in_vain = False
        if waited_in_vain:  # outside the handler, so that nothing is chained to it
            raise TransportError(
                f"authentication failed: {_MAX_LOGINS} logins are under way, and none ended within timeout_s",
                method=call.method,
                path=call.path,
                may_have_arrived=False,
                local=True,
            )
        try:
            yield
        finally:
            self._logins.release()

    async def _send(
        self,
        transport: Transport,
        call: Call,
        account: Account,
        request: RawRequest,
        deadline_s: float,
        *,
        is_own: bool,
    ) -> RawResponse:
        max_bytes = body_limit(request.method, self._max_body_bytes)
        try:
            return await transport.send(request, deadline=deadline_s, max_body_bytes=max_bytes)
        except ExchangeError as error:
            failure = transport_error(call, error, request_secrets(call, request, account))
        if not is_own:
            # Login and the like: what failed is not the call, which was not sent or was refused with a 401.
            failure.args = (f"authentication failed: {failure.args[0]}",)
            failure.may_have_arrived = False
        raise failure

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


def body_limit(method: str, max_body_bytes: int) -> int:
    """Return how many bytes of an answer's body are read: little of the answer to a status."""
    return min(max_body_bytes, EXCERPT_BYTES) if method == "PUT" else max_body_bytes


def request_secrets(call: Call, request: RawRequest, account: Account) -> set[str]:
    """Return what must not be quoted of a request: its account's secrets, and what authentication put into it."""
    ready = account.ready
    return secrets_of(call, request, ready.secrets() if ready is not None else ())

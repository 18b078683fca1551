"""One attempt of a call: sign it, send it, and return a 2xx answer or raise an error of the tree."""

from __future__ import annotations

import asyncio
import math
import os
import time
from functools import partial
from typing import TYPE_CHECKING

from attrs import define, evolve, field

from printos_async._api.errors import transport_error
from printos_async._auth import REFUSED_SIGNATURE, SecretUnavailableError
from printos_async._errors import ClientClosedError, TransportError
from printos_async._transport import ExchangeError, RawRequest

from .auth_flow import body_limit, no_credentials, refusal, request_secrets, server_clock_s

if TYPE_CHECKING:
    from collections.abc import Callable

    from printos_async._api.requests import Call
    from printos_async._auth import Account, Accounts, Headers
    from printos_async._errors import APIError
    from printos_async._events import Hooks
    from printos_async._transport import Origin, RawResponse, Transport

    from .auth_flow import AuthFlow

# Forks between the first process and this one. Asking for the process's number takes a system call for each attempt.
_forks = [0]


def _count_fork() -> None:
    _forks[0] += 1


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_count_fork)


@define(eq=False, repr=False, kw_only=True)
class AttemptRunner:
    """Sends calls over a transport that is made for the first one, in that event loop and process.

    Attributes:
        now_s: The clock of that event loop. Asking for the running loop each time would cost more than the clock.
    """

    origin: Origin
    accounts: Accounts
    _hooks: Hooks
    _auth_flow: AuthFlow
    _make_transport: Callable[[], Transport]
    _timeout_s: float
    _max_body_bytes: int
    _max_acknowledgement_bytes: int = field(init=False)
    now_s: Callable[[], float] = field(default=time.monotonic, init=False)  # until open()
    _transport: Transport | None = field(default=None, init=False)
    _loop: asyncio.AbstractEventLoop | None = field(default=None, init=False)
    _forks: int = field(default=0, init=False)
    _closed: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._max_acknowledgement_bytes = body_limit("PUT", self._max_body_bytes)

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
            account = await self.accounts.find(call.device_id, deadline_s=self.deadline_s(until_s))
        request = self._ready_request(call, account)
        if request is not None:
            started_s = self.now_s()
            failure: APIError | None = None
            max_bytes = self._max_acknowledgement_bytes if call.method == "PUT" else self._max_body_bytes
            try:
                response = await transport.send(
                    request, deadline=min(started_s + self._timeout_s, until_s), max_body_bytes=max_bytes
                )
            except ExchangeError as error:
                failure = transport_error(call, error, request_secrets(transport, call, request, account))
            else:
                if 200 <= response.status <= 299:
                    return response
                if not self._may_pass(call, account, request, response, started_s):
                    raise refusal(transport, call, account, request, response)
            if failure is not None:
                raise failure  # outside the handler, so that the transport's own words are not chained to it
        return await self._auth_flow.run(
            transport, call, account, partial(self.deadline_s, until_s), replay=request is not None
        )

    def _may_pass(
        self, call: Call, account: Account, request: RawRequest, response: RawResponse, started_s: float
    ) -> bool:
        """Return whether a refused request may be accepted with other headers."""
        if response.status not in REFUSED_SIGNATURE or account.ready is None:
            return False
        return account.ready.may_pass(
            call.method,
            call.path,
            request.headers,
            status=response.status,
            server_s=server_clock_s(response, under_way_s=self.now_s() - started_s),
            emit=lambda skew: self._hooks.emit(evolve(skew, account=account.label)),
        )

    def _ready_request(self, call: Call, account: Account) -> RawRequest | None:
        """Return the request with its credentials, or None where the flow has to run first."""
        # Not in run(): some tracebacks show the values of locals, and it is from there that errors are raised.
        headers: Headers | None = () if account.auth is None else None
        ready, problem = account.ready, account.problem
        if ready is not None and not problem:
            try:
                headers = ready.headers(call.method, call.path)
            except SecretUnavailableError as error:
                problem = str(error)
        if problem:  # outside the handler, so that nothing is chained to it
            raise no_credentials(call, problem)
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

    def deadline_s(self, until_s: float) -> float:
        """Return the time by which what starts now has to end."""
        return min(self.now_s() + self._timeout_s, until_s)


def may_repeat(call: Call, error: APIError) -> bool:
    """Return whether a failed call may be sent again without the risk of applying it twice."""
    # Another path: a login failed, and the call was not applied.
    if call.replayable or error.path != call.path:
        return True
    return isinstance(error, TransportError) and not error.may_have_arrived

"""Credentials that note the answers to what is sent with them, those to a login included."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx
from attrs import frozen

from printos_async._auth.base import ReadyAuth
from printos_async._common.http import is_intermediary_page, server_time_s

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from printos_async._auth import Headers
    from printos_async._auth.base import Request, Response


@frozen
class Answer:
    """An answer to one request.

    Attributes:
        is_login: The request was not the call itself.
        status: Its status code.
        ahead_s: Seconds by which the server's clock is ahead of this machine's; None if the answer does not tell.
        is_page: It is HTML or XML.
    """

    is_login: bool
    status: int
    ahead_s: float | None
    is_page: bool


class ObservedAuth(ReadyAuth):
    """An authentication, or none, whose answers are kept.

    Attributes:
        is_anonymous: Whether no credentials are sent.
        answers: The answers so far.

    Args:
        auth: The authentication; None sends no credentials.
    """

    def __init__(self, auth: ReadyAuth | None) -> None:
        self._auth = auth
        self.is_anonymous = auth is None
        self.answers: list[Answer] = []

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._auth!r})"

    @property
    def account(self) -> str:
        """The key or the login."""
        return "nobody" if self._auth is None else self._auth.account

    @property
    def ahead_s(self) -> float | None:
        """Seconds by which the server's clock is ahead, by the last answer that tells; None if none does."""
        # A page comes from something between, with a clock of its own.
        known = [one.ahead_s for one in self.answers if one.ahead_s is not None and not one.is_page]
        return known[-1] if known else None

    def headers(self, method: str, path: str) -> Headers | None:  # noqa: ARG002
        """Return None: only the flow sees answers."""
        return None

    def refused(self, headers: Headers) -> bool:  # noqa: ARG002
        """Return False: nothing is sent a second time behind the check's back."""
        return False

    def correct_clock(self) -> bool:
        """Sign with the server's time from now on; return whether that changes what is sent."""
        if self._auth is None or self.ahead_s is None:
            return False
        skew = self._auth.learn_clock(time.time() + self.ahead_s)
        return skew is not None and skew.is_corrected

    def secrets(self) -> Iterable[str]:
        """Return what must not be repeated in any message."""
        return () if self._auth is None else self._auth.secrets()

    async def async_auth_flow(self, request: Request) -> AsyncGenerator[Request, Any]:
        """Authenticate a request."""
        auth: Any = self._auth or httpx.Auth()  # their flows take requests of httpx and httpx2
        flow: AsyncGenerator[Request, Any] = auth.async_auth_flow(request)
        try:
            outgoing = await anext(flow)
            while True:
                started_s = time.monotonic()
                response = yield outgoing
                self._note(response, started_s, is_login=outgoing is not request)
                try:
                    outgoing = await flow.asend(response)
                except StopAsyncIteration:
                    return
        finally:
            await flow.aclose()

    def _note(self, response: Response, started_s: float, *, is_login: bool) -> None:
        headers = response.headers
        server_s = server_time_s(
            headers.get("date"), age=headers.get("age"), under_way_s=time.monotonic() - started_s
        )
        ahead_s = None if server_s is None else server_s - time.time()
        is_page = is_intermediary_page(response.content, headers.get("content-type"))
        self.answers.append(Answer(is_login, response.status_code, ahead_s, is_page))

"""Session tokens: one login, its token in every request, another login after a 401."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Any

import httpx
from attrs import define, field

from printos_async._errors import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    StatusError,
    TransportError,
)

from .base import REPLAY_EXTENSION, Headers, ReadyAuth, Secret, secret_problem, source_problem
from .login_response import TOKEN_HEADER, token_in
from .origin_binding import OriginBinding, SentOnce

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from typing import NoReturn

    from printos_async._common import optional_httpx2

    from .base import Request, Response, SecretSource

DEFAULT_LOGIN_URL = "/api/aaa/v1/devices/login"
# A refused login is not tried again for this long, by any caller; nor a login whose token was refused at once.
REFUSED_LOGIN_HOLD_S = 30.0
# A server that asks for a longer pause than this, by ``Retry-After``, gets a login all the same.
MAX_LOGIN_HOLD_S = 3600.0


class SessionTokenAuth(ReadyAuth):
    """Logs in once and sends the session token; logs in again when the server answers 401.

    If several requests find the token missing or refused at once, one of them logs in. A refused request is
    repeated once, with the new token. A token that was never accepted is kept for 30 s, because another one would
    be refused as well.

    In other clients of httpx and httpx2 the token goes to one origin, that of the first request. A request or a
    redirect to another one raises ``ConfigurationError``. A redirect of the login is refused: the password is sent
    once.

    Args:
        login: The device login.
        password: Its password; or a function that returns it, which is called on the event loop for each login, so
            that a rotated password needs no restart. It must not block for long.
        login_url: Where to log in; absolute, or relative to the base URL's origin.

    Raises:
        ConfigurationError: A value is empty or cannot be sent, or the login URL holds credentials.

    Source: HP's description of ``POST /api/aaa/v1/devices/login`` and ``Indigo-SmS-Auth-Token``. The answer's
    expiry is a hint only, so 401 decides.
    """

    def __init__(self, login: str, password: SecretSource, *, login_url: str = DEFAULT_LOGIN_URL) -> None:
        problem = (
            secret_problem("login", login)
            or source_problem("password", password)
            or _login_url_problem(login_url)
        )
        if problem:
            del password, login_url  # some tracebacks show the values of locals
            raise ConfigurationError(problem)
        self._login = login
        self._password = Secret("password", password)
        self._login_url = login_url
        self._token: _Token | None = None
        self._binding = OriginBinding()
        self._logins = 0  # logins tried; lets a waiter see that another request tried while it waited
        self._failure: APIError | None = None  # why the last one failed
        self._held_until_s = 0.0
        self._lock: asyncio.Lock | None = None
        self._lock_loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        login_url = getattr(self, "_login_url", "")  # missing in the traceback of one that was refused
        return f"{type(self).__name__}(login_url={login_url!r})"

    @property
    def account(self) -> str:
        """The login."""
        return f"login {self._login}"

    def headers(self, method: str, path: str) -> Headers | None:  # noqa: ARG002
        """Return the token's header, or None while no token is known to work."""
        token = self._token
        return token.headers if token is not None and token.worked else None

    def refused(self, headers: Headers) -> bool:
        """Forget the token if it is still the refused one; return whether another can be had."""
        token = self._token
        return token is None or token.headers[0] not in headers or self._forget(token)

    def secrets(self) -> tuple[str, ...]:
        """Return passwords and token."""
        passwords = self._password.known()
        return passwords if self._token is None else (*passwords, self._token.headers[0][1])

    def refresh(self) -> None:
        """Ask for the password again, and let the next request log in if the last login was refused."""
        self._held_until_s = 0.0
        self._password.ask()

    def sync_auth_flow(self, request: Request) -> NoReturn:  # noqa: ARG002
        """Refuse: the token is shared by the tasks of an event loop."""
        raise ConfigurationError(
            "SessionTokenAuth works with asyncio clients only; use httpx.AsyncClient or httpx2.AsyncClient"
        )

    async def async_auth_flow(self, request: Request) -> AsyncGenerator[Request, Any]:
        """Authenticate a request of any client of httpx or httpx2."""
        replayed = bool(request.extensions.get(REPLAY_EXTENSION))
        self._binding.keep(request)
        while True:
            if self._token is None:
                tried_before = self._logins
                async with self._single_flight():
                    if self._token is None:
                        # Somebody tried in vain while this one waited: a fleet that asks one after the other would
                        # wait for a timeout each. Or refused a moment ago: many logins could lock the account.
                        tried_in_vain = self._failure is not None and self._logins != tried_before
                        if tried_in_vain or (not self._password.ask() and self._held_s() > 0):
                            raise self._failure_again()
                        self._logins += 1
                        self._held_until_s = 0.0
                        login = self._login_request(request)
                        self._failure = _unfinished(login)  # until there is an answer
                        response: Response = yield login
                        if response.history and response.request is not login:
                            response = response.history[-1]  # a redirect: nothing from elsewhere is a token
                        await response.aread()
                        self._token = self._take_token(response)
            token = self._token
            request.headers.update(dict(token.headers))
            response = yield request
            if response.status_code != 401:
                token.worked = token.worked or response.status_code < 500
                return
            if replayed or not self._forget(token):
                return
            replayed = True

    def _forget(self, token: _Token) -> bool:
        """Forget a refused token; return False where another login would not help either."""
        now_s = asyncio.get_running_loop().time()
        if not token.worked and now_s - token.since_s < REFUSED_LOGIN_HOLD_S:
            # Kept: the server may refuse this one request only, and others may show that the token is good.
            return False
        if token is self._token:
            self._token = None
        return True

    def _held_s(self) -> float:
        """Return the seconds for which no login is tried, because the last one was refused or told to wait."""
        return self._held_until_s - asyncio.get_running_loop().time()

    def _failure_again(self) -> APIError:
        error = copy.copy(self._failure)
        assert error is not None  # noqa: S101  # a login is held because one has failed
        error.attempts = 0  # nothing was sent: it says nothing new of the host
        if isinstance(error, StatusError) and error.retry_after_s is not None:
            error.retry_after_s = max(0.0, self._held_s())
        return error

    def _single_flight(self) -> asyncio.Lock:
        loop = asyncio.get_running_loop()
        if self._lock is None or self._lock_loop is not loop:
            self._lock, self._lock_loop = asyncio.Lock(), loop
        return self._lock

    def _login_request(self, request: Request) -> Request:
        login = type(request)(
            "POST",
            request.url.join(self._login_url),
            json={"login": self._login, "password": self._password.value},
            headers={"accept": "application/json"},
        )
        login.stream = SentOnce(login.content)
        return login

    def _take_token(self, response: Response) -> _Token:
        now_s = asyncio.get_running_loop().time()
        found = token_in(response)
        if isinstance(found, str):
            self._failure = None
            return _Token(((TOKEN_HEADER.lower(), found),), now_s)
        self._failure = found
        if isinstance(found, StatusError):
            least_s = REFUSED_LOGIN_HOLD_S if isinstance(found, AuthenticationError) else 0.0
            self._held_until_s = now_s + min(max(found.retry_after_s or 0.0, least_s), MAX_LOGIN_HOLD_S)
        raise copy.copy(found)


@define(eq=False, repr=False)
class _Token:
    """A session token; without a repr, for it is a secret."""

    headers: Headers = field(repr=False)
    since_s: float
    worked: bool = False  # a request with it was answered other than 401


def _unfinished(login: httpx.Request | optional_httpx2.Request) -> TransportError:
    return TransportError(
        "the login that this request waited for did not end",
        method="POST",
        path=login.url.path,
        may_have_arrived=False,
    )


def _login_url_problem(value: object) -> str:
    # A path with a colon in front is none, and would be joined as a scheme: ":a:" to "a:".
    if not isinstance(value, str) or not value or value.startswith(":"):
        return "login_url must be an absolute HTTP URL, or a path"
    try:
        url = httpx.URL(value)
        has_host = bool(url.host)
    except (httpx.InvalidURL, ValueError):
        return "login_url is not a URL"
    # An address without a host is neither: "//:0" would be joined to "https://:0".
    if url.scheme not in {"", "http", "https"} or bool(url.scheme or url.netloc) > has_host:
        return "login_url must be an absolute HTTP URL, or a path"
    return "login_url must not hold credentials" if url.userinfo else ""

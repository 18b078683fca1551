"""PrintOS HMAC: credentials that sign each request.

The signed text is ``METHOD + " " + path + timestamp``, with nothing between path and timestamp, and without host,
query and body.

Source: HP's documents and samples.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from printos_async._errors import ConfigurationError

from .base import Headers, ReadyAuth, Request, secret_problem
from .origin_binding import OriginBinding

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

ALGORITHM = "SHA256"
AUTHENTICATION_HEADER = "x-hp-hmac-authentication"
DATE_HEADER = "x-hp-hmac-date"
ALGORITHM_HEADER = "x-hp-hmac-algorithm"


class HmacAuth(ReadyAuth):
    """Signs every request with a PrintOS device key and its secret.

    In other clients of httpx and httpx2 it signs requests to one origin, that of the first request. A request or a
    redirect to another one raises ``ConfigurationError``: they would take the signature along.

    Args:
        key: The key, visible ASCII characters.
        secret: The secret that belongs to it; any text.
        clock: Returns the seconds since the epoch. PrintOS refuses a date that is far from its own.

    Raises:
        ConfigurationError: Key or secret is empty or cannot be sent.

    Source: HP's description of ``x-hp-hmac-authentication`` and its samples.
    """

    def __init__(self, key: str, secret: str, *, clock: Callable[[], float] = time.time) -> None:
        problem = _key_problem(key) or secret_problem("secret", secret)
        if problem:
            del secret  # some tracebacks show the values of locals
            raise ConfigurationError(problem)
        self._key = key
        self._secret = secret
        self._binding = OriginBinding()
        self._keyed_hmac = keyed(secret.encode())
        self._clock = clock
        self._millisecond = -1
        self._timestamp = ""

    def __repr__(self) -> str:
        key = getattr(self, "_key", "")  # missing in the traceback of one that was refused
        return f"{type(self).__name__}(key={key[:4] + '…'!r})"

    @property
    def account(self) -> str:
        """The key."""
        return f"key {self._key}"

    def headers(self, method: str, path: str) -> Headers:
        """Sign one attempt, now."""
        now = self._clock()
        millisecond = int(now * 1000)
        if millisecond != self._millisecond:  # many attempts share one; formatting costs as much as signing
            self._millisecond, self._timestamp = millisecond, format_timestamp(now)
        signature = sign(self._keyed_hmac, method, path, self._timestamp)
        return (
            (AUTHENTICATION_HEADER, f"{self._key}:{signature}"),
            (DATE_HEADER, self._timestamp),
            (ALGORITHM_HEADER, ALGORITHM),
        )

    def refused(self, headers: Headers) -> bool:  # noqa: ARG002
        """Return False: a key does not expire, so there are no other headers."""
        return False

    def secrets(self) -> tuple[str, ...]:
        """Return the secret."""
        return (self._secret,)

    def sync_auth_flow(self, request: Request) -> Generator[Request, Any, None]:
        """Sign a request of a synchronous client."""
        self._binding.keep(request, synchronous=True)
        yield from self.auth_flow(request)

    async def async_auth_flow(self, request: Request) -> AsyncGenerator[Request, Any]:
        """Sign a request of an asynchronous client."""
        self._binding.keep(request)
        for signed in self.auth_flow(request):
            yield signed

    def auth_flow(self, request: Request) -> Generator[Request, Any, None]:
        """Sign a request."""
        path = request.url.raw_path.partition(b"?")[0].decode("ascii")
        request.headers.update(dict(self.headers(request.method, path)))
        yield request


def format_timestamp(time_s: float) -> str:
    """Return seconds since the epoch as ``YYYY-MM-DDThh:mm:ss.sssZ``."""
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def keyed(secret: bytes) -> hmac.HMAC:
    """Return an HMAC that holds the secret. A copy of it costs a third of a new one."""
    return hmac.new(secret, digestmod=hashlib.sha256)


def sign(keyed_hmac: hmac.HMAC, method: str, path: str, timestamp: str) -> str:
    """Return the signature in lower-case hex.

    Args:
        keyed_hmac: From ``keyed``; it is copied, not changed.
        method: In capitals.
        path: The request's path as sent, percent-encoded, without the query.
        timestamp: As in the date header.
    """
    signature = keyed_hmac.copy()
    signature.update(f"{method} {path}{timestamp}".encode())
    return signature.hexdigest()


def _key_problem(value: object) -> str:
    if not isinstance(value, str) or not value or not all("!" <= c <= "~" for c in value) or ":" in value:
        return "key must be visible ASCII characters without a colon"
    return ""

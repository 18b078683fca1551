"""PrintOS HMAC: credentials that sign each request.

The signed text is ``METHOD + " " + path + timestamp``, with nothing between path and timestamp, and without host,
query and body.

Source: HP's documents and samples.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from printos_async._common.http import server_time_s
from printos_async._errors import ConfigurationError
from printos_async._events import ClockSkewDetected
from printos_async._events.log import log_event

from .base import REPLAY_EXTENSION, Headers, ReadyAuth, Secret, source_problem
from .origin_binding import OriginBinding

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from .base import Request, SecretSource

ALGORITHM = "SHA256"
AUTHENTICATION_HEADER = "x-hp-hmac-authentication"
DATE_HEADER = "x-hp-hmac-date"
ALGORITHM_HEADER = "x-hp-hmac-algorithm"

# Answers whose ``Date`` may say that a signature was refused for its time.
REFUSED_SIGNATURE = frozenset({401, 403})
# A smaller difference is none: a server's ``Date`` has whole seconds, and PrintOS accepts minutes.
MIN_SKEW_S = 60.0
# A larger one is no clock that is off, but a machine without a clock or a wrong answer.
MAX_SKEW_S = 86_400.0


class HmacAuth(ReadyAuth):
    """Signs every request with a PrintOS device key and its secret.

    Where PrintOS refuses a signature and its ``Date`` is more than a minute away from this machine's clock, the
    request is signed once more with PrintOS's time, and so are all that follow; a difference of more than a day is
    reported only. The event ``ClockSkewDetected`` says so.

    In other clients of httpx and httpx2 it signs requests to one origin, that of the first request. A request or a
    redirect to another one raises ``ConfigurationError``: they would take the signature along.

    Args:
        key: The key, visible ASCII characters.
        secret: The secret that belongs to it, any text; or a function that returns it. The function is called on the
            event loop when the first request is signed, and again when PrintOS refuses a signature, so that a rotated
            secret needs no restart. It must not block for long.
        clock: Returns the seconds since the epoch. PrintOS refuses a date that is far from its own.

    Raises:
        ConfigurationError: Key or secret is empty or cannot be sent.

    Source: HP's description of ``x-hp-hmac-authentication`` and its samples.
    """

    def __init__(self, key: str, secret: SecretSource, *, clock: Callable[[], float] = time.time) -> None:
        problem = key_problem(key) or source_problem("secret", secret)
        if problem:
            del secret  # some tracebacks show the values of locals
            raise ConfigurationError(problem)
        self._key = key
        self._secret = Secret("secret", secret)
        self._binding = OriginBinding()
        self._keyed_hmac: hmac.HMAC | None = None
        self._clock = clock
        self._ahead_s = 0.0  # seconds by which the server's clock is ahead of this machine's
        self._reported_s = 0.0  # the same, as it was last reported

    def __repr__(self) -> str:
        key = getattr(self, "_key", "")  # missing in the traceback of one that was refused
        return f"{type(self).__name__}(key={key[:4] + '…'!r})"

    @property
    def account(self) -> str:
        """The key."""
        return f"key {self._key}"

    def headers(self, method: str, path: str) -> Headers:
        """Sign one attempt, now."""
        timestamp = _timestamps.of(self._clock() + self._ahead_s)
        signature = sign(self._keyed_hmac or self._make_keyed_hmac(), method, path, timestamp)
        return (
            (AUTHENTICATION_HEADER, f"{self._key}:{signature}"),
            (DATE_HEADER, timestamp),
            (ALGORITHM_HEADER, ALGORITHM),
        )

    def is_outdated(self, method: str, path: str, headers: Headers) -> bool:
        """Return whether a request was signed before the clock was learned or the secret was asked for again."""
        sent = dict(headers)
        timestamp = sent.get(DATE_HEADER, "")
        signature = sign(self._keyed_hmac or self._make_keyed_hmac(), method, path, timestamp)
        if sent.get(AUTHENTICATION_HEADER) != f"{self._key}:{signature}":
            return True
        signed_s = datetime.fromisoformat(timestamp).timestamp()
        return abs(self._clock() + self._ahead_s - signed_s) > MIN_SKEW_S

    def refused(self, headers: Headers) -> bool:  # noqa: ARG002
        """Ask for the secret again; return whether it is another one. A key does not expire by itself."""
        changed = self._secret.ask()
        if changed:
            self._keyed_hmac = None
        return changed

    def learn_clock(self, server_s: float) -> ClockSkewDetected | None:
        """Sign with the server's time from now on, if this machine's clock is more than a minute off."""
        ahead_s = server_s - self._clock()
        if abs(ahead_s - self._ahead_s) <= MIN_SKEW_S:
            self._reported_s = self._ahead_s
            return None
        if abs(ahead_s - self._reported_s) <= MIN_SKEW_S:
            return None
        self._reported_s = ahead_s
        is_corrected = abs(ahead_s) <= MAX_SKEW_S
        if is_corrected:
            self._ahead_s = ahead_s
        return ClockSkewDetected(self.label, ahead_s, is_corrected)

    def refresh(self) -> None:
        """Ask for the secret again."""
        self.refused(())

    def secrets(self) -> tuple[str, ...]:
        """Return the secret, and the one before it."""
        return self._secret.known()

    def sync_auth_flow(self, request: Request) -> Generator[Request, Any, None]:
        """Sign a request of a synchronous client."""
        self._binding.keep(request, synchronous=True)
        yield from self.auth_flow(request)

    async def async_auth_flow(self, request: Request) -> AsyncGenerator[Request, Any]:
        """Sign a request of an asynchronous client."""
        self._binding.keep(request)
        flow = self.auth_flow(request)
        signed = next(flow)
        with suppress(StopIteration):
            while True:
                signed = flow.send((yield signed))

    def auth_flow(self, request: Request) -> Generator[Request, Any, None]:
        """Sign a request; in other clients than ours once more where the clock or the secret was the reason of a refusal."""
        path = request.url.raw_path.partition(b"?")[0].decode("ascii")
        request.headers.update(dict(self.headers(request.method, path)))
        started_s = time.monotonic()
        response = yield request
        if REPLAY_EXTENSION in request.extensions or response.status_code not in REFUSED_SIGNATURE:
            return
        date, age = response.headers.get("date"), response.headers.get("age")
        may_pass = self.may_pass(
            request.method,
            path,
            tuple(request.headers.items()),
            status=response.status_code,
            server_s=server_time_s(date, age=age, under_way_s=time.monotonic() - started_s),
            emit=log_event,
        )
        if may_pass and _can_be_sent_again(request):
            request.headers.update(dict(self.headers(request.method, path)))
            yield request

    def _make_keyed_hmac(self) -> hmac.HMAC:
        self._keyed_hmac = keyed(self._secret.value.encode())
        return self._keyed_hmac


class _Timestamps:
    """The last timestamp, formatted: formatting costs as much as signing, and many attempts share a millisecond."""

    def __init__(self) -> None:
        self._last = (-1, "")  # one value, so that threads see both or neither

    def of(self, time_s: float) -> str:
        """Return a time as ``format_timestamp`` does."""
        millisecond = int(time_s * 1000)
        last = self._last
        if millisecond != last[0]:
            last = self._last = (millisecond, format_timestamp(time_s))
        return last[1]


# Shared: with a key for each device, every attempt has another HmacAuth.
_timestamps = _Timestamps()


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


def _can_be_sent_again(request: Request) -> bool:
    try:
        request.content  # noqa: B018
    except RuntimeError:  # a stream, which is used up
        return False
    return True


def key_problem(value: object) -> str:
    """Return what is wrong with a key, or an empty text; nothing of it is quoted."""
    if not isinstance(value, str) or not value or not all("!" <= c <= "~" for c in value) or ":" in value:
        return "key must be visible ASCII characters without a colon"
    return ""

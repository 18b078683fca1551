"""Credentials of the sandbox: HMAC keys, logins and session tokens, each of one device or of all."""

from __future__ import annotations

import hmac
import secrets
from collections import Counter
from typing import TYPE_CHECKING, Literal

from attrs import define, field, frozen

from printos_async._errors import ConfigurationError

from ._signature import signature_problem, signing_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._clock import ServerClock
    from ._records import RecordedRequest

TOKEN_HEADER = "Indigo-SmS-Auth-Token"  # noqa: S105 - the header's name
_TOKEN_FIELD = TOKEN_HEADER.lower().encode()
# Tokens that are remembered, expired ones included; the oldest go first.
_MAX_TOKENS = 1_000_000

RefusalCause = Literal[
    "no_credentials",
    "unknown_token",
    "expired_token",
    "foreign_token",
    "unknown_key",
    "foreign_key",
    "wrong_algorithm",
    "wrong_date",
    "clock_skew",
    "wrong_signature",
    "wrong_login",
]
"""Cause of a refusal of credentials; a foreign token or key belongs to another device than the request's."""


@frozen
class Refusal:
    """Why a request is refused."""

    cause: RefusalCause
    message: str

    @property
    def status(self) -> int:
        """403 where the credentials are good, but not for this device; else 401."""
        return 403 if self.cause in {"foreign_token", "foreign_key"} else 401


@define
class _Credential:
    """A secret, and the only device that it is for; None for all."""

    secret: str = field(repr=False)
    device_id: str | None

    def is_foreign_to(self, device_id: str | None) -> bool:
        return self.device_id is not None and device_id is not None and self.device_id != device_id


@define
class _Token:
    """A token that was handed out; an expired one is kept, for its device still tells whether it is foreign."""

    login: str
    credential: _Credential
    requests_left: float
    ends_s: float

    def expire(self) -> None:
        self.requests_left = 0


class Gatekeeper:
    """Checks the credentials of requests, and hands out session tokens.

    Attributes:
        logins_by_login: Well-formed login requests by the login that they named, refused ones included.
        foreign_tokens_count: Requests that came with a token of another device.
        refusals: Refused requests by cause.
    """

    def __init__(
        self,
        clock: ServerClock,
        *,
        hmac_keys: Mapping[str, str] | None,
        device_keys: Mapping[str, tuple[str, str]] | None,
        logins: Mapping[str, str] | None,
        device_logins: Mapping[str, tuple[str, str]] | None,
        token_lifetime_requests: int | None,
        token_lifetime_s: float | None,
    ) -> None:
        if token_lifetime_requests is not None and token_lifetime_requests < 1:
            raise ConfigurationError("token_lifetime_requests: at least 1")
        if token_lifetime_s is not None and not token_lifetime_s > 0:
            raise ConfigurationError("token_lifetime_s: more than 0")
        self._clock = clock
        self._keys = _credentials("device_keys", hmac_keys, device_keys)
        self._logins = _credentials("device_logins", logins, device_logins)
        self._lifetime_requests = float("inf") if token_lifetime_requests is None else token_lifetime_requests
        self._lifetime_s = float("inf") if token_lifetime_s is None else token_lifetime_s
        self._tokens: dict[str, _Token] = {}
        self.reset()

    def reset(self) -> None:
        """Begin the counts again; credentials and tokens stay."""
        self.logins_by_login: Counter[str] = Counter()
        self.foreign_tokens_count = 0
        self.refusals: Counter[RefusalCause] = Counter()

    # What is accepted

    def set_key(self, key: str, secret: str, *, device_id: str | None) -> None:
        """Accept signatures of a key from now on, with this secret only."""
        self._keys = self._keys or {}
        self._keys[key] = _changed(self._keys.get(key), secret, device_id)

    def remove_key(self, key: str) -> None:
        """Refuse a key from now on."""
        if self._keys is None or self._keys.pop(key, None) is None:
            raise ConfigurationError(f"no key {key!r}")

    def set_login(self, login: str, password: str, *, device_id: str | None) -> None:
        """Accept a login from now on, with this password only."""
        self._logins = self._logins or {}
        self._logins[login] = _changed(self._logins.get(login), password, device_id)

    def remove_login(self, login: str) -> None:
        """Refuse a login and its tokens from now on."""
        if self._logins is None or self._logins.pop(login, None) is None:
            raise ConfigurationError(f"no login {login!r}")
        self.expire_tokens(login=login, device_id=None)

    def expire_tokens(self, *, login: str | None, device_id: str | None) -> None:
        """Refuse the tokens handed out so far: all, those of a login, or those of a device."""
        for token in self._tokens.values():
            if login in {None, token.login} and device_id in {None, token.credential.device_id}:
                token.expire()

    # What a request asks for

    def login(self, login: str, password: str) -> str | None:
        """Return a new token, or None for wrong credentials; without configured logins any will do."""
        self.logins_by_login[login] += 1
        credential = _Credential("", None) if self._logins is None else self._logins.get(login)
        if credential is None or (self._logins is not None and not _same(credential.secret, password)):
            self.refusals["wrong_login"] += 1
            return None
        token = secrets.token_urlsafe(24)
        ends_s = self._clock.unshifted_s() + self._lifetime_s
        self._tokens[token] = _Token(login, credential, self._lifetime_requests, ends_s)
        if len(self._tokens) > _MAX_TOKENS:
            del self._tokens[next(iter(self._tokens))]
        return token

    def refuse(self, request: RecordedRequest) -> Refusal | None:
        """Return why the credentials of a request are refused, or None if they are accepted."""
        refusal = self._problem(request)
        if refusal is not None:
            self.refusals[refusal.cause] += 1
        return refusal

    def see(self, request: RecordedRequest) -> None:
        """Count a foreign token in a request that meets a fault before its credentials are checked."""
        if self._logins is not None:
            self._find_token(dict(request.headers), request.device_id)

    def _problem(self, request: RecordedRequest) -> Refusal | None:
        if self._keys is None and self._logins is None:
            return None
        headers = dict(request.headers)
        if self._logins is not None and _TOKEN_FIELD in headers:
            token = self._find_token(headers, request.device_id)
            return self._refuse_token(token, request.device_id)
        key = signing_key(headers)
        if self._keys is not None and key is not None:
            return self._refuse_signature(self._keys.get(key), request, headers)
        return Refusal("no_credentials", "no credentials")

    def _refuse_signature(
        self, credential: _Credential | None, request: RecordedRequest, headers: dict[bytes, bytes]
    ) -> Refusal | None:
        if credential is None:
            return Refusal("unknown_key", "the HMAC key is unknown")
        problem = signature_problem(
            headers, credential.secret, method=request.method, path=request.path, now_s=self._clock.now_s()
        )
        if problem is not None:
            return Refusal(*problem)
        if credential.is_foreign_to(request.device_id):
            return Refusal("foreign_key", "the HMAC key is another device's")
        return None

    def _find_token(self, headers: dict[bytes, bytes], device_id: str | None) -> _Token | None:
        token = self._tokens.get(headers.get(_TOKEN_FIELD, b"").decode("latin-1"))
        if token is not None and token.credential.is_foreign_to(device_id):
            self.foreign_tokens_count += 1
        return token

    def _refuse_token(self, token: _Token | None, device_id: str | None) -> Refusal | None:
        if token is None:
            return Refusal("unknown_token", "the session token is unknown")
        if token.requests_left < 1 or token.ends_s <= self._clock.unshifted_s():
            return Refusal("expired_token", "the session token has expired")
        if token.credential.is_foreign_to(device_id):
            return Refusal("foreign_token", "the session token is another device's")
        token.requests_left -= 1
        return None


def _changed(before: _Credential | None, secret: str, device_id: str | None) -> _Credential:
    if device_id is None and before is not None:
        device_id = before.device_id
    return _Credential(secret, device_id)


def _credentials(
    name: str, of_all: Mapping[str, str] | None, of_devices: Mapping[str, tuple[str, str]] | None
) -> dict[str, _Credential] | None:
    if of_all is None and of_devices is None:
        return None
    credentials = {given: _Credential(secret, None) for given, secret in (of_all or {}).items()}
    for device_id, (given, secret) in (of_devices or {}).items():
        if given in credentials:
            raise ConfigurationError(
                f"{name}: {given!r} is given twice; one of several devices is of all devices"
            )
        credentials[given] = _Credential(secret, device_id)
    return credentials


def _same(expected: str, given: str) -> bool:
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogatepass"))

"""Credentials of the sandbox: HMAC keys, logins and session tokens, each of one device or of all."""

from __future__ import annotations

import hmac
import re
import secrets
from collections import Counter
from datetime import datetime
from math import inf
from typing import TYPE_CHECKING, Literal

from attrs import define, field

from printos_async._errors import ConfigurationError

from ._answers import RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._answers import ServerClock
    from ._records import RecordedRequest

TOKEN_HEADER = "Indigo-SmS-Auth-Token"  # noqa: S105 - the header's name
_TOKEN_FIELD = TOKEN_HEADER.lower().encode()
_SIGNATURE_FIELD = b"x-hp-hmac-authentication"
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
_MAX_SKEW_S = 15 * 60
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


def _limit(limit: float | None) -> float:
    return inf if limit is None else limit


@define(eq=False)
class Gatekeeper:
    """Checks the credentials of requests, and hands out session tokens.

    Requests need no signature where ``keys`` is None, and no token where ``logins`` is None.

    Attributes:
        logins_by_login: Well-formed login requests by the login that they named, refused ones included.
        foreign_tokens_count: Requests that came with a token of another device.
        refusals: Refused requests by cause.
    """

    _clock: ServerClock
    _keys: dict[str, _Credential] | None = None
    _logins: dict[str, _Credential] | None = None
    _token_lifetime_requests: float = field(default=None, converter=_limit)
    _token_lifetime_s: float = field(default=None, converter=_limit)
    _tokens: dict[str, _Token] = field(factory=dict, init=False)
    logins_by_login: Counter[str] = field(factory=Counter, init=False)
    foreign_tokens_count: int = field(default=0, init=False)
    refusals: Counter[RefusalCause] = field(factory=Counter, init=False)

    def __attrs_post_init__(self) -> None:
        if self._token_lifetime_requests < 1:
            raise ConfigurationError("token_lifetime_requests: at least 1")
        if not self._token_lifetime_s > 0:
            raise ConfigurationError("token_lifetime_s: more than 0")

    def reset(self) -> None:
        """Begin the counts again; credentials and tokens stay."""
        self.logins_by_login = Counter()
        self.foreign_tokens_count = 0
        self.refusals = Counter()

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
                token.requests_left = 0

    # What a request asks for

    def login(self, login: str, password: str) -> str:
        """Return a new token; without configured logins any will do.

        Raises:
            RefusedError: The login or the password is wrong.
        """
        self.logins_by_login[login] += 1
        credential = _Credential("", None) if self._logins is None else self._logins.get(login)
        if credential is None or (self._logins is not None and not _same(credential.secret, password)):
            raise self._refusal("wrong_login", "wrong login or password")
        token = secrets.token_urlsafe(24)
        ends_s = self._clock.unshifted_s() + self._token_lifetime_s
        self._tokens[token] = _Token(login, credential, self._token_lifetime_requests, ends_s)
        if len(self._tokens) > _MAX_TOKENS:
            del self._tokens[next(iter(self._tokens))]
        return token

    def check(self, request: RecordedRequest) -> None:
        """Check the credentials of a request.

        Raises:
            RefusedError: They are not accepted.
        """
        if self._keys is None and self._logins is None:
            return
        headers = dict(request.headers)
        if self._logins is not None and _TOKEN_FIELD in headers:
            self._check_token(self._find_token(headers, request.device_id), request.device_id)
        elif self._keys is not None and _SIGNATURE_FIELD in headers:
            self._check_signature(self._keys, request, headers)
        else:
            raise self._refusal("no_credentials", "no credentials")

    def see(self, request: RecordedRequest) -> None:
        """Count a foreign token in a request that meets a fault before its credentials are checked."""
        if self._logins is not None:
            self._find_token(dict(request.headers), request.device_id)

    def _check_signature(
        self, keys: dict[str, _Credential], request: RecordedRequest, headers: dict[bytes, bytes]
    ) -> None:
        """Check a signature from HP's description, and not with the client's code."""
        key, _, signature = headers[_SIGNATURE_FIELD].rpartition(b":")
        credential = keys.get(key.decode("latin-1"))
        if credential is None:
            raise self._refusal("unknown_key", "the HMAC key is unknown")
        if headers.get(b"x-hp-hmac-algorithm") != b"SHA256":
            raise self._refusal("wrong_algorithm", "x-hp-hmac-algorithm is not SHA256")
        date = headers.get(b"x-hp-hmac-date", b"").decode("latin-1")
        if not _DATE.fullmatch(date):
            raise self._refusal("wrong_date", "x-hp-hmac-date is not YYYY-MM-DDThh:mm:ss.sssZ")
        try:
            signed_at_s = datetime.fromisoformat(date).timestamp()
        except ValueError:
            raise self._refusal("wrong_date", "x-hp-hmac-date is no date") from None
        if abs(signed_at_s - self._clock.now_s()) > _MAX_SKEW_S:
            raise self._refusal(
                "clock_skew", "x-hp-hmac-date is more than 15 minutes away from the server's clock"
            )
        # Nothing stands between path and date; neither host nor query nor body is signed.
        signed = f"{request.method} {request.path}{date}".encode()
        expected = hmac.digest(credential.secret.encode(), signed, "sha256").hex()
        if not hmac.compare_digest(expected.encode(), signature):
            raise self._refusal("wrong_signature", "the HMAC signature does not match")
        if credential.is_foreign_to(request.device_id):
            raise self._refusal("foreign_key", "the HMAC key is another device's")

    def _find_token(self, headers: dict[bytes, bytes], device_id: str | None) -> _Token | None:
        token = self._tokens.get(headers.get(_TOKEN_FIELD, b"").decode("latin-1"))
        if token is not None and token.credential.is_foreign_to(device_id):
            self.foreign_tokens_count += 1
        return token

    def _check_token(self, token: _Token | None, device_id: str | None) -> None:
        if token is None:
            raise self._refusal("unknown_token", "the session token is unknown")
        if token.requests_left < 1 or token.ends_s <= self._clock.unshifted_s():
            raise self._refusal("expired_token", "the session token has expired")
        if token.credential.is_foreign_to(device_id):
            raise self._refusal("foreign_token", "the session token is another device's")
        token.requests_left -= 1

    def _refusal(self, cause: RefusalCause, message: str) -> RefusedError:
        """Count a refusal, and return its error."""
        self.refusals[cause] += 1
        # 403 where the credentials are good, but not for this device.
        return RefusedError(403 if cause in {"foreign_token", "foreign_key"} else 401, message)


def accepted(
    name: str, of_all: Mapping[str, str] | None, of_devices: Mapping[str, tuple[str, str]] | None
) -> dict[str, _Credential] | None:
    """Return the keys or the logins that a gatekeeper accepts; None if there is no setting of them.

    Raises:
        ConfigurationError: One is given twice; ``name`` is the setting's.
    """
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


def _changed(before: _Credential | None, secret: str, device_id: str | None) -> _Credential:
    if device_id is None and before is not None:
        device_id = before.device_id
    return _Credential(secret, device_id)


def _same(expected: str, given: str) -> bool:
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogatepass"))

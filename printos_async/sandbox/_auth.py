"""Who may ask: HMAC signatures and session tokens, checked from HP's description and not with the client's code."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TOKEN_HEADER = "Indigo-SmS-Auth-Token"  # noqa: S105 - the header's name
MAX_SKEW_S = 15 * 60
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)


class Gatekeeper:
    """Says why a request is refused, and hands out session tokens."""

    def __init__(
        self,
        *,
        hmac_keys: Mapping[str, str] | None,
        logins: Mapping[str, str] | None,
        token_lifetime_requests: int | None,
        clock: Callable[[], float],
    ) -> None:
        self._hmac_keys = hmac_keys
        self._logins = logins
        self._lifetime = token_lifetime_requests
        self._clock = clock
        self._tokens: dict[str, int | None] = {}

    def login(self, login: str, password: str) -> str | None:
        """Return a new token, or None for wrong credentials; without configured logins any will do."""
        if self._logins is not None:
            expected = self._logins.get(login)
            if expected is None or not _same(expected, password):
                return None
        token = secrets.token_urlsafe(24)
        self._tokens[token] = self._lifetime
        return token

    def expire_tokens(self) -> None:
        """Refuse every token handed out so far."""
        self._tokens.clear()

    def refuse(self, method: str, path: str, headers: list[tuple[bytes, bytes]]) -> str | None:
        """Return the reason to answer 401, or None for a welcome request."""
        if self._hmac_keys is None and self._logins is None:
            return None
        values = dict(headers)
        token = values.get(TOKEN_HEADER.lower().encode())
        if token is not None and self._logins is not None:
            return self._refuse_token(token.decode("latin-1"))
        signature = values.get(b"x-hp-hmac-authentication")
        if signature is not None and self._hmac_keys is not None:
            date = values.get(b"x-hp-hmac-date", b"").decode("latin-1")
            algorithm = values.get(b"x-hp-hmac-algorithm", b"").decode("latin-1")
            return self._refuse_signature(signature.decode("latin-1"), date, algorithm, method, path)
        return "no credentials"

    def _refuse_token(self, token: str) -> str | None:
        if token not in self._tokens:
            return "the session token is unknown or has expired"
        left = self._tokens[token]
        if left is not None:
            if left <= 1:
                del self._tokens[token]
            else:
                self._tokens[token] = left - 1
        return None

    def _refuse_signature(self, value: str, date: str, algorithm: str, method: str, path: str) -> str | None:
        key, _, signature = value.rpartition(":")
        secret = (self._hmac_keys or {}).get(key)
        if secret is None:
            return "the HMAC key is unknown"
        if algorithm != "SHA256":
            return "x-hp-hmac-algorithm is not SHA256"
        if not _DATE.fullmatch(date):
            return "x-hp-hmac-date is not YYYY-MM-DDThh:mm:ss.sssZ"
        try:
            signed_at_s = datetime.fromisoformat(date).timestamp()
        except ValueError:
            return "x-hp-hmac-date is no date"
        if abs(signed_at_s - self._clock()) > MAX_SKEW_S:
            return "x-hp-hmac-date is more than 15 minutes away from the server's clock"
        # Nothing stands between path and date; neither host nor query nor body is signed.
        signed = f"{method} {path}{date}"
        expected = hmac.new(secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
        return None if _same(expected, signature) else "the HMAC signature does not match"


def _same(expected: str, given: str) -> bool:
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogatepass"))

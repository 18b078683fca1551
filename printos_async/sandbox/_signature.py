"""HMAC signatures, checked from HP's description and not with the client's code."""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import datetime
from typing import Literal

from attrs import frozen

MAX_SKEW_S = 15 * 60
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)

SignatureProblem = Literal["wrong_algorithm", "wrong_date", "clock_skew", "wrong_signature"]


@frozen
class Signature:
    """The headers of a signed request.

    Attributes:
        key: The key, of ``x-hp-hmac-authentication``.
        hexadecimal: The signature, of the same header.
        date: ``x-hp-hmac-date``.
        algorithm: ``x-hp-hmac-algorithm``.
    """

    key: str
    hexadecimal: str
    date: str
    algorithm: str

    @classmethod
    def from_headers(cls, headers: dict[bytes, bytes]) -> Signature | None:
        """Return the signature of a request, or None without."""
        value = headers.get(b"x-hp-hmac-authentication")
        if value is None:
            return None
        key, _, hexadecimal = value.decode("latin-1").rpartition(":")
        date = headers.get(b"x-hp-hmac-date", b"").decode("latin-1")
        algorithm = headers.get(b"x-hp-hmac-algorithm", b"").decode("latin-1")
        return cls(key, hexadecimal, date, algorithm)

    def problem(
        self, secret: str, *, method: str, path: str, now_s: float
    ) -> tuple[SignatureProblem, str] | None:
        """Return why the signature is not accepted, as a word and as a message; None if it is."""
        if self.algorithm != "SHA256":
            return "wrong_algorithm", "x-hp-hmac-algorithm is not SHA256"
        if not _DATE.fullmatch(self.date):
            return "wrong_date", "x-hp-hmac-date is not YYYY-MM-DDThh:mm:ss.sssZ"
        try:
            signed_at_s = datetime.fromisoformat(self.date).timestamp()
        except ValueError:
            return "wrong_date", "x-hp-hmac-date is no date"
        if abs(signed_at_s - now_s) > MAX_SKEW_S:
            return "clock_skew", "x-hp-hmac-date is more than 15 minutes away from the server's clock"
        # Nothing stands between path and date; neither host nor query nor body is signed.
        signed = f"{method} {path}{self.date}"
        expected = hmac.new(secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
        if not same(expected, self.hexadecimal):
            return "wrong_signature", "the HMAC signature does not match"
        return None


def same(expected: str, given: str) -> bool:
    """Compare secrets in constant time."""
    return hmac.compare_digest(
        expected.encode("utf-8", "surrogatepass"), given.encode("utf-8", "surrogatepass")
    )

"""HMAC signatures, checked from HP's description and not with the client's code."""

from __future__ import annotations

import hmac
import re
from datetime import datetime
from typing import Literal

MAX_SKEW_S = 15 * 60
_AUTHENTICATION = b"x-hp-hmac-authentication"
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)

SignatureProblem = Literal["wrong_algorithm", "wrong_date", "clock_skew", "wrong_signature"]


def signing_key(headers: dict[bytes, bytes]) -> str | None:
    """Return the key of a signed request, None of another."""
    value = headers.get(_AUTHENTICATION)
    return None if value is None else value.rpartition(b":")[0].decode("latin-1")


def signature_problem(
    headers: dict[bytes, bytes], secret: str, *, method: str, path: str, now_s: float
) -> tuple[SignatureProblem, str] | None:
    """Return why a signature is not accepted, as a word and as a message; None if it is."""
    if headers.get(b"x-hp-hmac-algorithm") != b"SHA256":
        return "wrong_algorithm", "x-hp-hmac-algorithm is not SHA256"
    date = headers.get(b"x-hp-hmac-date", b"").decode("latin-1")
    if not _DATE.fullmatch(date):
        return "wrong_date", "x-hp-hmac-date is not YYYY-MM-DDThh:mm:ss.sssZ"
    try:
        signed_at_s = datetime.fromisoformat(date).timestamp()
    except ValueError:
        return "wrong_date", "x-hp-hmac-date is no date"
    if abs(signed_at_s - now_s) > MAX_SKEW_S:
        return "clock_skew", "x-hp-hmac-date is more than 15 minutes away from the server's clock"
    # Nothing stands between path and date; neither host nor query nor body is signed.
    expected = hmac.digest(secret.encode(), f"{method} {path}{date}".encode(), "sha256").hex()
    if not hmac.compare_digest(expected.encode(), headers[_AUTHENTICATION].rpartition(b":")[2]):
        return "wrong_signature", "the HMAC signature does not match"
    return None

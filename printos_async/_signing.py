"""PrintOS HMAC: method, path and time in, headers out; no I/O and no clock.

Source: HP's documents and samples. Signed is ``METHOD + " " + path + timestamp`` with nothing between path and
timestamp, and neither host nor query nor body.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime

ALGORITHM = "SHA256"
AUTHENTICATION_HEADER = "x-hp-hmac-authentication"
DATE_HEADER = "x-hp-hmac-date"
ALGORITHM_HEADER = "x-hp-hmac-algorithm"


def format_timestamp(time_s: float) -> str:
    """Write seconds since the epoch as ``YYYY-MM-DDThh:mm:ss.sssZ``."""
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def keyed(secret: bytes) -> hmac.HMAC:
    """Give the HMAC that the secret, as UTF-8, is already in: copying it costs half of keying it anew."""
    return hmac.new(secret, digestmod=hashlib.sha256)


def sign(keyed_hmac: hmac.HMAC, method: str, path: str, timestamp: str) -> str:
    """Give the signature in lower-case hex.

    Args:
        keyed_hmac: From ``keyed``; it is copied, not changed.
        method: In capitals.
        path: The request's path as sent, percent-encoded, without the query.
        timestamp: As in the date header.
    """
    signature = keyed_hmac.copy()
    signature.update(f"{method} {path}{timestamp}".encode())
    return signature.hexdigest()


def signed_headers(
    key: str, keyed_hmac: hmac.HMAC, method: str, path: str, timestamp: str
) -> tuple[tuple[str, str], ...]:
    """Give the three headers that authenticate one request."""
    return (
        (AUTHENTICATION_HEADER, f"{key}:{sign(keyed_hmac, method, path, timestamp)}"),
        (DATE_HEADER, timestamp),
        (ALGORITHM_HEADER, ALGORITHM),
    )

"""PrintOS HMAC: method, path and time in, headers out; no I/O and no clock.

Source: HP's documents and samples. Signed is ``METHOD + " " + path + timestamp`` with nothing between path and
timestamp, and neither host nor query nor body.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from hashlib import _Hash

ALGORITHM = "SHA256"
AUTHENTICATION_HEADER = "x-hp-hmac-authentication"
DATE_HEADER = "x-hp-hmac-date"
ALGORITHM_HEADER = "x-hp-hmac-algorithm"

Keyed: TypeAlias = "tuple[_Hash, _Hash]"

# RFC 2104. The module hmac does the same, in a few more calls, which is a part of what a status costs.
_BLOCK_BYTES = 64
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


def format_timestamp(time_s: float) -> str:
    """Write seconds since the epoch as ``YYYY-MM-DDThh:mm:ss.sssZ``."""
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def keyed(secret: bytes) -> Keyed:
    """Give the two halves of an HMAC that the secret, as UTF-8, is already in: copied, they cost a third of a new one."""
    block = (hashlib.sha256(secret).digest() if len(secret) > _BLOCK_BYTES else secret).ljust(
        _BLOCK_BYTES, b"\0"
    )
    return hashlib.sha256(block.translate(_INNER)), hashlib.sha256(block.translate(_OUTER))


def sign(keyed_hmac: Keyed, method: str, path: str, timestamp: str) -> str:
    """Give the signature in lower-case hex.

    Args:
        keyed_hmac: From ``keyed``; it is copied, not changed.
        method: In capitals.
        path: The request's path as sent, percent-encoded, without the query.
        timestamp: As in the date header.
    """
    inner, outer = keyed_hmac[0].copy(), keyed_hmac[1].copy()
    inner.update(f"{method} {path}{timestamp}".encode())
    outer.update(inner.digest())
    return outer.hexdigest()


def signed_headers(
    key: str, keyed_hmac: Keyed, method: str, path: str, timestamp: str
) -> tuple[tuple[str, str], ...]:
    """Give the three headers that authenticate one request."""
    return (
        (AUTHENTICATION_HEADER, f"{key}:{sign(keyed_hmac, method, path, timestamp)}"),
        (DATE_HEADER, timestamp),
        (ALGORITHM_HEADER, ALGORITHM),
    )

"""The seam that carries bytes: one request out, one answer or one ``WireError`` back.

A wire signs nothing, retries nothing, follows nothing, decodes nothing and keeps no cookie.
"""

from .base import EXCERPT_BYTES, Origin, Wire, WireError, WireRequest, WireResponse
from .http1 import Http1Wire
from .httpx import HttpxWire

__all__ = [
    "EXCERPT_BYTES",
    "Http1Wire",
    "HttpxWire",
    "Origin",
    "Wire",
    "WireError",
    "WireRequest",
    "WireResponse",
]

"""Transports carry bytes: one request out, one answer or one ``ExchangeError`` back.

A transport does not sign, retry, follow redirects or decode, and keeps no cookie.
"""

from .base import EXCERPT_BYTES, ExchangeError, Origin, ProxyExchangeError, RawRequest, RawResponse, Transport
from .http1 import Http1Transport
from .httpx import HttpxTransport
from .proxy import Proxy

__all__ = [
    "EXCERPT_BYTES",
    "ExchangeError",
    "Http1Transport",
    "HttpxTransport",
    "Origin",
    "Proxy",
    "ProxyExchangeError",
    "RawRequest",
    "RawResponse",
    "Transport",
]

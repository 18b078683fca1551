"""Credentials, as ``Auth`` of httpx and httpx2: usable with this client and with any other of theirs."""

from .base import REPLAY_EXTENSION, Headers, ReadyAuth
from .hmac import ALGORITHM_HEADER, DATE_HEADER, HmacAuth
from .session_token import SessionTokenAuth

__all__ = [
    "ALGORITHM_HEADER",
    "DATE_HEADER",
    "REPLAY_EXTENSION",
    "Headers",
    "HmacAuth",
    "ReadyAuth",
    "SessionTokenAuth",
]

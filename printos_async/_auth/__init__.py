"""Credentials as ``Auth`` objects of httpx and httpx2, for this client and for the clients of both libraries."""

from .account import Account, Accounts
from .base import REPLAY_EXTENSION, AnyAuth, Headers, ReadyAuth, SecretUnavailableError, is_cancelled
from .hmac import ALGORITHM_HEADER, DATE_HEADER, MAX_SKEW_S, MIN_SKEW_S, REFUSED_SIGNATURE, HmacAuth
from .per_device import DeviceAccounts, DeviceCredentials
from .session_token import SessionTokenAuth

__all__ = [
    "ALGORITHM_HEADER",
    "DATE_HEADER",
    "MAX_SKEW_S",
    "MIN_SKEW_S",
    "REFUSED_SIGNATURE",
    "REPLAY_EXTENSION",
    "Account",
    "Accounts",
    "AnyAuth",
    "DeviceAccounts",
    "DeviceCredentials",
    "Headers",
    "HmacAuth",
    "ReadyAuth",
    "SecretUnavailableError",
    "SessionTokenAuth",
    "is_cancelled",
]

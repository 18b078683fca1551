"""Asyncio client for the HP PrintOS Device API.

Sends the status of whole device fleets concurrently; see ``PrintOSClient``.
"""

from ._auth import HmacAuth, SessionTokenAuth
from ._client import PrintOSClient
from ._errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ClientClosedError,
    ConfigurationError,
    ConflictError,
    InvalidDeviceIdError,
    InvalidProvisionRequestError,
    InvalidStatusError,
    NotFoundError,
    OutboxCorruptError,
    OutboxError,
    PermissionDeniedError,
    PrintOSError,
    PusherClosedError,
    RateLimitError,
    RequestTimeoutError,
    ResponseDecodeError,
    ServerError,
    StatusError,
    TransportError,
)
from ._events import AttemptFinished, Event, FieldUnreadable, Hook, RetryScheduled, StatusSuperseded
from ._limits import ConcurrencyLimit
from ._models import (
    DeviceProvisionRequest,
    DeviceStatusUpdate,
    DeviceStatusUpdateMetrics,
    PrintDevice,
    ProvisionResult,
    PushReport,
    PushResult,
    StatusPush,
)
from ._retry import RetryPolicy

__all__ = [
    "APIError",
    "AttemptFinished",
    "AuthenticationError",
    "BadRequestError",
    "ClientClosedError",
    "ConcurrencyLimit",
    "ConfigurationError",
    "ConflictError",
    "DeviceProvisionRequest",
    "DeviceStatusUpdate",
    "DeviceStatusUpdateMetrics",
    "Event",
    "FieldUnreadable",
    "HmacAuth",
    "Hook",
    "InvalidDeviceIdError",
    "InvalidProvisionRequestError",
    "InvalidStatusError",
    "NotFoundError",
    "OutboxCorruptError",
    "OutboxError",
    "PermissionDeniedError",
    "PrintDevice",
    "PrintOSClient",
    "PrintOSError",
    "ProvisionResult",
    "PushReport",
    "PushResult",
    "PusherClosedError",
    "RateLimitError",
    "RequestTimeoutError",
    "ResponseDecodeError",
    "RetryPolicy",
    "RetryScheduled",
    "ServerError",
    "SessionTokenAuth",
    "StatusError",
    "StatusPush",
    "StatusSuperseded",
    "TransportError",
]

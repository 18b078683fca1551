"""The public face: what it is, that it is documented, and that nothing slips in or out unnoticed."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

import printos_async

if TYPE_CHECKING:
    from collections.abc import Iterator

# A name that goes, or changes its meaning, breaks somebody's program: such a change belongs into CHANGELOG.md.
PUBLIC = [
    "UNSET",
    "APIError",
    "AccountHeld",
    "AccountResumed",
    "AttemptFinished",
    "AuthenticationError",
    "BadRequestError",
    "CircuitChanged",
    "ClientClosedError",
    "ClockSkewDetected",
    "ConcurrencyLimit",
    "ConfigurationError",
    "ConflictError",
    "DeviceCredentials",
    "DeviceProvisionRequest",
    "DeviceStatusUpdate",
    "DeviceStatusUpdateMetrics",
    "Endpoint",
    "Event",
    "FieldUnreadable",
    "HmacAuth",
    "Hook",
    "InvalidDeviceIdError",
    "InvalidProvisionRequestError",
    "InvalidStatusError",
    "LeaseLost",
    "LimitChanged",
    "MemoryOutbox",
    "MissingCredentialsError",
    "NotFoundError",
    "Outbox",
    "OutboxCorruptError",
    "OutboxError",
    "PermissionDeniedError",
    "PrintDevice",
    "PrintOSClient",
    "PrintOSError",
    "ProvisionResult",
    "ProxyError",
    "PushReport",
    "PushResult",
    "PusherClosedError",
    "PusherFullError",
    "PusherHealth",
    "PusherStats",
    "RateLimitError",
    "ReassertionFailed",
    "RequestTimeoutError",
    "ResponseDecodeError",
    "RetryAfterCapped",
    "RetryPolicy",
    "RetryScheduled",
    "ServerError",
    "SessionTokenAuth",
    "Spooler",
    "SqlOutbox",
    "StatusAccepted",
    "StatusError",
    "StatusFailed",
    "StatusPush",
    "StatusPusher",
    "StatusReasserted",
    "StatusSent",
    "StatusSuperseded",
    "StatusWithdrawn",
    "TransportError",
]
MODULES = ["printos_async", "printos_async.sandbox"]


def test_the_public_names_are_these() -> None:
    assert printos_async.__all__ == PUBLIC


@pytest.mark.parametrize("name", MODULES)
def test_all_is_alphabetical_constants_first_and_importable(name: str) -> None:
    module = import_module(name)
    assert module.__all__ == sorted(
        set(module.__all__), key=lambda exported: (not exported.isupper(), exported)
    )
    assert [exported for exported in module.__all__ if not hasattr(module, exported)] == []


@pytest.mark.parametrize("name", MODULES)
def test_nothing_public_is_left_out_of_all(name: str) -> None:
    module = import_module(name)
    public = {
        member
        for member, value in vars(module).items()
        if not member.startswith("_") and not inspect.ismodule(value) and member != "annotations"
    }
    assert public == set(module.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_is_documented(name: str) -> None:
    assert [path for path, value in _documentable(name) if not (value.__doc__ or "").strip()] == []


def test_every_error_is_of_one_tree() -> None:
    errors = [
        value
        for value in vars(printos_async).values()
        if inspect.isclass(value) and issubclass(value, BaseException)
    ]
    assert len(errors) > 15
    assert [error for error in errors if not issubclass(error, printos_async.PrintOSError)] == []


def _documentable(name: str) -> Iterator[tuple[str, object]]:
    """Return the module's own classes and functions, and what of them is public. Generated ones are HP's."""
    module = import_module(name)
    yield name, module
    for exported in module.__all__:
        value = getattr(module, exported)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        if not value.__module__.startswith("printos_async"):
            continue
        yield f"{name}.{exported}", value
        for member, definition in vars(value).items() if inspect.isclass(value) else ():
            function = (
                definition.__func__ if isinstance(definition, classmethod | staticmethod) else definition
            )
            if not member.startswith("_") and (
                inspect.isfunction(function) or isinstance(function, property)
            ):
                yield f"{name}.{exported}.{member}", function

"""Request bodies, read and checked against the types that the specification gives."""

from __future__ import annotations

import json
from typing import Any, NoReturn


class BadBodyError(ValueError):
    """A body that is no JSON object, or has a property of another type than the specification's."""


def provision_request(body: bytes) -> dict[str, Any]:
    """Read a ``DeviceProvisionRequest``."""
    request = _object(body)
    for name in ("model", "serialNumber", "location"):
        _check(request, name, "string")
    return request


def status_update(body: bytes) -> dict[str, Any]:
    """Read a ``DeviceStatusUpdate``."""
    update = _object(body)
    _check(update, "status", "string")
    if "metrics" in update:
        metrics = update["metrics"]
        if not isinstance(metrics, dict):
            raise BadBodyError("metrics: not an object")
        _check(metrics, "pagesTotal", "integer")
        _check(metrics, "inkLevel", "number")
    return update


def credentials(body: bytes) -> tuple[str, str]:
    """Read the login's body; it stands beside the specification."""
    login = _object(body)
    for name in ("login", "password"):
        if name not in login:
            raise BadBodyError(f"{name}: missing")
        _check(login, name, "string")
    return login["login"], login["password"]


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise BadBodyError("the body is not JSON") from None
    if not isinstance(value, dict):
        raise BadBodyError("the body is not a JSON object")
    return value


def _no_constant(name: str) -> NoReturn:
    # Python's reader takes NaN and Infinity, JSON does not.
    raise ValueError(name)


def _check(values: dict[str, Any], name: str, expected: str) -> None:
    if name not in values:
        return
    value = values[name]
    match expected:
        case "string":
            right = isinstance(value, str)
        case "number":
            right = isinstance(value, int | float) and not isinstance(value, bool)
        case _:
            # JSON Schema: 12.0 is an integer.
            right = (isinstance(value, int) and not isinstance(value, bool)) or (
                isinstance(value, float) and value.is_integer()
            )
    if not right:
        raise BadBodyError(f"{name}: not of type {expected}")

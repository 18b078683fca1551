"""Request bodies and answers by the types of the specification, which the generated models have.

A new field of the specification is checked, and kept, without a change here.
"""

from __future__ import annotations

import json
from datetime import date, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from printos_async._api.fields import fields_of
from printos_async._api.json_validation import raw_object_problem
from printos_async._models import DeviceProvisionRequest, DeviceStatusUpdate

if TYPE_CHECKING:
    from printos_async._api.fields import ValueType

_PLACEHOLDERS: dict[type, Any] = {
    str: "",
    int: 0,
    float: 0.0,
    bool: False,
    list: [],
    datetime: "1970-01-01T00:00:00Z",
    date: "1970-01-01",
    UUID: str(UUID(int=0)),
}


class BadBodyError(ValueError):
    """A body that is no JSON object, or has a property of another type than the specification's."""


def provision_request(body: bytes) -> dict[str, Any]:
    """Read a ``DeviceProvisionRequest``."""
    return _object_of(DeviceProvisionRequest, body)


def status_update(body: bytes) -> dict[str, Any]:
    """Read a ``DeviceStatusUpdate``."""
    return _object_of(DeviceStatusUpdate, body)


def credentials(body: bytes) -> tuple[str, str]:
    """Read the login's body; it stands beside the specification."""
    login = _object(body)
    for name in ("login", "password"):
        if not isinstance(login.get(name), str):
            raise BadBodyError(f"{name} must be a text")
    return login["login"], login["password"]


def _object_of(model: type, body: bytes) -> dict[str, Any]:
    value = _object(body)
    if problem := raw_object_problem(value, model, ""):
        raise BadBodyError(problem)
    return value


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


@cache
def placeholders(model: type) -> dict[str, Any]:
    """Return a value for each required field of an answer, for those that the sandbox knows nothing of."""
    return {field.name: _placeholder(field.allowed) for field in fields_of(model) if field.is_required}


def _placeholder(allowed: ValueType) -> Any:
    if allowed.words:
        return min(allowed.words, key=str)
    if allowed.model is not None:
        return placeholders(allowed.model)
    return next((value for kind, value in _PLACEHOLDERS.items() if kind in allowed.kinds), None)

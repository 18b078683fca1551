"""Validation of what callers want to send: values that HTTP, JSON or the specification cannot carry are refused.

The generated models check nothing; the checks here follow from their type annotations.
"""

from __future__ import annotations

import math
import re
import unicodedata
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from printos_device_api.types import Unset

from printos_async._errors import (
    InvalidDeviceIdError,
    InvalidProvisionRequestError,
    InvalidStatusError,
    PrintOSError,
)
from printos_async._models import DeviceProvisionRequest, DeviceStatusUpdate

from .fields import described, extra_of, fields_of, is_model, shown
from .json_validation import raw_problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from .fields import ValueType

MAX_DEVICE_ID_CHARS = 256
_MAX_INTEGER = 2**63 - 1
_PLAIN_DEVICE_ID = re.compile(r"[A-Za-z0-9_-]{1,256}")
# True for most valid values of a scalar class, quickly; False only means that a closer look is needed.
_IS_PLAIN: dict[type, Callable[[Any], bool]] = {
    str: str.isascii,
    int: lambda value: -_MAX_INTEGER <= value <= _MAX_INTEGER,
    float: math.isfinite,
}


def check_device_id(device_id: object) -> str:
    """Return an identifier that can be sent; refuse one that would change the request's path.

    Raises:
        InvalidDeviceIdError: It is not 1 to 256 characters of text, or is ``.`` or ``..``, or holds a path
            separator, a control character or half of a surrogate pair.
    """
    if type(device_id) is str and _PLAIN_DEVICE_ID.fullmatch(device_id):
        return device_id
    if not isinstance(device_id, str):
        raise InvalidDeviceIdError(f"a device id must be str, not {type(device_id).__name__}")
    if not 1 <= len(device_id) <= MAX_DEVICE_ID_CHARS:
        raise InvalidDeviceIdError(
            f"a device id has 1 to {MAX_DEVICE_ID_CHARS} characters, not {len(device_id)}"
        )
    if device_id in {".", ".."}:
        raise InvalidDeviceIdError(f"device id {device_id!r} would change the request's path")
    for character in device_id:
        if character in "/\\" or unicodedata.category(character) in {"Cc", "Cs"}:
            raise InvalidDeviceIdError(
                f"device id {device_id!a} holds {character!a}, which would change the path"
            )
    return device_id


def check_status(status: DeviceStatusUpdate) -> None:
    """Refuse a status that cannot be sent as given.

    Raises:
        InvalidStatusError: Names the field, in the specification's words, and what it must be.
    """
    _check("status update", status, DeviceStatusUpdate, InvalidStatusError)


def check_provision_request(request: DeviceProvisionRequest) -> None:
    """Refuse a provision request that cannot be sent as given.

    Raises:
        InvalidProvisionRequestError: Names the field, in the specification's words, and what it must be.
    """
    _check("provision request", request, DeviceProvisionRequest, InvalidProvisionRequestError)


def _check(what: str, value: Any, model: type, error: type[PrintOSError]) -> None:
    if not isinstance(value, model):
        raise error(f"a {what} must be a {model.__name__}, not {type(value).__name__}")
    try:
        problem = _model_problem(value, model, "")
    except RecursionError:
        problem = "is nested too deeply"
    if problem is not None:
        raise error(f"{what}: {problem}")


def _model_problem(value: Any, model: type, prefix: str) -> str | None:
    for field in fields_of(model):
        part = getattr(value, field.attribute)
        kind: type = type(part)
        if kind in field.plain_kinds and (kind is Unset or _IS_PLAIN[kind](part)):
            continue
        path = prefix + field.name
        if kind is field.allowed.model:
            problem = _model_problem(part, kind, f"{path}.")
        elif kind is Unset:
            problem = f"{path} is missing"  # one that is not required is plain
        else:
            problem = _typed_problem(part, field.allowed, path)
        if problem is not None:
            return problem
    extra = getattr(value, "additional_properties", {})  # without the attribute there cannot be others
    return None if type(extra) is dict and not extra else _extra_problem(extra, model, prefix)


def _typed_problem(value: Any, allowed: ValueType, path: str) -> str | None:
    """Return why a value is not what the specification says, or cannot be sent, with its place; None if it can."""
    kind: type = type(value)
    if kind in allowed.kinds and is_model(kind):
        return _model_problem(value, kind, f"{path}.")
    if object not in allowed.kinds:
        if not _fits(value, kind, allowed):
            return f"{path} must be {described(allowed, model_names=True)}, not {shown(value)}"
        if isinstance(value, date | UUID):
            return _date_time_problem(value, path) if isinstance(value, datetime) else None
        if isinstance(value, list) and allowed.items is not None:
            items = allowed.items
            problems = (_typed_problem(item, items, f"{path}[{index}]") for index, item in enumerate(value))
            return next(filter(None, problems), None)
    return _value_problem(value, path)


def _fits(value: Any, kind: type, allowed: ValueType) -> bool:
    kinds = allowed.kinds
    if kind is bool:  # a bool is no number
        return bool in kinds
    if isinstance(value, str | int) and any(isinstance(value, type(word)) for word in allowed.words):
        return value in allowed.words
    if isinstance(value, datetime):  # a date-time is no date, whatever Python says
        return datetime in kinds
    # A subclass, such as an enumeration of strings, will do.
    return isinstance(value, tuple(kinds)) or (kind is int and float in kinds)


def _date_time_problem(value: datetime, path: str) -> str | None:
    offset = value.utcoffset()
    if offset is None:
        return f"{path} must have a time zone: {value.isoformat()} has none"
    return f"{path} must have an offset of whole minutes" if offset % timedelta(minutes=1) else None


def _extra_problem(extra: Any, model: type, prefix: str) -> str | None:
    if not isinstance(extra, dict):
        return f"{prefix}additional_properties must be a dict, not {type(extra).__name__}"
    # Beside the attribute it would be lost without a word, and in its place it would pass by the attribute's type.
    for field in fields_of(model):
        if field.name in extra:
            return f"{prefix}{field.name} must be set as the attribute, not as an additional property"
    if problem := _value_problem(extra, prefix[:-1] or "additional properties"):
        return problem
    allowed = extra_of(model)
    if allowed is None or object in allowed.kinds:
        return None
    problems = (raw_problem(value, allowed, prefix + name) for name, value in extra.items())
    return next(filter(None, problems), None)


def _value_problem(value: Any, path: str) -> str | None:
    """Return why JSON cannot carry a value, with its place; None if it can."""
    problem = None
    if isinstance(value, str):
        if not _is_unicode(value):
            problem = f"{path} holds half of a surrogate pair, which is no text"
    elif isinstance(value, int):
        if abs(value) > _MAX_INTEGER:
            problem = f"{path} must fit into 64 bits"
    elif isinstance(value, float):
        if not math.isfinite(value):
            problem = f"{path} must be a finite number, not {value}"
    elif value is not None:
        problem = _container_problem(value, path)
    return problem


def _container_problem(value: Any, path: str) -> str | None:
    match value:
        case dict():
            for key, part in value.items():
                if not isinstance(key, str) or not _is_unicode(key):
                    return f"{path} has the key {key!a}; keys must be text"
                if problem := _value_problem(part, f"{path}.{key}"):
                    return problem
            return None
        case list() | tuple():
            for index, part in enumerate(value):
                if problem := _value_problem(part, f"{path}[{index}]"):
                    return problem
            return None
        case _:
            return f"{path} must be a JSON value, not {type(value).__name__}"


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)

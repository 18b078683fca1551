"""Validation of what callers want to send: values that HTTP, JSON or the specification cannot carry are refused.

The generated models check nothing; the checks here follow from their type annotations.
"""

from __future__ import annotations

import math
import re
import types
import typing
import unicodedata
from functools import cache
from typing import Any, Union

import attrs
from printos_device_api import models as generated_models
from printos_device_api.types import Unset

from printos_async._errors import (
    InvalidDeviceIdError,
    InvalidProvisionRequestError,
    InvalidStatusError,
    PrintOSError,
)
from printos_async._models import DeviceProvisionRequest, DeviceStatusUpdate

MAX_DEVICE_ID_CHARS = 256
_MAX_INTEGER = 2**63 - 1
_PLAIN_DEVICE_ID = re.compile(r"[A-Za-z0-9_-]{1,256}")
_SCALARS = frozenset({str, int, float, bool})
_UNDERSCORE = re.compile(r"_(.)")


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


@cache
def json_name(attribute: str) -> str:
    """Return the specification's name of a generated model's attribute: ``pagesTotal`` for ``pages_total``."""
    return _UNDERSCORE.sub(lambda match: match[1].upper(), attribute)


@cache
def field_types(model: type) -> tuple[tuple[str, frozenset[type]], ...]:
    """Return each field of a generated model with the classes that its annotation allows."""
    # The generated modules import their siblings for type checkers only.
    hints = typing.get_type_hints(model, localns=vars(generated_models))
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(model)
    return tuple((field.name, _classes(hints[field.name])) for field in fields if field.init)


def _classes(hint: Any) -> frozenset[type]:
    if typing.get_origin(hint) in {Union, types.UnionType}:
        return frozenset().union(*(_classes(part) for part in typing.get_args(hint)))
    return frozenset({typing.get_origin(hint) or hint})


@cache
def _is_model(kind: type) -> bool:
    return attrs.has(kind)


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
    for name, allowed in field_types(model):
        part = getattr(value, name)
        kind: type = type(part)
        if kind is Unset or (kind in allowed and _is_plain(part, kind)):
            continue
        path = prefix + json_name(name)
        if kind in allowed or (kind is int and float in allowed):
            nested = kind not in _SCALARS and _is_model(kind)
        else:
            # A subclass, such as an enumeration of strings, will do; but a bool is no number.
            nested = False
            if kind is bool or not isinstance(part, tuple(allowed)):
                return f"{path} must be {_words(allowed)}, not {_shown(part)}"
        problem = _model_problem(part, kind, f"{path}.") if nested else _value_problem(part, path)
        if problem is not None:
            return problem
    extra = value.additional_properties
    return None if type(extra) is dict and not extra else _extra_problem(extra, model, prefix)


def _extra_problem(extra: Any, model: type, prefix: str) -> str | None:
    if not isinstance(extra, dict):
        return f"{prefix}additional_properties must be a dict, not {type(extra).__name__}"
    # Beside the attribute it would be lost without a word, and in its place it would pass by the attribute's type.
    for name in (json_name(name) for name, _ in field_types(model)):
        if name in extra:
            return f"{prefix}{name} must be set as the attribute, not as an additional property"
    return _value_problem(extra, prefix[:-1] or "additional properties")


def _is_plain(value: Any, kind: type) -> bool:
    """Return True for most valid values, quickly; False only means that a closer look is needed."""
    if kind is str:
        return bool(value.isascii())
    if kind is int:
        return bool(-_MAX_INTEGER <= value <= _MAX_INTEGER)
    return kind is float and math.isfinite(value)


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


def _words(allowed: frozenset[type]) -> str:
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    return " or ".join(sorted(names.get(kind, kind.__name__) for kind in allowed if kind is not Unset))


def _shown(value: Any) -> str:
    text = f"{value!a}" if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""
    return f"{type(value).__name__} {text[:60]}".rstrip()

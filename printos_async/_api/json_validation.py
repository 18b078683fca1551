"""Validation of JSON values that others have written: answers, lines of files, the sandbox's requests.

The generated models take any value that they are given, or raise untyped errors.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from .fields import described, extra_of, fields_of, is_model, shown

if TYPE_CHECKING:
    from .fields import ValueType

_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


def raw_problem(raw: Any, allowed: ValueType, path: str) -> str | None:
    """Return why a JSON value is not what the specification says, with its place; None if it is."""
    if allowed.model is not None and type(raw) is dict:
        return raw_object_problem(raw, allowed.model, f"{path}.")
    if object in allowed.kinds:
        return None
    match raw:
        case dict():
            models = [kind for kind in allowed.kinds if is_model(kind)]
            fits = any(raw_object_problem(raw, model, "") is None for model in models)
        case list() if allowed.items is not None:
            for index, item in enumerate(raw):
                if problem := raw_problem(item, allowed.items, f"{path}[{index}]"):
                    return problem
            return None
        case list():
            fits = False
        case _:
            fits = _is_scalar_of(raw, allowed)
    return None if fits else f"{path} must be {described(allowed)}, not {shown(raw)}"


def raw_object_problem(raw: dict[str, Any], model: type, prefix: str) -> str | None:
    """Return why a JSON object does not fit a generated model, with the place; None if it does."""
    declared = 0
    for field in fields_of(model):
        name = field.name
        if name in raw:
            declared += 1
            value = raw[name]
            if type(value) in field.plain_kinds:
                continue
            if problem := raw_problem(value, field.allowed, prefix + name):
                return problem
        elif field.is_required:
            return f"{prefix}{name} is missing"
    return None if declared == len(raw) else _raw_extra_problem(raw, model, prefix)


def _raw_extra_problem(raw: dict[str, Any], model: type, prefix: str) -> str | None:
    allowed = extra_of(model)
    for name in raw.keys() - {field.name for field in fields_of(model)}:
        if allowed is None:
            return f"{prefix}{name} is unknown"
        if problem := raw_problem(raw[name], allowed, prefix + name):
            return problem
    return None


def _is_scalar_of(raw: Any, allowed: ValueType) -> bool:
    kinds, kind = allowed.kinds, type(raw)
    if allowed.words and kind in {str, int} and raw in allowed.words:
        return True
    if kind is str:
        if datetime in kinds and _is_date_time(raw):
            return True
        if (date in kinds and _parses(date, raw)) or (UUID in kinds and _parses(UUID, raw)):
            return True
    elif kind is float and raw.is_integer() and int in kinds:
        return not allowed.words  # JSON Schema: 12.0 is an integer
    elif kind is int and float in kinds:
        return True
    return kind in kinds and kind not in {type(word) for word in allowed.words}


def _is_date_time(text: str) -> bool:
    """Return whether a text is a date-time of RFC 3339 that the generated models read: they take no small letters."""
    try:
        return _DATE_TIME.fullmatch(text) is not None and datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _parses(kind: type[date | UUID], text: str) -> bool:
    try:
        if kind is UUID:
            return str(UUID(text)) == text.lower()
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False

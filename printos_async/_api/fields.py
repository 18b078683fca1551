"""Fields of the generated models: names, types, enumerations, and which fields are required.

All of it comes from the generated classes, so that a regenerated client needs no change here.
"""

from __future__ import annotations

import types
import typing
from datetime import date, datetime
from functools import cache
from typing import Any, Literal, Union
from uuid import UUID

import attrs
from attrs import frozen
from printos_device_api import models as generated_models
from printos_device_api.types import Unset

_EXTRA = "additional_properties"


@frozen
class ValueType:
    """The values that an annotation of a generated model allows.

    Attributes:
        kinds: Their classes, without ``Unset``; ``object`` where any JSON value will do.
        words: The values of an enumeration; empty where there is none.
        items: The values of a list's elements; None without a list.
        model: The generated model of an object; None without one, or where there are several.
    """

    kinds: frozenset[type]
    words: frozenset[Any] = frozenset()
    items: ValueType | None = None
    model: type | None = None


@frozen
class Field:
    """One field of a generated model.

    Attributes:
        attribute: The name in Python, such as ``pages_total``.
        name: The name in JSON, such as ``pagesTotal``.
        allowed: The values that it takes.
        is_required: Whether it must be there.
        plain_kinds: The scalar classes any of whose values it takes, and ``Unset`` unless it is required.
    """

    attribute: str
    name: str
    allowed: ValueType
    is_required: bool
    plain_kinds: frozenset[type]


@cache
def fields_of(model: type) -> tuple[Field, ...]:
    """Return the fields of a generated model, in the specification's order."""
    hints, names = _hints(model), _json_names(model)
    fields: list[Field] = []
    for attribute in attrs.fields(model):
        if attribute.init:
            allowed = _value_type(hints[attribute.name])
            plain_kinds = {str, int, float} & allowed.kinds - {type(word) for word in allowed.words}
            is_required = attribute.default is attrs.NOTHING
            if not is_required:
                plain_kinds.add(Unset)
            name = names[attribute.name]
            fields.append(Field(attribute.name, name, allowed, is_required, frozenset(plain_kinds)))
    return tuple(fields)


@cache
def extra_of(model: type) -> ValueType | None:
    """Return the values that additional properties of a generated model take; None where there are no such."""
    hint = _hints(model).get(_EXTRA)
    return None if hint is None else _value_type(typing.get_args(hint)[1])


@cache
def is_model(kind: type) -> bool:
    """Return whether a class is a generated model."""
    return attrs.has(kind)


def _hints(model: type) -> dict[str, Any]:
    # The generated modules import their siblings for type checkers only.
    return typing.get_type_hints(model, localns=vars(generated_models))


def _value_type(hint: Any) -> ValueType:
    kinds: set[type] = set()
    words: set[Any] = set()
    items: list[ValueType] = []
    for part in _alternatives(hint):
        origin = typing.get_origin(part)
        if origin is Literal:
            words.update(typing.get_args(part))
        elif origin is list:
            items += map(_value_type, typing.get_args(part))
        kinds.add(object if part is Any else type(None) if part is None else origin or part)
    kinds -= {Unset, Literal}
    words = {word for word in words if type(word) not in kinds}  # beside any text, no text is refused
    models = [kind for kind in kinds if is_model(kind)]
    return ValueType(
        frozenset(kinds | {type(word) for word in words}),
        frozenset(words),
        items[0] if len(items) == 1 else ValueType(frozenset({object})) if items else None,
        models[0] if len(models) == 1 else None,
    )


def _alternatives(hint: Any) -> list[Any]:
    if typing.get_origin(hint) in {Union, types.UnionType}:
        return [part for alternative in typing.get_args(hint) for part in _alternatives(alternative)]
    return [hint]


class StandIn(str):
    """Stand-in for a value of any type: a model that is turned into JSON shows it under the property's name."""

    __slots__ = ()

    def isoformat(self) -> str:
        return self

    def to_dict(self) -> str:
        return self

    def __iter__(self) -> typing.Iterator[str]:
        yield self


def _json_names(model: Any) -> dict[str, str]:
    """Return the JSON name of each attribute. The generated code has them in its methods only."""
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(model)
    stand_ins = {field.name: StandIn(field.name) for field in fields if field.init}
    names = {}
    for name, value in model(**stand_ins).to_dict().items():
        while isinstance(value, list):
            value = value[0]  # noqa: PLW2901
        names[str(value)] = name
    return names


_NAMES: dict[type, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    type(None): "null",
    datetime: "a date-time with an offset (RFC 3339)",
    date: "a date (YYYY-MM-DD)",
    UUID: "a UUID",
}


def described(allowed: ValueType, *, model_names: bool = False) -> str:
    """Return the allowed values in words: ``a text or null``."""
    kinds = allowed.kinds - {type(word) for word in allowed.words}
    names = {_NAMES.get(kind, kind.__name__ if model_names else "an object") for kind in kinds}
    if allowed.words:
        names.add(f"one of {', '.join(sorted(map(str, allowed.words)))}")
    return " or ".join(sorted(names))


def shown(value: Any) -> str:
    """Return a value's class and, of a text or a number, its beginning."""
    text = f"{value!a}" if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""
    return f"{type(value).__name__} {text[:60]}".rstrip()

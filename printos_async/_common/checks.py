"""Checks of settings: the error names the setting and the values that are allowed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from printos_async._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from attrs import Attribute


def require_number(name: str, value: Any, minimum: float, *, whole: bool = False) -> None:
    """Raise ``ConfigurationError`` unless ``value`` is a finite number of at least ``minimum``."""
    is_number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < minimum:
        noun = "a whole number" if whole else "a number"
        raise ConfigurationError(f"{name} must be {noun} of at least {minimum:g}, not {value!r}")


def require_type(name: str, value: object, kind: Any, wanted: str) -> None:
    """Raise ``ConfigurationError`` unless ``value`` is an instance of ``kind``; ``wanted`` names it for people."""
    if not isinstance(value, kind):
        raise ConfigurationError(f"{name} must be {wanted}, not {type(value).__name__}")


def at_least(minimum: float) -> Callable[[Any, Attribute[Any], Any], None]:
    """Return an attrs validator; a whole ``minimum`` asks for whole numbers."""

    def validate(_: Any, attribute: Attribute[Any], value: Any) -> None:
        require_number(attribute.name, value, minimum, whole=isinstance(minimum, int))

    return validate


def one_of(*choices: str) -> Callable[[Any, Attribute[Any], Any], None]:
    """Return an attrs validator that allows these values only."""

    def validate(_: Any, attribute: Attribute[Any], value: Any) -> None:
        if value not in choices:
            wanted = " or ".join(map(repr, choices))
            raise ConfigurationError(f"{attribute.name} must be {wanted}, not {value!r}")

    return validate

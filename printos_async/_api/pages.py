"""Pages of a list: which parameter of the generated operation asks for the next one, and what its answer calls it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from attrs import frozen

from .body import DecodeError
from .fields import fields_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Names in common use, in small letters without separators; the first that is there counts.
_PARAMETERS = (
    "pagetoken",
    "cursor",
    "pagecursor",
    "continuationtoken",
    "nexttoken",
    "nextpagetoken",
    "nextcursor",
)
_MEMBERS = (
    "nextpagetoken",
    "nextcursor",
    "nextpagecursor",
    "nexttoken",
    "continuationtoken",
    "pagetoken",
    "cursor",
)


@frozen
class Pages:
    """Pages of a list.

    Attributes:
        parameter: The generated operation's argument that takes the token of a page.
        member: The property of its answer that holds the token of the next page.
    """

    parameter: str
    member: str

    def next_token(self, answer: Mapping[str, Any]) -> str | None:
        """Return the token of the next page; None after the last one.

        Raises:
            DecodeError: It is no text.
        """
        token = answer.get(self.member)
        if token is None or token == "":
            return None
        if not isinstance(token, str):
            raise DecodeError(f"{self.member} must be a text, not {type(token).__name__}")
        return token


def pages_of(get_kwargs: Callable[..., Any], answer: type) -> Pages | None:
    """Return the pages of a generated operation and its answer's model; None where it has none."""
    arguments = {
        _plain(name): name
        for name, parameter in inspect.signature(get_kwargs).parameters.items()
        if parameter.default is not parameter.empty  # without a token the list begins
    }
    members = {_plain(field.name): field.name for field in fields_of(answer) if str in field.allowed.kinds}
    parameter = next((arguments[name] for name in _PARAMETERS if name in arguments), None)
    member = next((members[name] for name in _MEMBERS if name in members), None)
    return None if parameter is None or member is None else Pages(parameter, member)


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()

"""Rows of the table in ``contract.py``."""

from __future__ import annotations

import re

from attrs import field, frozen

# The fact has to exist, with any value.
ANY = "*"


@frozen
class Use:
    """A module that depends on a reliance, and the name in it to look at; a test checks that the name is there."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"printos_async/{self.module} ({self.name})"


@frozen
class Reliance:
    """One thing that the facade relies on.

    Attributes:
        subject: The operation or the schema, or ``API``.
        topic: Which of its properties.
        places: A regular expression for the names of the facts (see ``codegen_facts``) that are compared.
        wanted: The facts that the facade expects, by default none; the value ``ANY`` accepts every value.
        relies: What the facade does because of it.
        to_do: What to do if the specification differs.
        uses: The modules to change.
    """

    subject: str
    topic: str
    places: str = ""
    wanted: dict[str, str] = field(factory=dict, kw_only=True)
    relies: str = field(kw_only=True)
    to_do: str = field(kw_only=True)
    uses: tuple[Use, ...] = field(kw_only=True)


def snake_case(name: str) -> str:
    """Return the generator's name of an operation's module: ``listDevices`` is ``list_devices``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()

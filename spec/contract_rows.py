"""A row of the table of what the facade relies on: see ``contract.py``."""

from __future__ import annotations

import re

from attrs import field, frozen

# A fact that has to be there, whatever it says.
ANY = "*"


@frozen
class Use:
    """A module that relies on something, and the name in it that does; a test finds the name in the module."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"printos_async/{self.module} ({self.name})"


@frozen
class Reliance:
    """One thing that the facade relies on.

    Attributes:
        subject: The operation or the schema, or ``API``.
        topic: What about it.
        places: A regular expression; the facts (see ``codegen_facts``) whose names match are those that count.
        wanted: These facts as the facade takes them, by default none; ``ANY`` takes whatever is said.
        relies: What the facade does because of it.
        to_do: What to do where the specification says otherwise.
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

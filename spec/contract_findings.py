"""Compares a specification with what the facade relies on; imports nothing of the facade."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from spec.contract import KNOWN_OPERATIONS, LEFT_OUT, NEW_OPERATION, RELIANCES, SANDBOX
from spec.contract_rows import ANY, Reliance, Use

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spec.codegen_facts import Facts

_FACADE = Path(__file__).resolve().parent.parent / "printos_async"


@frozen
class Finding:
    """What the facade relies on and a specification does not say.

    Attributes:
        subject: The operation or the schema, or ``API``.
        topic: What about it.
        differences: What the specification says instead, in a line for each difference.
        relies: What the facade does because of it.
        to_do: What to do.
        uses: The modules to change, each with the name in it that is concerned.
    """

    subject: str
    topic: str
    differences: tuple[str, ...]
    relies: str
    to_do: str
    uses: tuple[Use, ...]

    def __str__(self) -> str:
        lines = [
            f"{self.subject}: {self.topic}",
            *(f"  specification: {difference}" for difference in self.differences),
            f"  the facade:    {self.relies}",
            f"  to do:         {self.to_do}",
            *(f"  look at:       {use}" for use in self.uses),
        ]
        return "\n".join(lines)


def contract_findings(facts: Facts, *, facade: Path = _FACADE) -> list[Finding]:
    """Return where a specification differs from what the facade relies on; empty if nowhere.

    Args:
        facts: What the specification says.
        facade: The folder ``printos_async``, whose source is read for what the sandbox serves.
    """
    gone = [name for name in KNOWN_OPERATIONS if f"{name} method" not in facts]
    return [
        *(_gone(name) for name in gone),
        *_new_operations(facts),
        *_sandbox(facts, facade),
        *(
            finding
            for reliance in RELIANCES
            if reliance.subject not in gone
            for finding in _differs(reliance, facts)
        ),
    ]


def render(findings: list[Finding]) -> str:
    """Return the findings as text, their number last."""
    number = "1 finding" if len(findings) == 1 else f"{len(findings) or 'no'} findings"
    return "\n\n".join([*map(str, findings), f"contract: {number}"])


def _differs(reliance: Reliance, facts: Facts) -> Iterator[Finding]:
    found = {name: text for name, text in facts.items() if re.search(reliance.places, name)}
    wanted = reliance.wanted
    differences = [f"{name}: {text}; is new" for name, text in found.items() if name not in wanted]
    for name, text in wanted.items():
        if name not in found:
            differences.append(f"{name} is gone" + ("" if text == ANY else f"; was {text}"))
        elif text not in {ANY, found[name]}:
            differences.append(f"{name}: {found[name]}; was {text}")
    if differences:
        yield Finding(
            reliance.subject,
            reliance.topic,
            tuple(differences),
            reliance.relies,
            reliance.to_do,
            reliance.uses,
        )


def _gone(name: str) -> Finding:
    function = snake_case(name)
    return Finding(
        name,
        "an operation that is gone",
        (f"there is no operation {name}",),
        "imports its generated endpoint, so that nothing can be imported without it",
        "look for it under another operationId in the report; else remove what calls it",
        (Use("_api/requests.py", function), Use("_client.py", function)),
    )


def _operations(facts: Facts) -> list[str]:
    names = (name.removesuffix(" method") for name in facts if re.fullmatch(r"\S+ method", name))
    return [name for name in names if name not in LEFT_OUT]


def _new_operations(facts: Facts) -> Iterator[Finding]:
    for name in _operations(facts):
        if name not in KNOWN_OPERATIONS:
            yield Finding(
                name,
                "an operation that is new",
                (f"{facts[f'{name} method']} {facts[f'{name} path']}",),
                "has no method for it",
                "decide whether it gets one: a call, its answer, a method, a command; everything else works without",
                NEW_OPERATION,
            )


def _sandbox(facts: Facts, facade: Path) -> Iterator[Finding]:
    served = {text for path in sorted((facade / "sandbox").glob("*.py")) for text in _texts(path)}
    for name in _operations(facts):
        if name not in served:
            yield Finding(
                name,
                "the sandbox does not serve it",
                (f"{facts[f'{name} method']} {facts[f'{name} path']}",),
                "no module of the sandbox names the operation; it refuses such a request",
                "serve it, let faults name it, and extend the tests of the sandbox",
                SANDBOX,
            )


def _texts(path: Path) -> set[str]:
    tree = ast.parse(path.read_bytes())
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def snake_case(name: str) -> str:
    """Return the generator's name of an operation's module: ``listDevices`` is ``list_devices``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()

"""Compares a specification with what the facade relies on, without importing the facade."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from spec.contract import KNOWN_OPERATIONS, LEFT_OUT, NEW_OPERATION, RELIANCES, SANDBOX
from spec.contract_rows import ANY, Reliance, Use, snake_case

if TYPE_CHECKING:
    from spec.codegen_facts import Facts

_FACADE = Path(__file__).resolve().parent.parent / "printos_async"


@frozen
class Finding:
    """A reliance of the facade that a specification does not meet, with one line for each difference."""

    reliance: Reliance
    differences: tuple[str, ...]

    def __str__(self) -> str:
        reliance = self.reliance
        lines = [
            f"{reliance.subject}: {reliance.topic}",
            *(f"  specification: {difference}" for difference in self.differences),
            f"  the facade:    {reliance.relies}",
            f"  to do:         {reliance.to_do}",
            *(f"  look at:       {use}" for use in reliance.uses),
        ]
        return "\n".join(lines)


def contract_findings(facts: Facts, *, facade: Path = _FACADE) -> list[Finding]:
    """Return the reliances of the facade that a specification does not meet.

    Args:
        facts: The facts of the specification.
        facade: The folder ``printos_async``; the operations that the sandbox serves are read from its source.
    """
    operations = {
        name: f"{facts[f'{name} method']} {facts[f'{name} path']}"
        for name in (place.removesuffix(" method") for place in facts if re.fullmatch(r"\S+ method", place))
        if name not in LEFT_OUT
    }
    served = {text for path in sorted((facade / "sandbox").glob("*.py")) for text in _texts(path)}
    gone = [name for name in KNOWN_OPERATIONS if f"{name} method" not in facts]
    relied_on = [reliance for reliance in RELIANCES if reliance.subject not in gone]
    return [
        *(Finding(_gone(name), (f"there is no operation {name}",)) for name in gone),
        *(Finding(_new(name), (said,)) for name, said in operations.items() if name not in KNOWN_OPERATIONS),
        *(Finding(_unserved(name), (said,)) for name, said in operations.items() if name not in served),
        *(Finding(reliance, found) for reliance in relied_on if (found := _differences(reliance, facts))),
    ]


def render(findings: list[Finding]) -> str:
    """Return the findings as text, with their number at the end."""
    number = "1 finding" if len(findings) == 1 else f"{len(findings) or 'no'} findings"
    return "\n\n".join([*map(str, findings), f"contract: {number}"])


def _differences(reliance: Reliance, facts: Facts) -> tuple[str, ...]:
    found = {name: text for name, text in facts.items() if re.search(reliance.places, name)}
    wanted = reliance.wanted
    differences = [f"{name}: {text}; is new" for name, text in found.items() if name not in wanted]
    for name, text in wanted.items():
        if name not in found:
            differences.append(f"{name} is gone" + ("" if text == ANY else f"; was {text}"))
        elif text not in {ANY, found[name]}:
            differences.append(f"{name}: {found[name]}; was {text}")
    return tuple(differences)


def _gone(name: str) -> Reliance:
    return Reliance(
        name,
        "an operation that is gone",
        relies="imports its generated endpoint, so that nothing can be imported without it",
        to_do="look for it under another operationId in the report; else remove what calls it",
        uses=(Use("_api/requests.py", snake_case(name)), Use("_client.py", snake_case(name))),
    )


def _new(name: str) -> Reliance:
    return Reliance(
        name,
        "an operation that is new",
        relies="has no method for it",
        to_do="decide whether it gets one: a call, its answer, a method, a command; everything else works without",
        uses=NEW_OPERATION,
    )


def _unserved(name: str) -> Reliance:
    return Reliance(
        name,
        "the sandbox does not serve it",
        relies="no module of the sandbox names the operation; it refuses such a request",
        to_do="serve it, let faults name it, and extend the tests of the sandbox",
        uses=SANDBOX,
    )


def _texts(path: Path) -> set[str]:
    tree = ast.parse(path.read_bytes())
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }

"""Options that several commands share: groups of them, and the single ones."""

# The command line's modules of options and commands keep their annotations as objects, for Typer and the decorator
# below read them: no `from __future__ import annotations`.
import functools
import inspect
import math
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import attrs
import typer

from printos_async.cli.input.records import Format
from printos_async.cli.terminal.output import CommandError

C = TypeVar("C", bound=Callable[..., None])

AsJson = Annotated[
    bool, typer.Option("--json", help="Write one JSON object to standard output, and nothing else.")
]
FileFormat = Annotated[
    Format | None,
    typer.Option(
        "--format",
        help="By default that of the extension (.jsonl, .ndjson, .csv); jsonl for standard input.",
    ),
]


def with_option_groups(command: C) -> C:
    """Return a command for Typer, with each option group replaced by the options of the group.

    A group is a parameter annotated with an attrs class, each field of which declares one option. Typer itself
    needs every option in the signature of each command.

    The command raises ``CommandError`` for a number that is infinite or none, which Typer's bounds let through.
    """
    signature = inspect.signature(command)
    groups: dict[str, type[attrs.AttrsInstance]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        group = parameter.annotation
        if not (isinstance(group, type) and attrs.has(group)):
            parameters.append(parameter)
            continue
        groups[parameter.name] = group
        parameters += [
            inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type
            )
            for field in attrs.fields(group)
        ]

    @functools.wraps(command)
    def with_groups(**options: Any) -> None:
        for parameter in parameters:
            value = options.get(parameter.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise CommandError(f"{option_name(parameter.name)} must be a number, not {value}")
        made = {
            name: group(**{field.name: options.pop(field.name) for field in attrs.fields(group)})
            for name, group in groups.items()
        }
        command(**options, **made)

    with_groups.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_groups.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_groups  # type: ignore[return-value]


def option_name(parameter: str) -> str:
    """Return the option of a parameter, whose name may end in its unit."""
    return "--" + parameter.removesuffix("_s").replace("_", "-")

"""Report of the changes between two versions: in the specification, and for callers of the generated package.

griffe compares the packages and finds what was removed, moved or became required. It does not compare types, allowed
words, status codes or security; these come from the two specifications.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import griffe

from spec.codegen_swap import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from spec.codegen_facts import Facts

_SIGNS = {"+": "added", "-": "removed", "~": "changed"}


def specification_report(old: Facts | None, new: Facts) -> str:
    """Return what was added (+), removed (-) and changed (~) in the specification.

    Args:
        old: Facts of the specification that the client was generated from; None if they are unknown.
        new: Facts of the new specification.
    """
    if old is None:
        return "specification: no earlier one to compare with"
    lines = []
    for name in [*new, *(name for name in old if name not in new)]:
        if name not in old:
            lines.append(f"+ {name}: {new[name]}")
        elif name not in new:
            lines.append(f"- {name}: {old[name]}")
        elif old[name] != new[name]:
            lines.append(f"~ {name}: {old[name]}  ->  {new[name]}")
    if not lines:
        return "specification: no change"
    counts = ", ".join(f"{sum(line[0] == sign for line in lines)} {word}" for sign, word in _SIGNS.items())
    return "\n".join([f"specification: {counts}", *(f"  {line}" for line in lines)])


class _AttrsInit(griffe.Extension):
    """Adds the ``__init__`` that attrs generates; griffe itself knows only that of dataclasses."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Add the method to a class that attrs decorates."""
        if not any(str(decorator.callable_path) == "attrs.define" for decorator in cls.decorators):
            return
        parameters = [griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)]
        parameters += [
            griffe.Parameter(
                field.name,
                annotation=field.annotation,
                kind=griffe.ParameterKind.positional_or_keyword,
                default=field.value,
            )
            for field in cls.members.values()
            if isinstance(field, griffe.Attribute) and field.annotation is not None and _is_argument(field)
        ]
        method = griffe.Function("__init__", parameters=griffe.Parameters(*parameters), returns="None")
        cls.set_member("__init__", method)


def _is_argument(field: griffe.Attribute) -> bool:
    return "property" not in field.labels and "init=False" not in str(field.value)


def python_report(old: Path, new: Path) -> str:
    """Return what breaks for callers of a generated package, as griffe finds it without importing the package.

    Args:
        old: The folder that holds the old package.
        new: The folder that holds the new package.
    """
    try:
        before = _load(old)
    except (griffe.GriffeError, ImportError, SyntaxError, OSError) as error:
        # The old client may be missing or edited, which must not prevent generating a new one.
        return f"generated package: the old one cannot be compared: {type(error).__name__}"
    lines = sorted(_breakages(before, _load(new)))
    if not lines:
        return "generated package: nothing breaks for its callers"
    return "\n".join([f"generated package: {len(lines)} breaking", *(f"  ! {line}" for line in lines)])


def _load(folder: Path) -> griffe.Object | griffe.Alias:
    # griffe warns about docstrings and unknown imports, which do not concern callers.
    logging.getLogger("griffe").setLevel(logging.CRITICAL)
    return griffe.load(
        PACKAGE,
        search_paths=[folder],
        allow_inspection=False,
        extensions=griffe.load_extensions(_AttrsInit()),
    )


def _breakages(old: griffe.Object | griffe.Alias, new: griffe.Object | griffe.Alias) -> Iterator[str]:
    for breakage in griffe.find_breaking_changes(old, new):
        name = breakage.obj.path.removeprefix(f"{PACKAGE}.")
        values = breakage.old_value, breakage.new_value
        parameters = [value.name for value in values if isinstance(value, griffe.Parameter)]
        where = f"{name}({parameters[0]})" if parameters else name
        details = f": {breakage.details}" if breakage.details else ""
        yield f"{where}: {breakage.kind.value}{details}"

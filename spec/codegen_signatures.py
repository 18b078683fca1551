"""Reads the public signatures of a generated package from its source, and says in what two packages differ."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@frozen
class Endpoint:
    """What one endpoint module sends: ``GET``, ``/devices/{device_id}/status``."""

    module: str
    method: str
    path: str


def endpoints(package: Path) -> list[Endpoint]:
    """Give the endpoint modules of a package."""
    found = []
    for path in sorted((package / "api").rglob("*.py")):
        tree = ast.parse(path.read_bytes())
        request = _request(tree)
        if request is not None:
            found.append(Endpoint(_module_name(package, path), *request))
    return found


def signatures(package: Path) -> dict[str, str]:
    """Give the public signatures of a package by name, in a form made for comparing; nothing is imported.

    Endpoints say what they send, take, give back and which status codes they know. Models say their fields.
    """
    found: dict[str, str] = {}
    for path in sorted(package.rglob("*.py")):
        module = _module_name(package, path)
        try:
            tree = ast.parse(path.read_bytes())
            request = _request(tree)
            found.update(_endpoint(module, tree, request) if request else _module(module, tree))
        except (SyntaxError, KeyError, ValueError):
            # The old client may have been edited or hold a merge's marks; that must not stop a new one.
            found[module] = "not readable"
    return found


def report(old: dict[str, str], new: dict[str, str]) -> str:
    """Say what was added (+), removed (-) and changed (~) from old to new."""
    lines = []
    # The methods of a class that comes or goes as a whole go without saying; its fields do not.
    whole = tuple(f"{name}." for name in old.keys() ^ new.keys() if not name.endswith("()"))
    for name in sorted(old.keys() | new.keys()):
        if name.startswith(whole) and name.endswith("()"):
            continue
        if name not in old:
            lines.append(f"+ {name}: {new[name]}")
        elif name not in new:
            lines.append(f"- {name}: {old[name]}")
        elif old[name] != new[name]:
            lines.append(f"~ {name}: {old[name]}  ->  {new[name]}")
    lines += _reordered(old, new)
    if not lines:
        return "no change in the public signatures"
    kinds = {"+": "added", "-": "removed", "~": "changed"}
    counts = ", ".join(f"{sum(line[0] == sign for line in lines)} {word}" for sign, word in kinds.items())
    return "\n".join([f"public signatures: {counts}", *(f"  {line}" for line in lines)])


def _reordered(old: dict[str, str], new: dict[str, str]) -> Iterator[str]:
    """Name the models whose fields come in another order, which is that of their positional arguments."""
    for owner in sorted(name for name in old.keys() & new.keys() if new[name].startswith("class(")):
        fields = [n for n in old if n in new and n.startswith(f"{owner}.") and not n.endswith("()")]
        moved = [name for name in new if name in fields]
        if fields != moved:
            order = [", ".join(name.rpartition(".")[2] for name in names) for names in (fields, moved)]
            yield f"~ {owner} order: {order[0]}  ->  {order[1]}"


def _module_name(package: Path, path: Path) -> str:
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def _request(tree: ast.Module) -> tuple[str, str] | None:
    """Read method and path from the dictionary that ``_get_kwargs`` builds; None where there is no such function."""
    for function in tree.body:
        if not isinstance(function, ast.FunctionDef) or function.name != "_get_kwargs":
            continue
        for node in ast.walk(function):
            if not isinstance(node, ast.Dict):
                continue
            entries = {
                key.value: value
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant)
            }
            if {"method", "url"} <= entries.keys():
                return _text(entries["method"]).upper(), _text(entries["url"])
    return None


def _text(node: ast.expr) -> str:
    """Give the text of ``"..."`` or of ``"...".format(...)``."""
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            return part.value
    return ast.unparse(node)


def _endpoint(module: str, tree: ast.Module, request: tuple[str, str]) -> Iterator[tuple[str, str]]:
    yield module, " ".join(request)
    functions = {node.name: node for node in tree.body if isinstance(node, _Function)}
    # All four functions of a module take the same; the detailed one always exists.
    detailed = functions["asyncio_detailed"]
    for name, text in _parameters(detailed):
        if name != "client":
            yield f"{module} parameter {name}", text
    for name in ("asyncio_detailed", "asyncio"):
        if name in functions:
            yield f"{module}.{name} result", _annotation(functions[name].returns)
    yield f"{module} documented statuses", ", ".join(_statuses(functions["_parse_response"])) or "none"


def _statuses(function: _Function) -> Iterator[str]:
    """Read the status codes out of the comparisons with ``response.status_code``."""
    for node in function.body:
        if isinstance(node, ast.If) and "response.status_code" in (condition := ast.unparse(node.test)):
            yield "-".join(re.findall(r"\d{3}", condition))


def _module(module: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, _Function) and not node.name.startswith("_"):
            yield f"{module}.{node.name}()", _signature(node)
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield f"{module}.{node.name}", f"class({', '.join(ast.unparse(base) for base in node.bases)})"
            yield from _members(f"{module}.{node.name}", node)


def _members(owner: str, node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for member in node.body:
        if isinstance(member, ast.AnnAssign):
            default = "" if member.value is None else f" = {ast.unparse(member.value)}"
            yield f"{owner}.{ast.unparse(member.target)}", _annotation(member.annotation) + default
        elif isinstance(member, ast.Assign):
            yield f"{owner}.{ast.unparse(member.targets[0])}", ast.unparse(member.value)
        elif isinstance(member, _Function) and (not member.name.startswith("_") or member.name == "__init__"):
            yield f"{owner}.{member.name}()", _signature(member)


def _signature(function: _Function) -> str:
    taken = ", ".join(
        f"{name}: {text}" for name, text in _parameters(function) if name not in {"self", "cls"}
    )
    return f"({taken}) -> {_annotation(function.returns)}"


def _parameters(function: _Function) -> Iterator[tuple[str, str]]:
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    missing: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    for argument, default in zip(positional, [*missing, *arguments.defaults], strict=True):
        yield argument.arg, _annotation(argument.annotation) + _default(default)
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield argument.arg, _annotation(argument.annotation) + _default(default)
    for rest in (arguments.vararg, arguments.kwarg):
        if rest is not None:
            yield rest.arg, f"*{_annotation(rest.annotation)}"


def _default(node: ast.expr | None) -> str:
    return "" if node is None else f" = {ast.unparse(node)}"


def _annotation(node: ast.expr | None) -> str:
    return "Any" if node is None else ast.unparse(node)

"""Reads from the source of a generated package what its endpoint modules send."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from pathlib import Path


@frozen
class Endpoint:
    """What one endpoint module sends: ``GET``, ``/devices/{device_id}/status``."""

    module: str
    method: str
    path: str


def endpoints(package: Path) -> list[Endpoint]:
    """Return the endpoint modules of a package."""
    found = []
    for path in sorted((package / "api").rglob("*.py")):
        request = _request(ast.parse(path.read_bytes()))
        if request is not None:
            found.append(Endpoint(path.stem, *request))
    return found


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
    """Return the text of ``"..."`` or of ``"...".format(...)``."""
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            return part.value
    return ast.unparse(node)

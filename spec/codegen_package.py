"""Runs the generator, checks that its package is complete, and compares packages file by file."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openapi_python_client.config import ConfigFile
from ruamel.yaml import YAML

from spec.codegen_input import Operation
from spec.codegen_swap import PACKAGE
from spec.codegen_tools import GENERATOR_VERSION, RUFF_VERSION, CodegenError, one_line, tool_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spec.codegen_input import Specification

LOCK_FILE = "codegen.lock"
SPECIFICATION_FILE = "specification.json"
_CONFIG = Path(__file__).with_name("openapi-python-client.yml")
_GENERATOR_TIMEOUT_S = 300
# Imports every module of the package from the given folder, and fails if the package is found elsewhere.
_IMPORT_ALL = f"""
import importlib, pathlib, pkgutil, sys
folder = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(folder))
package = importlib.import_module("{PACKAGE}")
assert pathlib.Path(package.__file__).parent.parent == folder, package.__file__
failed = []
for module in pkgutil.walk_packages(package.__path__, "{PACKAGE}.", onerror=failed.append):
    importlib.import_module(module.name)
assert not failed, failed
"""


def build(specification: Specification, folder: Path, *, keep_open: tuple[int, ...] = ()) -> Path:
    """Generate the package into an empty folder and check it.

    Args:
        specification: The specification.
        folder: The folder; the package becomes ``folder / "printos_device_api"``.
        keep_open: Descriptors that the generator keeps open, so that a lock outlives this process if it is
            killed and the generator is not.

    Raises:
        CodegenError: The generator failed or left something out, or the package cannot be imported.
    """
    package = folder / PACKAGE
    _generate(specification, folder, package, keep_open)
    # With `--meta none` the generator writes neither file. The lock holds no time and no path: the same input gives the
    # same bytes.
    (package / "py.typed").write_bytes(b"")
    lock = {
        "specification": {"file": specification.name, "sha256": specification.sha256},
        "openapi-python-client": GENERATOR_VERSION,
        "ruff": RUFF_VERSION,
    }
    (package / LOCK_FILE).write_text(json.dumps(lock, indent=2) + "\n", encoding="utf-8")
    # The next report compares with this copy, which is also there where the package is installed.
    content = json.dumps(specification.document, indent=2, ensure_ascii=False, default=str)
    (package / SPECIFICATION_FILE).write_text(content + "\n", encoding="utf-8")
    _assert_importable(folder)
    _assert_whole(specification, package)
    return package


def recorded_specification(package: Path) -> dict[str, Any] | None:
    """Return the specification that a package was generated from; None if the package does not hold it."""
    try:
        document = json.loads((package / SPECIFICATION_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def differences(wanted: Path, found: Path) -> list[tuple[str, str]]:
    """Compare two packages byte by byte.

    Returns:
        Pairs of ``changed``, ``missing`` or ``extra`` and the file's path inside the package, without Python's caches.
    """
    ours, theirs = _files(wanted), _files(found)
    result = []
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in theirs:
            result.append(("missing", name))
        elif name not in ours:
            result.append(("extra", name))
        elif theirs[name].is_symlink() or ours[name].read_bytes() != theirs[name].read_bytes():
            result.append(("changed", name))
    return result


def _files(package: Path) -> dict[str, Path]:
    return {
        path.relative_to(package).as_posix(): path
        for path in package.rglob("*")
        if (path.is_symlink() or path.is_file())
        and "__pycache__" not in path.relative_to(package).parts
        and path.suffix != ".pyc"
    }


def _generate(specification: Specification, folder: Path, package: Path, keep_open: tuple[int, ...]) -> None:
    _assert_known_keys()
    # A copy of the bytes that were checked: the file may have changed since.
    source = folder / "specification.yml"
    source.write_bytes(specification.content)
    command = [sys.executable, "-P", "-m", "openapi_python_client", "generate"]
    command += ["--path", str(source), "--output-path", str(package), "--config", str(_CONFIG)]
    command += ["--meta", "none", "--fail-on-warning"]
    try:
        done = subprocess.run(  # noqa: S603  # no part of it comes from a document
            command,
            env=tool_environment(),
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_GENERATOR_TIMEOUT_S,
            pass_fds=keep_open,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CodegenError(f"the generator did not end within {_GENERATOR_TIMEOUT_S} s") from error
    finally:
        source.unlink(missing_ok=True)
    if done.returncode != 0:
        raise CodegenError(f"the generator failed: {_reason(done.stderr)}")


def _assert_known_keys() -> None:
    """Refuse an unknown key in the generator's configuration, which the generator would ignore."""
    configuration = YAML(typ="safe", pure=True).load(_CONFIG)
    unknown = sorted(set(configuration) - set(ConfigFile.model_fields))
    if unknown:
        raise CodegenError(f"{_CONFIG.name}: unknown key {', '.join(unknown)}")


def _reason(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    if any(line.startswith("Traceback") for line in lines):
        return lines[-1]
    told = [
        line for line in lines if not line.startswith(("Warning(s) enc", "Error(s) enc", "If you believe"))
    ]
    return one_line(" ".join(told) or "it said nothing")


def _assert_importable(folder: Path) -> None:
    done = subprocess.run(  # noqa: S603  # fixed text and our own folder
        [sys.executable, "-P", "-B", "-c", _IMPORT_ALL, str(folder)],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise CodegenError(f"the generated package cannot be imported: {_reason(done.stderr)}")


def _assert_whole(specification: Specification, package: Path) -> None:
    """Check that each operation has one endpoint module and each module an operation, by method, path and name."""
    wanted = Counter(map(_key, specification.operations))
    found = Counter(map(_key, _endpoints(package)))
    for operation in specification.operations:
        key = _key(operation)
        if found[key] != wanted[key]:
            raise CodegenError(
                f"operation {operation.operation_id} ({operation.method} {operation.path}) has no endpoint module of"
                " its own; is its operationId distinct and made of letters, digits and underscores?"
            )
    if found != wanted:
        extra = ", ".join(f"{method} {path}" for method, path, _ in found - wanted)
        raise CodegenError(f"endpoint modules without an operation: {extra}")


def _endpoints(package: Path) -> Iterator[Operation]:
    """Yield the operation of each endpoint module, as its ``_get_kwargs`` returns method and path."""
    for module in sorted((package / "api").rglob("*.py")):
        for node in ast.walk(ast.parse(module.read_bytes())):
            if isinstance(node, ast.Dict):
                entries = {
                    ast.unparse(key): value for key, value in zip(node.keys, node.values, strict=True) if key
                }
                if {"'method'", "'url'"} <= entries.keys():
                    yield Operation(module.stem, _text(entries["'method'"]).upper(), _text(entries["'url'"]))


def _text(node: ast.expr) -> str:
    """Return the text of ``"..."`` or of ``"...".format(...)``."""
    texts = (part.value for part in ast.walk(node) if isinstance(part, ast.Constant))
    return next((text for text in texts if isinstance(text, str)), "")


def _key(operation: Operation) -> tuple[str, str, str]:
    # The generator turns `{deviceId}` into `{device_id}` and `listDevices` into `list_devices`.
    path = re.sub(r"\{[^}]*\}", "{}", operation.path)
    return operation.method, path, re.sub(r"[\W_]", "", operation.operation_id).lower()

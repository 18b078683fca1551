"""The tools on which the bytes of the generated client depend, and the check of their versions."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# pyproject.toml's extra `codegen` pins the same versions; a test compares them.
GENERATOR_VERSION = "0.29.1"
GRIFFE_VERSION = "2.4.1"
RUFF_VERSION = "0.17.5"
_NEEDED = {
    "openapi-python-client": GENERATOR_VERSION,
    "ruff": RUFF_VERSION,
    "griffelib": GRIFFE_VERSION,
    "openapi-spec-validator": None,
}


class CodegenError(Exception):
    """A reason to stop; its text is the one line that the user sees."""


def assert_tools() -> None:
    """Check that the pinned tools are installed for this Python.

    Raises:
        CodegenError: One of them is missing or of another version; the text names the command that installs them.
    """
    wrong = [
        f"{name} {needed or ''}".strip() + f" (found {found or 'none'})"
        for name, needed in _NEEDED.items()
        if (found := _installed(name)) is None or needed not in {None, found}
    ]
    if not wrong:
        real = _ruff_version()
        if real != RUFF_VERSION:
            wrong = [f"ruff {RUFF_VERSION} (found {real})"]
    if wrong:
        raise CodegenError(f"needs {', '.join(wrong)}; run: {sys.executable} -m pip install '.[codegen]'")


def ruff_binary() -> Path:
    """Return the path of the ruff that belongs to this Python, whatever else is on PATH.

    Raises:
        CodegenError: The package is there, but not its program.
    """
    try:
        # Imported by name: this module also runs where ruff is not installed, and ruff has no types.
        return Path(import_module("ruff").find_ruff_bin())
    except FileNotFoundError as error:
        raise CodegenError(
            f"the program of ruff {RUFF_VERSION} is missing; run: {sys.executable} -m pip install '.[codegen]'"
        ) from error


def tool_environment() -> dict[str, str]:
    """Return the generator's environment: the checked ruff first on PATH, and no setting that changes the output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RUFF_")}
    environment["PATH"] = os.pathsep.join([str(ruff_binary().parent), os.environ.get("PATH", os.defpath)])
    environment |= {
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        # Without colours and boxes, because the generator's messages are shown in one line.
        "NO_COLOR": "1",
        "TYPER_STANDARD_TRACEBACK": "1",
    }
    return environment


def one_line(text: str, limit: int = 300) -> str:
    """Return the beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[:limit]} …"


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _ruff_version() -> str:
    told = subprocess.run(  # noqa: S603  # the path is the package's own
        [ruff_binary(), "--version"], capture_output=True, text=True, check=False
    )
    return told.stdout.removeprefix("ruff").split("(")[0].strip()


if __name__ == "__main__":
    # codegen.sh runs this with the Python of each virtual environment beside it, to find one that has the tools.
    try:
        assert_tools()
    except CodegenError as error:
        sys.exit(str(error))

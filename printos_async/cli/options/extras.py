"""What an extra brings, asked for only when it is needed."""

from __future__ import annotations

from importlib.util import find_spec

from printos_async.cli.terminal.output import CommandError


def require_sandbox() -> None:
    """Check that the sandbox's libraries are installed.

    Raises:
        CommandError: They are not.
    """
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise CommandError(
            f"the sandbox needs {' and '.join(missing)}: pip install 'printos-async[cli,sandbox]'"
        )

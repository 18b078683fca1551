"""The ``printos`` command.

Needs the extra ``cli``: ``pip install 'printos-async[cli]'``.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 1 something failed, 2 usage or configuration, 130 Ctrl-C.

    Args:
        args: The arguments, by default those of the process.
    """
    missing = [name for name in ("typer", "rich") if find_spec(name) is None]
    if missing:
        print(  # noqa: T201
            f"printos: the command line needs {' and '.join(missing)}: pip install 'printos-async[cli]'",
            file=sys.stderr,
        )
        return 2
    try:
        from .app import run  # noqa: PLC0415  # only now: it imports what may be missing

        return run(args)
    except KeyboardInterrupt:  # during the imports; later ``run`` handles it
        return 130

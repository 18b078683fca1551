"""Runs a part of the generation and kills its own process, as SIGKILL from outside would, at the Nth step.

A step is anything that Python reports to an audit hook before it happens: a folder made or removed, a rename, a
file deleted, a process started. The code under test knows nothing of it.

Usage: ``kill_at.py swap|swap-by-renames|recover|all N EVENT_PREFIXES [FOLDER]``, N = 0 for never.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from spec import codegen, codegen_swap


def main() -> None:
    part, at, prefixes = sys.argv[1], int(sys.argv[2]), tuple(sys.argv[3].split(","))
    steps = 0

    def count(event: str, arguments: object) -> None:
        nonlocal steps
        if event.startswith(prefixes):
            steps += 1
            if steps == at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    if part == "all":
        sys.exit(codegen.main([]))
    folder = Path(sys.argv[4])
    if part == "recover":
        with codegen_swap.locked(folder):
            codegen_swap.recover(folder)
        return
    if part == "swap-by-renames":
        codegen_swap.exchange = lambda first, second: False
    with codegen_swap.locked(folder), codegen_swap.staging_folder(folder) as staging:
        make_package(staging, "new")
        codegen_swap.replace(staging, folder / codegen_swap.PACKAGE)


def make_package(folder: Path, content: str) -> None:
    package = folder / "printos_device_api"
    (package / "models").mkdir(parents=True)
    for name in ("__init__.py", "models/__init__.py"):
        (package / name).write_text(f"CONTENT = {content!r}\n")


if __name__ == "__main__":
    main()

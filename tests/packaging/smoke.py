"""Looks at an installed wheel: ``python -I smoke.py core``, ``sql`` or ``full``. Needs nothing but the standard library.

The session ``package`` runs it in clean environments, where there is no pytest.
"""

from __future__ import annotations

import asyncio
import importlib
import re
import subprocess
import sys
import sysconfig
import tempfile
from importlib.metadata import distribution, distributions, version
from importlib.resources import files
from pathlib import Path

CORE = {"attrs", "httptools", "httpx", "python-dateutil"}
# What a fresh virtual environment holds.
BARE = {"pip", "setuptools", "wheel"}


def main(kind: str) -> None:
    """Return if all is well, or end with what is wrong."""
    check_imports()
    if kind == "core":
        check_dependencies()
        check_extras_are_asked_for()
    elif kind == "sql":
        asyncio.run(check_outbox())
    else:
        importlib.import_module("printos_async.sandbox")
        printed = run_printos("--version")
        expect(version("printos-async") in printed.stdout, f"printos --version printed {printed.stdout!r}")
        expect(printed.returncode == 0, f"printos --version gave {printed.returncode}")
        listed = run_printos("--help").stdout
        expect(all(word in listed for word in ("demo", "devices", "push", "sandbox")), listed)


def check_imports() -> None:
    """Both packages come from the environment, with their types."""
    for name in ("printos_async", "printos_device_api"):
        package = importlib.import_module(name)
        expect(
            Path(sysconfig.get_path("purelib")) in Path(package.__file__ or "").parents,
            f"{name} is from elsewhere",
        )
        expect(files(package).joinpath("py.typed").is_file(), f"{name} has no py.typed")
    importlib.import_module("printos_async").PrintOSClient(auth=None)


def check_dependencies() -> None:
    """The four of the core, what these need, and nothing else."""
    declared = requirements("printos-async")
    expect(declared == CORE, f"the core declares {sorted(declared)}")
    allowed = {"printos-async"} | BARE
    todo = set(CORE)
    while todo:
        name = todo.pop()
        allowed.add(name)
        todo |= requirements(name) - allowed
    installed = {normalized(found.name) for found in distributions()}
    expect(installed >= CORE, f"missing: {sorted(CORE - installed)}")
    expect(installed <= allowed, f"brought along: {sorted(installed - allowed)}")


def check_extras_are_asked_for() -> None:
    """Without its extra the command says what to install, in one line."""
    printed = run_printos("--version")
    expect(
        "printos-async[cli" in printed.stderr + printed.stdout, f"printos without [cli]: {printed.stderr!r}"
    )
    expect("Traceback" not in printed.stderr, printed.stderr)


async def check_outbox() -> None:
    """An outbox in a file keeps a status, with what this extra alone installs."""
    outboxes = importlib.import_module("printos_async.outbox")
    with tempfile.TemporaryDirectory() as folder:
        outbox = outboxes.SqlOutbox(f"sqlite+aiosqlite:///{folder}/spool.db")
        await outbox.open("account-1")
        try:
            await outbox.put([outboxes.Draft("dev-1", b"{}")])
            stats = await outbox.stats()
        finally:
            await outbox.aclose()
    expect(stats.waiting == 1, f"the outbox holds {stats}")


def requirements(name: str) -> set[str]:
    """Return the names that an installed distribution requires without extras."""
    try:
        lines = distribution(name).requires or []
    except ModuleNotFoundError:  # required on another platform only
        return set()
    return {
        normalized(re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0])
        for line in lines
        if "extra ==" not in line
    }


def normalized(name: str) -> str:
    """Return a distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def run_printos(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed script."""
    script = Path(sysconfig.get_path("scripts")) / "printos"
    return subprocess.run([script, *arguments], capture_output=True, text=True, timeout=60, check=False)


def expect(holds: object, otherwise: str) -> None:
    """End with an explanation unless it holds."""
    if not holds:
        sys.exit(f"smoke: {otherwise}")


if __name__ == "__main__":
    main(sys.argv[1])

"""Regenerates from each next version in a copy of the repository, and runs what has to pass there.

``nox -s drill`` runs ``python -m tests.drill.drill``: additive, operations and breaking. ``suite`` runs every test with
the client of the additive version, and takes as long as all other tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
SPECIFICATION = "spec/hp-printos-device-api-openapi.yml"
# What tools leave behind.
LEFT_OUT = (".git", ".nox", ".venv*", "__pycache__", ".*cache", ".hypothesis", "*.egg-info")
MYPY_CACHE = ".mypy_cache"
TYPED = (
    "generated/printos_device_api",
    "printos_async",
    "spec",
    "tests",
    "benchmarks",
    "examples",
    "noxfile.py",
)
# Quick tests of everything that reads fields from the models, and those of the contract and the findings.
TESTED = (
    *("tests/drill", "tests/drill/check_additive.py", "tests/contract", "tests/api/test_next_models.py"),
    *("tests/api/test_errors.py", "tests/api/test_responses.py", "tests/api/test_validation.py"),
    *("tests/cli/test_records.py", "tests/cli/test_failures.py", "tests/delivery/test_bulk.py"),
    *("tests/sandbox/test_operations.py", "tests/sandbox/test_observation.py"),
)
PUSH = """
import asyncio
from printos_async import DeviceStatusUpdate, HmacAuth, PrintOSClient
from printos_async.sandbox import Sandbox

async def main():
    async with Sandbox(hmac_keys={"key": "secret"}) as sandbox:
        sandbox.add_device("dev-1")
        async with PrintOSClient(sandbox.url, auth=HmacAuth("key", "secret")) as client:
            report = await client.push_statuses({"dev-1": DeviceStatusUpdate(status="DS_ON")})
            report.raise_for_failures()
            assert [device.id for device in await client.list_devices()] == ["dev-1"]

asyncio.run(main())
"""


class DrillError(Exception):
    """A command has ended with another exit code than it should."""


class Copy:
    """A copy of the repository with the client of a next version.

    Attributes:
        root: The folder.
        output: What the commands printed.
    """

    def __init__(self, folder: Path, version: str) -> None:
        self.root = folder
        self.output = ""
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT), dirs_exist_ok=True)
        shutil.copy2(ROOT / "tests" / "drill" / f"{version}.yml", folder / SPECIFICATION)

    def codegen(self, *arguments: str, code: int = 0) -> str:
        """Run codegen.sh, which has to end with this exit code; return what it prints."""
        return self._run(str(self.root / "codegen.sh"), *arguments, code=code)

    def python(self, *arguments: str) -> str:
        """Run Python, which has to succeed."""
        return self._run(sys.executable, *arguments, code=0)

    def _run(self, *command: str, code: int) -> str:
        paths = os.pathsep.join([str(self.root), str(self.root / "generated")])
        done = subprocess.run(
            command,
            cwd=self.root,
            env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.output += done.stdout
        if done.returncode != code:
            self.output += f"drill: {' '.join(command)}: exit code {done.returncode}, not {code}\n"
            raise DrillError
        return done.stdout


def additive(copy: Copy) -> None:
    """Everything passes, and no line of the facade has changed."""
    copy.codegen()
    copy.codegen("--check")
    copy.codegen("--findings")
    if (ROOT / MYPY_CACHE).is_dir():  # with it mypy checks again only what the next version changes
        shutil.copytree(ROOT / MYPY_CACHE, copy.root / MYPY_CACHE)
    copy.python("-m", "mypy", "--num-workers=2", *TYPED, "tests/drill/check_additive.py")
    copy.python("-m", "pytest", "-q", "--numprocesses=2", *TESTED)


def suite(copy: Copy) -> None:
    """Every test passes with the client of the additive version."""
    copy.codegen()
    copy.python("-m", "pytest", "-q", "--numprocesses=auto", "--dist=worksteal")


def operations(copy: Copy) -> None:
    """The facade works as before; the findings say what is missing."""
    copy.codegen()
    copy.codegen("--findings", code=1)
    copy.python("-c", PUSH)


def breaking(copy: Copy) -> None:
    """The findings say what to change, whether or not the facade can be imported."""
    (copy.root / "printos_async" / "_models.py").write_text("raise ImportError\n")
    copy.codegen()
    copy.codegen("--findings", code=1)


DRILLS = {"additive": additive, "operations": operations, "breaking": breaking, "suite": suite}
BY_DEFAULT = ("additive", "operations", "breaking")


def run(version: str) -> bool:
    """Run one drill, print its output, and return whether it passed."""
    with tempfile.TemporaryDirectory(prefix="printos-drill-") as folder:
        copy = Copy(Path(folder).resolve(), "additive" if version == "suite" else version)
        try:
            DRILLS[version](copy)
        except DrillError:
            return False
        finally:
            print(f"drill: {version}\n{copy.output}", flush=True)
    return True


def main(versions: Sequence[str]) -> int:
    """Run these drills, two at a time, and return the exit code."""
    with ThreadPoolExecutor(max_workers=2) as threads:
        passed = list(threads.map(run, versions or BY_DEFAULT))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

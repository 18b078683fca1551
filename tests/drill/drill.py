"""Regenerates from each next version in a copy of the repository, and runs what has to pass there.

``nox -s drill`` runs ``python -m tests.drill.drill [additive] [operations] [breaking]``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SPECIFICATION = "spec/hp-printos-device-api-openapi.yml"
# What one commits, without what tools leave behind.
COPIED = ("codegen.sh", "generated", "printos_async", "pyproject.toml", "spec", "tests")
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


class Copy:
    """A copy of the repository with the client of a next version."""

    def __init__(self, folder: Path, version: str) -> None:
        self.root = folder
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(
                    source, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*cache")
                )
            else:
                shutil.copy2(source, folder)
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
        print(done.stdout, flush=True)
        if done.returncode != code:
            sys.exit(f"drill: {' '.join(command)}: exit code {done.returncode}, not {code}")
        return done.stdout


def additive(copy: Copy) -> None:
    """Everything passes, and no line of the facade has changed."""
    copy.codegen()
    copy.codegen("--check")
    copy.codegen("--findings")
    typed = ("generated/printos_device_api", "printos_async", "tests/drill/check_additive.py")
    copy.python("-m", "mypy", *typed)
    copy.python("-m", "pytest", "-q", "tests/drill/check_additive.py", "tests/contract", "tests/drill")


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


DRILLS = {"additive": additive, "operations": operations, "breaking": breaking}


def main(versions: list[str]) -> None:
    """Run the drills of these versions, all by default."""
    for version in versions or DRILLS:
        print(f"drill: {version}", flush=True)
        with tempfile.TemporaryDirectory(prefix="printos-drill-") as folder:
            DRILLS[version](Copy(Path(folder).resolve(), version))


if __name__ == "__main__":
    main(sys.argv[1:])

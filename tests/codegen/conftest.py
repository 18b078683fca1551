"""A copy of what codegen.sh needs, so that no test touches the repository itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import frozen

ROOT = Path(__file__).resolve().parents[2]
NEXT_FIELD = (
    "            inkLevel:\n",
    "            tonerLevel:\n              type: number\n            inkLevel:\n",
)
IGNORED = shutil.ignore_patterns("__pycache__", ".printos_device_api.*")


@frozen
class Repository:
    """A working copy with a specification and the client that was made from it."""

    root: Path

    @property
    def generated(self) -> Path:
        return self.root / "generated"

    @property
    def package(self) -> Path:
        return self.generated / "printos_device_api"

    @property
    def specification(self) -> Path:
        return self.root / "spec" / "hp-printos-device-api-openapi.yml"

    def change(self, old: str, new: str) -> None:
        """Edit the specification; the text must be there."""
        text = self.specification.read_text("utf-8")
        assert old in text
        self.specification.write_text(text.replace(old, new, 1), "utf-8")

    def run(
        self, *arguments: str | Path, cwd: Path | None = None, **environment: str | None
    ) -> subprocess.CompletedProcess[str]:
        """Run codegen.sh to its end; None takes a variable away."""
        return subprocess.run(
            [self.root / "codegen.sh", *arguments],
            cwd=cwd or self.root,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start codegen.sh; it execs Python, so the process is the one that generates."""
        return subprocess.Popen(
            [self.root / "codegen.sh", *arguments],
            cwd=self.root,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def environment(self, **changes: str | None) -> dict[str, str]:
        wanted = {**os.environ, "PYTHON": sys.executable, **changes}
        return {name: value for name, value in wanted.items() if value is not None}


@pytest.fixture
def committed(tmp_path: Path) -> Repository:
    """Return a copy of this repository's own specification and client."""
    return _copy(ROOT, tmp_path / "the committed repository")


@pytest.fixture(scope="session")
def _frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("frozen") / "repository"
    root.mkdir()
    shutil.copy2(ROOT / "codegen.sh", root)
    shutil.copytree(ROOT / "spec", root / "spec", ignore=IGNORED)
    repository = Repository(root)
    # The tests edit its text, and none of them may depend on what HP's document says today.
    repository.specification.write_bytes((Path(__file__).parent / "frozen.yml").read_bytes())
    repository.generated.mkdir()
    done = repository.run()
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def repository(tmp_path: Path, _frozen: Path) -> Repository:
    """Return a copy with the frozen specification of these tests and its client."""
    return _copy(_frozen, tmp_path / "a repository")


def _copy(source: Path, root: Path) -> Repository:
    root.mkdir()
    shutil.copy2(source / "codegen.sh", root)
    for name in ("spec", "generated"):
        shutil.copytree(source / name, root / name, ignore=IGNORED)
    return Repository(root)


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, hidden ones and caches included, with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }

"""The check of the public interface, on throwaway repositories."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.packaging.public_interface import breaks, main

ROOT = Path(__file__).resolve().parents[2]
CHANGELOG = "# Changelog\n\n## [Unreleased]\n\n### Changed\n\n{}\n\n## [1.0.0]\n\n### Changed\n\n- `Client.old`, `send`\n"
CLIENT = """
from attrs import field, frozen

class Client:
    def send(self, path: str, *, timeout_s: float = 1.0) -> None: ...
    def list(self) -> None: ...

@frozen(kw_only=True)
class Report:
    sent: int
    text: str = field(repr=False, default="")
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    package = tmp_path / "printos_async"
    (package / "cli").mkdir(parents=True)
    (package / "cli" / "__init__.py").write_text("def main() -> None: ...\n")
    (package / "__init__.py").write_text(
        'from ._client import Client, Report\n\n__all__ = ["Client", "Report"]\n'
    )
    (package / "_client.py").write_text(CLIENT)
    (tmp_path / "generated" / "printos_device_api").mkdir(parents=True)
    (tmp_path / "generated" / "printos_device_api" / "__init__.py").touch()
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG.format("- nothing"))
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@test.invalid", "commit", "--quiet", "-m", "first")
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True)


def change(repository: Path, old: str, new: str) -> None:
    path = repository / "printos_async" / "_client.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_without_a_tag_there_is_nothing_to_compare_with(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    change(repository, "def list", "def _list")
    assert main(repository) == 0
    assert main(tmp_path_factory.mktemp("no repository")) == 0
    assert capsys.readouterr().out.count("no release to compare with") == 2


BREAKS = {
    "removed method": ("def list", "def _list", "Client.list", "`Client.list` is gone"),
    "removed parameter": (
        ", *, timeout_s: float = 1.0",
        "",
        "Client.send(timeout_s)",
        "`Client.send` has no `timeout_s`",
    ),
    "new default": ("= 1.0", "= 2.0", "Client.send(timeout_s)", "`timeout_s` of `Client.send` is 2"),
    "required field": ("sent: int", "sent: int\n    late: int", "Report.__init__(late)", "`Report.late`"),
}


@pytest.mark.parametrize("kind", BREAKS)
def test_a_break_has_to_stand_in_the_changelog(
    repository: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, shown, line = BREAKS[kind]
    git(repository, "tag", "v1.0.0")
    git(repository, "tag", "nightly")  # which is no release
    assert main(repository) == 0
    change(repository, old, new)
    assert main(repository) == 1
    printed = capsys.readouterr().out
    assert f"! {shown}: " in printed
    assert "since v1.0.0: 1 breaking, 1 of them not in the changelog" in printed
    # Neither under "Added" nor in the section of the release, which names other things that were changed then.
    (repository / "CHANGELOG.md").write_text(CHANGELOG.format(f"### Added\n\n- {line}"))
    assert main(repository) == 1
    (repository / "CHANGELOG.md").write_text(CHANGELOG.format(f"- {line}"))
    assert main(repository) == 0
    assert "1 breaking, 0 of them not in the changelog" in capsys.readouterr().out


def test_what_is_added_and_what_is_not_public_breaks_nothing(repository: Path) -> None:
    git(repository, "tag", "v1.0.0")
    change(repository, "def list(self)", "def list(self, *, page: int = 1)")
    (repository / "printos_async" / "cli" / "__init__.py").write_text("")
    assert main(repository) == 0


def test_the_real_package_is_read_with_its_models_and_values(tmp_path: Path) -> None:
    for folder in ("printos_async", "generated"):
        for path in (ROOT / folder).rglob("*.py"):
            copied = tmp_path / path.relative_to(ROOT)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(path.read_bytes())
    for changed, old, new in (
        ("generated/printos_device_api/models/device_status_update.py", "    status: str", "    state: str"),
        ("printos_async/_client.py", "    async def list_devices", "    async def _list_devices"),
        ("printos_async/outbox/__init__.py", "MemoryOutbox", "_MemoryOutbox"),
    ):
        text = (tmp_path / changed).read_text("utf-8")
        assert old in text
        (tmp_path / changed).write_text(text.replace(old, new), "utf-8")
    names = {one.name for one in breaks(ROOT, tmp_path)}
    assert names == {
        "DeviceStatusUpdate.__init__",
        "DeviceStatusUpdate.status",
        "MemoryOutbox",
        "PrintOSClient.list_devices",
    }

"""``.ci/run`` on READMEs of its own: what it runs, what it says last, how it ends."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

CI = Path(__file__).resolve().parents[2] / ".ci" / "run"
PASSED = "===== 3 passed, 1 skipped in 62.10s (0:01:02) ====="
# What nox prints, a session that runs pytest before the tests included.
OTHER = "echo 'nox > Running session conformance'; echo '===== 9 passed in 1.00s ====='"
TESTS = "echo 'nox > Running session tests'; echo '{closing}'; echo 'nox > Session tests ended.'"


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*commands: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / ".ci").mkdir(exist_ok=True)
        script = shutil.copy(CI, tmp_path / ".ci" / "run")
        blocks = "".join(f"Text.\n\n```sh\n{command}\n```\n\n" for command in commands)
        (tmp_path / "README.md").write_text(f"# A title\n\n{blocks}```python\nprint()\n```\n", "utf-8")
        return subprocess.run(
            [script],
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
            check=False,
        )

    return run


def test_the_last_line_is_the_closing_line_of_the_tests(
    run: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ended = run("pwd; echo first", f"{OTHER}; {TESTS.format(closing=PASSED)}")
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.splitlines()[-1] == PASSED
    assert "first" in ended.stdout


def test_colours_do_not_hide_the_closing_line(
    run: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ended = run("true", TESTS.replace("echo '{closing}'", rf"printf '\033[32m{PASSED}\033[0m\n'"))
    assert (ended.returncode, ended.stdout.splitlines()[-1]) == (0, PASSED)


@pytest.mark.parametrize(
    "commands",
    [("exit 3", TESTS.format(closing=PASSED)), ("true", TESTS.format(closing=PASSED) + "; exit 1")],
    ids=["first", "second"],
)
def test_a_failure_of_either_command_is_a_failure(
    run: Callable[..., subprocess.CompletedProcess[str]], commands: tuple[str, str]
) -> None:
    ended = run(*commands)
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[-1] == PASSED


def test_tests_that_never_closed_are_a_failure_whatever_else_passed(
    run: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ended = run("true", f"{OTHER}; echo 'nox > Running session tests'; echo 'nox > failed'")
    assert ended.returncode == 1
    assert "did not run" in ended.stdout.splitlines()[-1]


@pytest.mark.parametrize("number", [1, 3])
def test_a_readme_without_exactly_two_commands_is_refused(
    run: Callable[..., subprocess.CompletedProcess[str]], number: int
) -> None:
    ended = run(*["echo must not run"] * number)
    assert ended.returncode == 2
    assert "two commands" in ended.stdout
    assert "must not run" not in ended.stdout

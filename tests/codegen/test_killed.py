"""A run that is killed leaves the old client or the new one, whole; the next run clears up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.crash.children import long_only

from .conftest import NEXT_FIELD, snapshot

if TYPE_CHECKING:
    from .conftest import Repository

pytestmark = long_only
LONG = bool(os.environ.get("PRINTOS_LONG_TESTS"))
DRIVER = Path(__file__).with_name("kill_at.py")
CONTENTS = ("__init__.py", "models/__init__.py")


@pytest.mark.parametrize("part", ["swap", "swap-by-renames"])
def test_a_kill_at_any_step_of_the_swap_leaves_a_whole_client(
    repository: Repository, tmp_path: Path, part: str
) -> None:
    seen_between_renames = seen = False
    outcomes = []
    for at in range(1, 200):
        folder = tmp_path / f"{at}"
        for name in CONTENTS:
            path = folder / "printos_device_api" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("CONTENT = 'old'\n")
        killed = drive(repository, part, at, "open,os.,shutil.,tempfile.,ctypes.dl,fcntl.", folder)
        left = snapshot(folder / "printos_device_api")
        if part == "swap":
            # One step: there is no moment without a client, nor with half of one.
            assert generation(left) in {"old", "new"}
        seen_between_renames = seen_between_renames or not left
        assert drive(repository, "recover", 0, "none", folder) == 0
        recovered = snapshot(folder)
        assert recovered.keys() == {f"printos_device_api/{name}" for name in CONTENTS}
        outcomes.append(generation(snapshot(folder / "printos_device_api")))
        if killed == 0:
            break
        assert killed == -signal.SIGKILL
        seen = True
    else:
        pytest.fail("the swap never came to its end")
    # First the old one, from some step on the new one, and never back.
    assert seen
    assert outcomes == sorted(outcomes, reverse=True)
    assert set(outcomes) == {"old", "new"}
    assert seen_between_renames == (part == "swap-by-renames")


@pytest.mark.parametrize("at", [1, 2, 3] if LONG else [2])
def test_a_kill_of_a_whole_run_is_healed_by_the_next(repository: Repository, at: int) -> None:
    """Before the generator, before the check of its modules, and in between."""
    before = snapshot(repository.package)
    repository.change(*NEXT_FIELD)
    assert drive(repository, "all", at, "subprocess.Popen") == -signal.SIGKILL
    assert snapshot(repository.package) == before
    assert_next_run_heals(repository)


@pytest.mark.parametrize(("event", "generation"), [("ctypes.dlsym", "old"), ("shutil.rmtree", "new")])
def test_a_kill_around_the_swap_of_a_whole_run_is_healed_by_the_next(
    repository: Repository, event: str, generation: str
) -> None:
    before = snapshot(repository.package)
    repository.change(*NEXT_FIELD)
    assert drive(repository, "all", 1, event) == -signal.SIGKILL
    assert (snapshot(repository.package) == before) == (generation == "old")
    assert_next_run_heals(repository)


def test_a_generator_that_outlives_its_killed_parent_does_not_disturb_the_next_run(
    repository: Repository,
) -> None:
    before = snapshot(repository.package)
    repository.change(*NEXT_FIELD)
    process = repository.start()
    try:
        while not list(repository.generated.glob(".printos_device_api.*/printos_device_api/models")):
            assert process.poll() is None, "it ended before the generator wrote anything"
    finally:
        process.kill()
    process.communicate()
    assert snapshot(repository.package) == before
    assert_next_run_heals(repository)


def assert_next_run_heals(repository: Repository) -> None:
    done = repository.run()
    assert done.returncode == 0, done.stderr
    assert [path.name for path in repository.generated.iterdir()] == ["printos_device_api"]
    assert repository.run("--check").returncode == 0


def drive(repository: Repository, part: str, at: int, events: str, *arguments: Path) -> int:
    return subprocess.run(
        [sys.executable, "-P", "-B", DRIVER, part, str(at), events, *arguments],
        env=repository.environment(PYTHONPATH=str(repository.root)),
        cwd=repository.root,
        capture_output=True,
        check=False,
        timeout=60,
    ).returncode


def generation(package: dict[str, bytes]) -> str:
    """Return which package this is, ``"mixed"`` for anything but a whole one."""
    for name in ("old", "new"):
        if package == dict.fromkeys(CONTENTS, f"CONTENT = '{name}'\n".encode()):
            return name
    return "mixed"

"""codegen.sh, run as its users run it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.crash.children import long_only

from .conftest import NEXT_FIELD, ROOT, snapshot

if TYPE_CHECKING:
    from .conftest import Repository

pytestmark = long_only


def test_the_committed_client_agrees_with_the_specification(committed: Repository) -> None:
    before = snapshot(committed.root)
    done = committed.run("--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert snapshot(committed.root) == before


def test_generating_again_changes_nothing_and_says_so(repository: Repository) -> None:
    before = snapshot(repository.generated)
    done = repository.run()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "generated/printos_device_api: as before",
        "specification: no change",
        "generated package: nothing breaks for its callers",
        # The copy has no facade, and with it no sandbox that serves the three operations.
        "contract: 3 findings; see ./codegen.sh --findings",
    ]
    assert snapshot(repository.generated) == before


def test_a_client_made_from_nothing_is_the_committed_one(repository: Repository, tmp_path: Path) -> None:
    committed = snapshot(repository.generated)
    repository.generated.rename(tmp_path / "away")
    # Neither a formatter's configuration nor an ignore file of the surroundings may bend the bytes.
    (repository.root / ".gitignore").write_text("*\n")
    (repository.root / "ruff.toml").write_text("line-length = 40\n")
    done = repository.run(cwd=tmp_path, RUFF_LINE_LENGTH="40")
    assert (done.returncode, done.stderr) == (0, "")
    assert snapshot(repository.generated) == committed


def test_the_lock_file_says_what_the_client_was_made_from(repository: Repository) -> None:
    lock = json.loads((repository.package / "codegen.lock").read_text())
    assert lock == {
        "specification": {
            "file": repository.specification.name,
            "sha256": hashlib.sha256(repository.specification.read_bytes()).hexdigest(),
        },
        "openapi-python-client": "0.29.1",
        "ruff": "0.17.5",
    }


def test_check_names_changed_missing_and_extra_files_and_leaves_them(repository: Repository) -> None:
    (repository.package / "client.py").write_text("# edited by hand\n")
    (repository.package / "py.typed").unlink()
    (repository.package / "models" / "extra.py").write_text("")
    (repository.package / "codegen.lock").write_text("{}\n")
    before = snapshot(repository.root)
    done = repository.run("--check")
    assert done.returncode == 1
    *files, advice = done.stdout.splitlines()
    assert files == [
        "changed  generated/printos_device_api/client.py",
        "changed  generated/printos_device_api/codegen.lock",
        "extra    generated/printos_device_api/models/extra.py",
        "missing  generated/printos_device_api/py.typed",
    ]
    assert "./codegen.sh" in advice
    assert snapshot(repository.root) == before


def test_a_changed_specification_drifts_until_it_is_generated(repository: Repository) -> None:
    repository.change(*NEXT_FIELD)
    drifted = repository.run("--check")
    assert drifted.returncode == 1
    assert "changed  generated/printos_device_api/models/device_status_update_metrics.py" in drifted.stdout
    assert repository.run().returncode == 0
    assert repository.run("--check").returncode == 0


def test_a_comment_in_the_specification_drifts_by_the_lock_file_alone(repository: Repository) -> None:
    repository.change("openapi: 3.1.0\n", "openapi: 3.1.0\n# a comment\n")
    drifted = repository.run("--check")
    assert drifted.returncode == 1
    assert drifted.stdout.splitlines()[:-1] == ["changed  generated/printos_device_api/codegen.lock"]


def test_an_edited_client_is_made_anew(repository: Repository) -> None:
    committed = snapshot(repository.generated)
    (repository.package / "client.py").write_text("<<<<<<< a merge's mark\n")
    (repository.package / "models" / "extra.py").write_text("")
    done = repository.run()
    assert done.returncode == 0
    assert snapshot(repository.generated) == committed


def test_another_specification_is_generated_elsewhere(repository: Repository, tmp_path: Path) -> None:
    before = snapshot(repository.root)
    (tmp_path / "next.yml").write_bytes(repository.specification.read_bytes())
    done = repository.run("next.yml", "--output", "tried/out", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert snapshot(repository.root) == before
    made = snapshot(tmp_path / "tried" / "out" / "printos_device_api")
    assert {name: content for name, content in made.items() if name != "codegen.lock"} == {
        name: content for name, content in snapshot(repository.package).items() if name != "codegen.lock"
    }
    again = repository.run("next.yml", "--output", "tried/out", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert snapshot(tmp_path / "tried" / "out" / "printos_device_api") == made


@pytest.mark.parametrize("content", ["a file", "a hand-made package", "the repository's own client"])
def test_a_folder_with_somebodys_files_is_refused(
    repository: Repository, tmp_path: Path, content: str
) -> None:
    output = tmp_path / "out"
    (output / "printos_device_api").mkdir(parents=True)
    if content == "a file":
        (output / "thesis.txt").write_text("years of work")
    elif content == "a hand-made package":
        (output / "printos_device_api" / "__init__.py").write_text("")
    else:
        output = repository.generated
    before = snapshot(output)
    done = repository.run(repository.specification, "--output", output)
    assert done.returncode == 2
    assert one_line(done.stderr).startswith("codegen: --output")
    assert snapshot(output) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--unknown"],
        ["next.yml"],
        ["--output", "out"],
        ["--check", "next.yml"],
        ["--check", "--output", "out"],
        ["--check", "--findings"],
        ["next.yml", "--findings", "--output", "out"],
        ["a", "b"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_one_line(repository: Repository, arguments: list[str]) -> None:
    before = snapshot(repository.root)
    done = repository.run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--help" in one_line(done.stderr)
    assert snapshot(repository.root) == before


def test_it_runs_through_a_link_and_from_any_directory(repository: Repository, tmp_path: Path) -> None:
    link = tmp_path / "link.sh"
    link.symlink_to(Path("a repository") / "codegen.sh")
    done = subprocess.run(
        [link, "--check"], cwd="/", env=repository.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_python_without_the_tools_names_the_command_that_installs_them(
    repository: Repository, tmp_path: Path
) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    done = repository.run("--check", PYTHON=str(tmp_path / "bare" / "bin" / "python"))
    assert done.returncode == 2
    assert "pip install '.[codegen]'" in one_line(done.stderr)


def test_tools_of_another_version_are_refused(repository: Repository, tmp_path: Path) -> None:
    found = tmp_path / "path" / "ruff-0.1.0.dist-info"
    found.mkdir(parents=True)
    (found / "METADATA").write_text("Metadata-Version: 2.1\nName: ruff\nVersion: 0.1.0\n")
    done = repository.run("--check", PYTHONPATH=str(found.parent))
    assert done.returncode == 2
    assert "ruff 0.17.5 (found 0.1.0)" in one_line(done.stderr)


def test_a_python_that_is_not_there_is_one_line(repository: Repository) -> None:
    done = repository.run("--check", PYTHON="/nowhere/python")
    assert done.returncode == 2
    assert "/nowhere/python" in one_line(done.stderr)


def test_the_virtual_environment_beside_it_that_has_the_tools_is_used(
    repository: Repository, tmp_path: Path
) -> None:
    venv.create(repository.root / ".venv", with_pip=False)
    good = repository.root / ".venv-tools" / "bin" / "python"
    good.parent.mkdir(parents=True)
    good.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    good.chmod(0o755)
    done = repository.run("--check", PYTHON=None, PATH="/usr/bin:/bin")
    assert done.returncode == 0, done.stderr


def test_another_ruff_on_the_path_is_not_used(repository: Repository, tmp_path: Path) -> None:
    impostor = tmp_path / "bin" / "ruff"
    impostor.parent.mkdir()
    impostor.write_text(f"#!/bin/sh\ntouch '{tmp_path}/was-used'\n")
    impostor.chmod(0o755)
    done = repository.run("--check", PATH=f"{impostor.parent}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stdout
    assert not (tmp_path / "was-used").exists()


def test_a_mistyped_key_of_the_generators_configuration_is_refused(repository: Repository) -> None:
    configuration = repository.root / "spec" / "openapi-python-client.yml"
    configuration.write_text(configuration.read_text().replace("post_hooks", "posthooks"))
    done = repository.run("--check")
    assert done.returncode == 2
    assert "posthooks" in one_line(done.stderr)


def test_runs_at_the_same_time_wait_for_each_other(repository: Repository) -> None:
    repository.change(*NEXT_FIELD)
    folder = os.open(repository.generated, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        waiting = [repository.start(), repository.start()]
        for process in waiting:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("codegen: waiting for another run")
    finally:
        os.close(folder)
    outputs = [process.communicate(timeout=60) for process in waiting]
    assert [process.returncode for process in waiting] == [0, 0], outputs
    # One made it, the other found it made.
    assert sorted("specification: no change" in stdout for stdout, _ in outputs) == [False, True]
    assert [path.name for path in repository.generated.iterdir()] == ["printos_device_api"]
    assert repository.run("--check").returncode == 0


def test_the_pins_are_those_that_pyproject_installs() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    tools = (ROOT / "spec" / "codegen_tools.py").read_text()
    asserted = dict(re.findall(r'^(\w+)_VERSION = "(.+)"$', tools, re.MULTILINE))
    assert asserted.keys() == {"GENERATOR", "GRIFFE", "RUFF"}
    extra = pyproject["project"]["optional-dependencies"]["codegen"]
    assert f"openapi-python-client=={asserted['GENERATOR']}" in extra
    assert f"griffelib=={asserted['GRIFFE']}" in extra
    assert f"ruff=={asserted['RUFF']}" in extra


def one_line(stderr: str) -> str:
    assert stderr.endswith("\n")
    assert stderr.count("\n") == 1, stderr
    return stderr

"""What README and documentation show works as shown: every Python block runs, every link leads somewhere."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest

import printos_async
import printos_async.otel
import printos_async.outbox
import printos_async.sandbox
from printos_async import DeviceStatusUpdate, PrintOSClient, _errors
from printos_async.sandbox import Sandbox

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]


def name_of(page: Path) -> str:
    return page.relative_to(DOCS if page.is_relative_to(DOCS) else ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


EXAMPLES = [
    pytest.param(block, id=f"{name_of(page)}-{number}")
    for page in PAGES
    if name_of(page) not in {"getting-started.md", "service.md"}  # files of one folder: tests of their own
    for number, block in enumerate(blocks(page, "python"), start=1)
]

REFERENCE = [
    name
    for page in sorted((DOCS / "reference").glob("*.md"))
    for name in re.findall(r"^::: ([\w.]+)$", page.read_text("utf-8"), re.MULTILINE)
]


@pytest.mark.parametrize(
    "code", [example for example in EXAMPLES if "asyncio.run(" in str(example.values[0])]
)
def test_a_whole_program_of_the_documentation_runs(code: str, tmp_path: Path) -> None:
    ended = run_program(code, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout


@pytest.mark.parametrize(
    "code", [example for example in EXAMPLES if "asyncio.run(" not in str(example.values[0])]
)
async def test_a_snippet_of_the_documentation_runs(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What docs/index.md says of the snippets: `printos` is an open client, `fleet` a dictionary; and what
    # docs/sandbox.md says: `sandbox` is a running one.
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {
        name: getattr(module, name)
        for module in (printos_async, printos_async.sandbox)
        for name in module.__all__
    }
    with mock.patch.dict(os.environ):
        async with Sandbox() as sandbox, PrintOSClient(sandbox.url, auth=None) as printos:
            for device_id in ("dev-1", "dev-2"):
                sandbox.add_device(device_id)
            fleet = {
                "dev-1": DeviceStatusUpdate(status="DS_ON"),
                "dev-2": DeviceStatusUpdate(status="DS_OFF"),
            }
            names |= {"printos": printos, "fleet": fleet, "sandbox": sandbox}
            compiled = compile(code, "snippet", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            outcome = eval(compiled, names)
            if asyncio.iscoroutine(outcome):
                await outcome


def test_the_readme_example_is_twelve_lines_and_pushes_a_status(tmp_path: Path) -> None:
    code = blocks(README, "python")[0]
    assert len([line for line in code.splitlines() if line]) == 12
    ended = run_program(code, tmp_path)
    assert (ended.stdout, ended.stderr) == ("1 {'status': 'DS_PRINTING'}\n", "")


def test_the_two_readme_commands_are_what_ci_runs() -> None:
    commands = "".join(blocks(README, "sh")).splitlines()
    listed = subprocess.run([ROOT / ".ci" / "run", "--list"], capture_output=True, text=True, check=True)
    assert listed.stdout.splitlines() == commands
    assert len(commands) == 2
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_the_readme_commands_ask_for_extras_and_a_script_that_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    first, second = "".join(blocks(README, "sh")).splitlines()
    [extras] = re.findall(r"'\.\[(.*?)\]'", first)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    assert first.endswith("/bin/printos demo")
    assert "printos" in project["scripts"]
    assert second.endswith("/bin/nox")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    links = re.findall(r"\]\((?![a-z]+:)([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text("utf-8"))
    for path, anchor in links:
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        assert target.is_relative_to(ROOT), path
        if anchor:
            assert anchor in headings(target), f"{path}#{anchor}"


def headings(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [README, DOCS / "errors.md"], ids=name_of)
def test_the_error_tree_shown_is_the_error_tree(page: Path) -> None:
    [shown] = [block for block in blocks(page, "text") if block.startswith("PrintOSError")]
    [documented] = re.findall(r"::\n\n(.*?)\n\n", inspect.getdoc(_errors) or "", re.DOTALL)
    assert shown.strip() == inspect.cleandoc(documented)
    classes = {
        name for name, value in vars(_errors).items() if inspect.isclass(value) and name.endswith("Error")
    }
    assert classes == set(re.findall(r"\w+Error\b", shown)) - {"ValueError", "RuntimeError", "TimeoutError"}


def test_every_error_is_explained() -> None:
    text = (DOCS / "errors.md").read_text("utf-8")
    errors = [name for name in printos_async.__all__ if name.endswith("Error")]
    assert [name for name in errors if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    "module",
    [printos_async, printos_async.outbox, printos_async.sandbox, printos_async.otel],
    ids=lambda m: m.__name__,
)
def test_the_reference_has_every_public_name_once(module: ModuleType) -> None:
    shown = [name.rpartition(".") for name in REFERENCE]
    missing = {name for name in module.__all__ if (module.__name__, ".", name) not in shown}
    # What two modules export stands under the shorter name.
    assert {
        name for name in missing if getattr(printos_async, name, None) is not getattr(module, name)
    } == set()
    assert all(hasattr(module, name) for parent, _, name in shown if parent == module.__name__)


def test_the_reference_shows_nothing_twice() -> None:
    assert sorted(set(REFERENCE)) == sorted(REFERENCE)


def test_the_map_of_the_packages_is_complete_and_every_path_on_it_exists() -> None:
    page = (DOCS / "development.md").read_text("utf-8")
    package = ROOT / "printos_async"
    [table] = re.findall(
        r"^\| package \| job \| read first \|\n\|[-|]+\n(.*?)\n\n", page, re.DOTALL | re.MULTILINE
    )
    rows = [[re.findall(r"`([^`]+)`", cell) for cell in row.split("|")[1:4]] for row in table.splitlines()]
    named = {name for names, _, _ in rows for name in names}
    modules = (path for path in package.iterdir() if path.suffix == ".py" or any(path.glob("*.py")))
    there = {path.stem for path in modules if not path.name.startswith("__")}
    assert there <= named
    assert {name for name in named if not (package / name).is_dir()} <= {
        path.stem for path in package.glob("*.py")
    }
    assert [
        path for [folder, *_], _, first in rows for path in first if not (package / folder / path).is_file()
    ] == []


@pytest.mark.parametrize("page", PAGES[2:], ids=name_of)
def test_every_path_of_the_repository_exists(page: Path) -> None:
    folders = "benchmarks|docs|examples|generated|printos_async|spec|tests"
    paths = re.findall(rf"`((?:{folders})/[^`\s]*)`", page.read_text("utf-8"))
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_dependency_and_extra_has_a_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    text = (DOCS / "dependencies.md").read_text("utf-8").lower()
    extras: dict[str, list[str]] = project["optional-dependencies"]
    requirements = project["dependencies"] + [line for lines in extras.values() for line in lines]
    names = {re.split(r"[\[<>=!~; ]", line, maxsplit=1)[0].lower() for line in requirements} - {
        "printos-async"
    }
    assert sorted(name for name in names if name not in text) == []
    assert sorted(extra for extra in extras if f"| `{extra}` |" not in text) == []


def run_program(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

from printos_async.cli import main

if TYPE_CHECKING:
    from .conftest import Cli


async def test_the_version_is_the_packages(cli: Cli) -> None:
    ended = await cli.run("--version")
    assert (ended.code, ended.out) == (0, f"printos-async {version('printos-async')}\n")


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("check",),
        ("push",),
        ("demo",),
        ("sandbox",),
        ("worker",),
        ("devices",),
        ("devices", "list"),
        ("devices", "provision"),
        ("outbox",),
        ("outbox", "stats"),
        ("outbox", "failed"),
        ("outbox", "requeue"),
        ("outbox", "purge"),
    ],
)
async def test_every_command_explains_itself(cli: Cli, command: tuple[str, ...]) -> None:
    ended = await cli.run(*command, "--help")
    assert (ended.code, ended.err) == (0, "")
    assert "Usage: printos" in ended.out


async def test_no_command_shows_the_help_and_is_a_usage_error(cli: Cli) -> None:
    ended = await cli.run()
    assert (ended.code, ended.err) == (2, "")
    assert "Usage: printos" in ended.out


async def test_an_unknown_command_points_to_the_help(cli: Cli) -> None:
    ended = await cli.run("psuh")
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert "see printos --help" in ended.err


@pytest.mark.parametrize(
    ("missing", "args", "extra"),
    [
        ("typer", ["--version"], "[cli]"),
        ("rich", ["--version"], "[cli]"),
        ("uvicorn", ["demo"], "[cli,sandbox]"),
    ],
)
def test_a_missing_extra_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    missing: str,
    args: list[str],
    extra: str,
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(args) == 2
    error = capsys.readouterr().err
    assert missing in error
    assert f"pip install 'printos-async{extra}'" in error


async def test_a_reader_that_leaves_early_is_no_error_to_talk_about(cli: Cli) -> None:
    process = await cli.start("--help", PYTHONUNBUFFERED="")
    assert process.process.stdout is not None
    process.process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
    assert process.process.stderr is not None
    assert b"Traceback" not in await process.process.stderr.read()
    assert os.name != "posix" or await process.process.wait() in {0, 1}

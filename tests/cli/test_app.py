from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from printos_async.cli import main

if TYPE_CHECKING:
    from printos_async.sandbox import Sandbox

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


async def test_ctrl_c_during_the_imports_ends_without_a_traceback(cli: Cli) -> None:
    cli.file(
        "sitecustomize.py",
        "import signal, sys\n"
        # A shell lets a job in the background ignore it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'printos_async.cli.app':\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n",
    )
    path = os.pathsep.join([str(cli.folder), os.environ.get("PYTHONPATH", "")])
    ended = await (await cli.start("--version", PYTHONPATH=path)).wait()
    assert (ended.code, ended.out, ended.err) == (130, "", "")


async def test_a_reader_that_leaves_early_is_no_error_to_talk_about(cli: Cli) -> None:
    process = await cli.start("--help")
    assert process.process.stdout is not None
    process.process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
    assert process.process.stderr is not None
    assert b"Traceback" not in await process.process.stderr.read()
    assert os.name != "posix" or await process.process.wait() in {0, 1}


async def test_a_closed_standard_output_is_no_error(
    cli: Cli, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", None)  # as Python starts after a shell's >&-
    ended = await cli.run("devices", "list")
    sys.stdout.close()
    assert (ended.code, ended.err) == (0, "")


async def test_messages_without_standard_error_do_not_go_to_standard_output(
    cli: Cli, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    ended = await cli.run("push", cli.file("s.jsonl", "{"), "--json")
    sys.stderr.close()
    assert (ended.code, ended.json["badLines"]) == (1, 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
async def test_a_log_on_a_full_disk_does_not_end_the_command(cli: Cli, sandbox: Sandbox) -> None:
    file = cli.file("s.jsonl", '{\n{"deviceId": "dev-1", "status": "DS_ON"}\n')
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        ended = await (await cli.start("push", file, "--json", stderr=full)).wait()
    finally:
        os.close(full)
    assert (ended.code, ended.json["badLines"], ended.json["sent"]) == (1, 1, 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
async def test_a_result_that_cannot_be_written_is_named(
    cli: Cli, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    stream = os.fdopen(os.dup(full), "w")
    monkeypatch.setattr(sys, "stdout", stream)
    try:
        ended = await cli.run("push", cli.file("s.jsonl", ""))
    finally:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        stream.close()
        os.close(full)
    assert (ended.code, ended.err) == (1, "printos: cannot write the output: No space left on device\n")

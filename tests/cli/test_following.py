from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from printos_async.sandbox import Faults, Sandbox

if TYPE_CHECKING:
    from .conftest import Cli, Running

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and files")
SERVER_DOWN = Faults(server_error=1.0)


def line(device_id: str, pages_total: int = 1) -> bytes:
    record = {"deviceId": device_id, "status": "DS_ON", "metrics": {"pagesTotal": pages_total}}
    return json.dumps(record).encode() + b"\n"


def pages_total(sandbox: Sandbox, device_id: str = "dev-1") -> int | None:
    status = sandbox.devices[device_id].status
    return None if status is None else status["metrics"]["pagesTotal"]


async def has(sandbox: Sandbox, pages: int, device_id: str = "dev-1") -> None:
    await sandbox.wait_for(lambda: pages_total(sandbox, device_id) == pages)


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def wait_until_open(process: Running, path: Path) -> None:
    """Wait until a process has opened the file that has this name now."""
    descriptors = Path(f"/proc/{process.process.pid}/fd")
    deadline_s = time.monotonic() + 20
    while not any(entry.exists() and entry.samefile(path) for entry in descriptors.iterdir()):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def kept(path: Path) -> dict[str, int]:
    records = [json.loads(text) for text in path.read_text().splitlines() if text.strip()]
    assert len({record["deviceId"] for record in records}) == len(records)
    return {record["deviceId"]: record["metrics"]["pagesTotal"] for record in records}


async def test_lines_of_a_pipe_are_pushed_as_they_come_and_its_end_drains(cli: Cli, sandbox: Sandbox) -> None:
    process = await cli.start("push", "--follow", "-", "--json")
    await process.write(line("dev-1", 4))
    await has(sandbox, 4)
    await sandbox.block()
    await process.write(line("dev-1", 5) + line("dev-2", 6))
    await sandbox.wait_for(lambda: sandbox.in_flight == 2)
    assert process.process.stdin is not None
    process.process.stdin.close()
    await sandbox.release()
    ended = await process.wait()
    assert (ended.code, ended.err) == (0, "")
    assert (ended.json["statuses"], ended.json["sent"], ended.json["unsent"]) == (3, 3, 0)
    assert (ended.json["stoppedBy"], ended.json["unconfirmed"]) == (None, 0)
    assert (pages_total(sandbox), pages_total(sandbox, "dev-2")) == (5, 6)


@posix_only
async def test_a_file_is_followed_from_its_beginning_and_as_it_grows(cli: Cli, sandbox: Sandbox) -> None:
    file = cli.file("s.jsonl", line("dev-1", 1))
    process = await cli.start("push", "--follow", file, "--json")
    await has(sandbox, 1)
    half, rest = line("dev-1", 2)[:20], line("dev-1", 2)[20:]
    append(file, line("dev-2", 1) + half)
    await has(sandbox, 1, "dev-2")
    append(file, rest)
    await has(sandbox, 2)
    append(file, half)  # a line that is not finished when the end comes is left alone
    process.send_signal(signal.SIGTERM)
    ended = await process.wait()
    assert ended.code == 143
    assert (ended.json["sent"], ended.json["badLines"], ended.json["lastLine"]) == (3, 0, 3)
    assert (ended.json["stoppedBy"], ended.json["exitCode"]) == ("SIGTERM", 143)


@posix_only
async def test_a_file_that_is_replaced_is_read_to_its_end_and_then_the_new_one(
    cli: Cli, sandbox: Sandbox
) -> None:
    file = cli.file("s.csv", "deviceId,status,pagesTotal\ndev-1,DS_ON,1\n")
    process = await cli.start("push", "--follow", file, "--json")
    await has(sandbox, 1)
    fresh = cli.file("fresh.csv", "pagesTotal,deviceId,status\n2,dev-1,DS_ON\nbad\n")
    append(file, b"dev-2,DS_ON,7")  # without a line end: the end of the file is the line's
    fresh.replace(file)
    await has(sandbox, 7, "dev-2")
    await has(sandbox, 2)
    assert "s.csv, line 3: " in await process.complaint()  # counted from the new file's beginning
    append(file, b"3,dev-1,DS_ON\n")
    await has(sandbox, 3)
    process.send_signal(signal.SIGINT)
    ended = await process.wait()
    assert (ended.code, ended.json["sent"], ended.json["badLines"]) == (130, 4, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
async def test_files_that_are_replaced_while_reading_waits_are_all_read(cli: Cli, sandbox: Sandbox) -> None:
    await sandbox.block()
    file = cli.file("s.jsonl", line("dev-1", 1) + line("dev-2", 1))
    process = await cli.start("push", "--follow", file, "--json", "--max-pending-devices", "1")
    await sandbox.wait_for(lambda: sandbox.in_flight == 1)
    for number in range(2, 6):
        file.rename(cli.folder / f"s.jsonl.{number}")
        cli.file("s.jsonl", line("dev-1", number) + line("dev-2", number))
        await asyncio.to_thread(wait_until_open, process, file)
    await sandbox.release()
    await has(sandbox, 5, "dev-2")
    process.send_signal(signal.SIGTERM)
    ended = await process.wait()
    assert (ended.json["statuses"], ended.json["badLines"]) == (10, 0)
    assert ended.json["sent"] + ended.json["superseded"] == 10


@posix_only
async def test_a_file_that_is_taken_away_is_waited_for(cli: Cli, sandbox: Sandbox) -> None:
    file = cli.file("s.jsonl", line("dev-1", 1))
    process = await cli.start("push", "--follow", file, "--json")
    await has(sandbox, 1)
    old = file.rename(cli.folder / "s.jsonl.1")
    append(old, line("dev-1", 2))  # its writer has not opened the new one yet
    await has(sandbox, 2)
    cli.file("s.jsonl", line("dev-1", 3))
    await has(sandbox, 3)
    process.send_signal(signal.SIGTERM)
    assert (await process.wait()).json["sent"] == 3


@posix_only
async def test_a_file_that_is_cut_is_read_from_its_beginning(cli: Cli, sandbox: Sandbox) -> None:
    file = cli.file("s.jsonl", line("dev-1", 1) * 3)
    process = await cli.start("push", "--follow", file, "--json")
    await has(sandbox, 1)
    file.write_bytes(line("dev-1", 2))
    await has(sandbox, 2)
    process.send_signal(signal.SIGTERM)
    ended = await process.wait()
    assert (ended.json["statuses"], ended.json["lastLine"]) == (4, 1)
    assert ended.json["sent"] + ended.json["superseded"] == 4


@posix_only
async def test_a_file_that_cannot_be_read_on_ends_it_and_what_came_before_is_sent(
    cli: Cli, sandbox: Sandbox
) -> None:
    file = cli.file("s.jsonl", line("dev-1", 1))
    process = await cli.start("push", "--follow", file, "--json")
    await has(sandbox, 1)
    file.unlink()
    file.mkdir()
    ended = await process.wait()
    assert (ended.code, ended.json["sent"]) == (1, 1)
    assert ended.json["problem"] == f"cannot read {file}: Is a directory"
    assert f"reading ended after line 1 of {file}; no line after it was sent\n" in ended.err


@posix_only
async def test_a_named_pipe_is_followed_to_its_end(cli: Cli, sandbox: Sandbox) -> None:
    path = cli.folder / "pipe"
    os.mkfifo(path)
    process = await cli.start("push", "--follow", path, "--format", "jsonl", "--json")
    with await asyncio.to_thread(path.open, "wb", buffering=0) as pipe:
        pipe.write(line("dev-1", 1))
        await has(sandbox, 1)
        pipe.write(line("dev-1", 2).strip())
    ended = await process.wait()
    assert (ended.code, ended.json["sent"]) == (0, 2)
    assert pages_total(sandbox) == 2


@posix_only
async def test_sigterm_drains_what_is_pending(cli: Cli, sandbox: Sandbox) -> None:
    await sandbox.block()
    file = cli.file("s.jsonl", line("dev-1", 1) + line("dev-2", 2) + line("dev-3", 3))
    process = await cli.start("push", "--follow", file, "--json", "--max-in-flight", "1")
    await sandbox.wait_for(lambda: sandbox.in_flight == 1)
    process.send_signal(signal.SIGTERM)
    await sandbox.release()
    ended = await process.wait()
    assert (ended.code, ended.json["sent"], ended.json["unsent"]) == (143, 3, 0)
    assert [pages_total(sandbox, f"dev-{number}") for number in (1, 2, 3)] == [1, 2, 3]
    assert "stopped by SIGTERM after line 3" in ended.err


@posix_only
async def test_draining_is_bounded_and_what_was_not_delivered_is_kept(cli: Cli, sandbox: Sandbox) -> None:
    await sandbox.block()
    failures = cli.folder / "failures.jsonl"
    process = await cli.start(
        "push", "--follow", "-", "--json", "--failures", failures, "--drain-timeout", "0.2"
    )
    await process.write(line("dev-1", 1))
    await sandbox.wait_for(lambda: sandbox.in_flight == 1)
    await process.write(line("dev-1", 2) + line("dev-2", 3) + line("dev-1", 4))
    await sandbox.wait_for(lambda: sandbox.in_flight == 2)  # all lines came with that of dev-2
    process.send_signal(signal.SIGTERM)
    ended = await process.wait_without_closing_input()
    assert ended.code == 143
    counts = (ended.json["sent"], ended.json["superseded"], ended.json["unsent"])
    assert counts == (0, 1, 3)
    assert ended.json["unconfirmed"] == 0
    assert kept(failures) == {"dev-1": 4, "dev-2": 3}
    await sandbox.release()


async def test_draining_at_the_end_of_a_pipe_is_bounded_if_asked_for(cli: Cli, sandbox: Sandbox) -> None:
    await sandbox.block()
    failures = cli.folder / "failures.jsonl"
    process = await cli.start(
        "push", "--follow", "-", "--json", "--failures", failures, "--drain-timeout", "0.1"
    )
    ended = await process.wait(line("dev-1", 1))
    assert (ended.code, ended.json["unsent"], ended.json["stoppedBy"]) == (1, 1, None)
    assert kept(failures) == {"dev-1": 1}
    await sandbox.release()


@posix_only
async def test_reading_waits_while_too_many_devices_wait(cli: Cli, sandbox: Sandbox) -> None:
    await sandbox.block()
    lines = [line(f"dev-{number % 3 + 1}", number) for number in range(5_000)]
    file = cli.file("s.jsonl", b"".join(lines))
    process = await cli.start("push", "--follow", file, "--json", "--max-pending-devices", "2")
    await sandbox.wait_for(lambda: sandbox.in_flight == 2)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    ended = await process.wait()
    assert (ended.json["lastLine"], ended.json["unsent"], ended.json["unconfirmed"]) == (3, 3, 0)
    await sandbox.release()


async def test_an_outage_is_outlasted_and_said(cli: Cli, sandbox: Sandbox) -> None:
    sandbox.set_faults(SERVER_DOWN)
    for number in range(20):
        sandbox.add_device(f"many-{number}")
    process = await cli.start("push", "--follow", "-", "--json", "--max-attempts", "2")
    await process.write(b"".join(line(f"many-{number}", number) for number in range(20)))
    assert "seems down" in await process.complaint()
    sandbox.set_faults(Faults())
    assert "is back" in await process.complaint()
    ended = await process.wait(b"")
    assert (ended.code, ended.json["sent"], ended.json["failed"]) == (0, 20, 0)
    assert {pages_total(sandbox, f"many-{number}") for number in range(20)} == set(range(20))


async def test_a_status_that_is_refused_is_named_at_once_and_kept(cli: Cli, sandbox: Sandbox) -> None:
    failures = cli.folder / "failures.jsonl"
    process = await cli.start("push", "--follow", "-", "--json", "--failures", failures)
    await process.write(line("nobody", 1) + line("dev-1", 2))
    assert "device nobody, PUT /devices/nobody/status: 404 Not Found" in await process.complaint()
    ended = await process.wait(b"")
    assert (ended.code, ended.json["sent"], ended.json["errors"]) == (1, 1, {"NotFoundError": 1})
    assert kept(failures) == {"nobody": 1}


async def test_many_refusals_do_not_flood_standard_error(cli: Cli, sandbox: Sandbox) -> None:
    # One at a time, with a success after each: ten refusals in a row would be of the account, and hold it.
    lines = b""
    for number in range(50):
        sandbox.add_device(f"known-{number}")
        lines += line(f"nobody-{number}") + line(f"known-{number}")
    process = await cli.start("push", "--follow", "-", "--json", "--max-in-flight", "1")
    ended = await process.wait(lines)
    assert (ended.code, ended.json["failed"], len(ended.json["failures"])) == (1, 50, 50)
    assert ended.json["sent"] == 50
    *named, rest, count = ended.err.splitlines()
    assert len(named) == 10
    assert "40 more" in rest
    assert count == (
        "printos: 50 statuses failed (50 NotFoundError); add --failures FILE to save them for another push"
    )


async def test_what_is_not_delivered_by_its_deadline_fails_and_is_kept(cli: Cli, sandbox: Sandbox) -> None:
    sandbox.set_faults(SERVER_DOWN)
    failures = cli.folder / "failures.jsonl"
    process = await cli.start("push", "--follow", "-", "--json", "--deadline", "0.3", "--failures", failures)
    ended = await process.wait(line("dev-1", 1))
    assert (ended.code, ended.json["failed"], ended.json["errors"]) == (1, 1, {"ServerError": 1})
    assert kept(failures) == {"dev-1": 1}


async def push_one_whose_answer_is_lost_and_a_newer_one(process: Running, sandbox: Sandbox) -> None:
    sandbox.set_faults(Faults(late_write_answers=("504",), late_write_by_s=(0.3, 0.3)))
    sandbox.inject("late_write", device_id="dev-1")
    await process.write(line("dev-1", 1))
    await sandbox.wait_for(lambda: sandbox.request_count == 1)
    await process.write(line("dev-1", 2))


async def test_eventually_a_device_has_its_newest_status_whatever_lands_late(
    cli: Cli, sandbox: Sandbox
) -> None:
    process = await cli.start("push", "--follow", "-", "--json", "--ambiguity", "1.5")
    await push_one_whose_answer_is_lost_and_a_newer_one(process, sandbox)
    ended = await process.wait(b"")
    assert (ended.code, ended.json["sent"], ended.json["superseded"]) == (0, 1, 1)
    assert (ended.json["reasserted"], ended.json["unconfirmed"]) == (1, 0)
    assert pages_total(sandbox) == 2


async def test_strictly_no_older_status_comes_after_a_newer_one(cli: Cli, sandbox: Sandbox) -> None:
    process = await cli.start(
        "push", "--follow", "-", "--json", "--consistency", "strict", "--ambiguity", "1"
    )
    await push_one_whose_answer_is_lost_and_a_newer_one(process, sandbox)
    ended = await process.wait(b"")
    assert (ended.code, ended.json["reasserted"]) == (0, 0)
    assert [write.status["metrics"]["pagesTotal"] for write in sandbox.applied] == [1, 2]


async def test_a_device_that_could_not_be_confirmed_is_told_of(cli: Cli, sandbox: Sandbox) -> None:
    process = await cli.start(
        "push", "--follow", "-", "--json", "--ambiguity", "3600", "--drain-timeout", "2"
    )
    await push_one_whose_answer_is_lost_and_a_newer_one(process, sandbox)
    ended = await process.wait(b"")
    assert (ended.code, ended.json["sent"], ended.json["unsent"], ended.json["unconfirmed"]) == (1, 1, 0, 1)
    assert "1 device: an older status may have landed on the newest" in ended.err


async def test_an_unchanged_status_is_left_out_if_asked_for(cli: Cli, sandbox: Sandbox) -> None:
    process = await cli.start("push", "--follow", "-", "--json", "--skip-unchanged")
    await process.write(line("dev-1", 1))
    await sandbox.wait_for(lambda: sandbox.request_count == 1 and not sandbox.in_flight)
    ended = await process.wait(line("dev-1", 1) + line("dev-2", 2))
    assert (ended.code, ended.json["sent"], sandbox.request_count) == (0, 3, 2)


async def test_what_comes_within_the_interval_is_coalesced(cli: Cli, sandbox: Sandbox) -> None:
    process = await cli.start("push", "--follow", "-", "--json", "--min-interval", "0.5")
    await process.write(line("dev-1", 1))
    await sandbox.wait_for(lambda: sandbox.request_count == 1 and not sandbox.in_flight)
    ended = await process.wait(b"".join(line("dev-1", number) for number in range(2, 12)))
    assert (ended.code, ended.json["sent"], ended.json["superseded"]) == (0, 2, 9)
    first, second = sandbox.applied
    assert second.at_s - first.at_s > 0.4
    assert pages_total(sandbox) == 11


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--consistency", "strict"], "--consistency needs --follow"),
        (["--skip-unchanged"], "--skip-unchanged needs --follow"),
        (["--min-interval", "1"], "--min-interval needs --follow"),
        (["--drain-timeout", "1"], "--drain-timeout needs --follow"),
        (["--follow", "--strict"], "leave --strict out"),
        (["--follow", "--dry-run"], "leave --dry-run out"),
        (["--follow", "--drain-timeout", "nan"], "--drain-timeout must be a number"),
        (["--follow", "--ambiguity", "inf"], "--ambiguity must be a number"),
    ],
)
async def test_options_that_contradict_each_other_are_refused(
    cli: Cli, sandbox: Sandbox, options: list[str], complaint: str
) -> None:
    ended = await cli.run("push", cli.file("s.jsonl", line("dev-1")), *options)
    assert (ended.code, ended.out) == (2, "")
    assert complaint in ended.err
    assert sandbox.request_count == 0


@posix_only
async def test_a_missing_file_and_a_folder_are_not_waited_for(cli: Cli, sandbox: Sandbox) -> None:
    (cli.folder / "folder.jsonl").mkdir()
    for name in ("missing.jsonl", "folder.jsonl"):
        ended = await cli.run("push", "--follow", cli.folder / name)
        assert ended.code == 2
        assert ended.err.startswith(f"printos: cannot read {cli.folder / name}: ")


@posix_only
async def test_a_terminal_shows_what_the_pusher_does(cli: Cli, sandbox: Sandbox) -> None:
    controller, terminal = pty.openpty()
    try:
        process = await cli.start("push", "--follow", "-", stderr=terminal, TERM="xterm", COLUMNS="120")
        os.close(terminal)
        ended = await process.wait(line("dev-1", 1))
        seen = os.read(controller, 65536).decode()
    finally:
        os.close(controller)
    assert ended.code == 0
    assert ended.out.startswith("1 sent, 0 replaced by newer ones, 0 failed")
    assert re.search(r"1 sent · [\d,]+/s · 0 of 64 in flight · 0 pending · 0 retries", seen)

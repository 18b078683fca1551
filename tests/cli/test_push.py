from __future__ import annotations

import json
import os
import re
import shlex
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from printos_async.sandbox import Faults, Sandbox

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    from .conftest import Cli, Running


def line(device_id: str, pages_total: int = 1) -> str:
    return (
        json.dumps({"deviceId": device_id, "status": "DS_ON", "metrics": {"pagesTotal": pages_total}}) + "\n"
    )


def limit_file_size(process: Running, limit_bytes: int) -> None:
    """Let a process write no file beyond this size, as on a full disk; it must not write bytecode."""
    resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))


def pages_total(sandbox: Sandbox, device_id: str) -> int | None:
    status = sandbox.devices[device_id].status
    return None if status is None else status["metrics"]["pagesTotal"]


async def test_every_status_of_a_file_is_sent_and_the_newest_wins(cli: Cli, sandbox: Sandbox) -> None:
    file = cli.file(
        "s.jsonl", "\ufeff" + line("dev-1", 1) + "\r\n \n" + line("dev-2", 5) + line("dev-1", 2).strip()
    )
    ended = await cli.run("push", file)
    assert (ended.code, ended.err) == (0, "")
    assert "replaced" in ended.out
    assert (pages_total(sandbox, "dev-1"), pages_total(sandbox, "dev-2")) == (2, 5)


async def test_the_rate_is_capped(cli: Cli, sandbox: Sandbox) -> None:
    file = cli.file("s.jsonl", "".join(f'{{"deviceId": "dev-{n}", "status": "DS_ON"}}\n' for n in range(11)))
    for n in range(11):
        sandbox.add_device(f"dev-{n}")
    ended = await cli.run("push", file, "--json", "--max-rate", "20")
    assert (ended.code, ended.json["sent"]) == (0, 11)
    assert ended.json["elapsedS"] >= 0.45  # ten intervals of 50 ms, less what a late timer is made up for


async def test_csv_is_told_by_the_name_and_json_is_the_only_output(cli: Cli, sandbox: Sandbox) -> None:
    file = cli.file("s.CSV", "deviceId,status,pagesTotal,inkLevel\r\ndev-3,DS_ON,7,0.5\r\n")
    ended = await cli.run("push", file, "--json")
    assert (ended.code, ended.err) == (0, "")
    assert (ended.json["sent"], ended.json["statuses"], ended.json["exitCode"]) == (1, 1, 0)
    assert sandbox.devices["dev-3"].status == {
        "status": "DS_ON",
        "metrics": {"pagesTotal": 7, "inkLevel": 0.5},
    }


async def test_bad_lines_are_named_and_kept_and_do_not_stop_the_others(cli: Cli, sandbox: Sandbox) -> None:
    bad = [b'{"deviceId": "dev-1", "status": NaN}', b"\xff\xfe", b'{"deviceId": "a/b", "status": "x"}']
    good = [line("dev-1").encode().strip(), line("dev-2").encode().strip()]
    file = cli.file("s.jsonl", b"\n".join([bad[0], good[0], b"", bad[1], bad[2], good[1]]))
    rejected = cli.folder / "rejected"
    ended = await cli.run("push", file, "--json", "--bad-lines", rejected)
    assert ended.code == 1
    assert (ended.json["sent"], ended.json["badLines"]) == (2, 3)
    assert [text.split(": ")[1] for text in ended.err.splitlines()] == [
        f"{file}, line 1",
        f"{file}, line 4",
        f"{file}, line 5",
        f"3 lines could not be read; correct {rejected}, and push it",
    ]
    assert rejected.read_bytes() == b"\n".join([*bad, b""])
    assert stat.S_IMODE(rejected.stat().st_mode) == 0o600


async def test_bad_lines_of_a_csv_can_be_mended_and_pushed_again(cli: Cli, sandbox: Sandbox) -> None:
    rejected = cli.folder / "rejected.csv"
    file = cli.file(
        "s.csv", "\ufeffdeviceId,status,pagesTotal\r\ndev-1,DS_ON,x\r\ndev-2,DS_ON,2\r\ndev-3,DS_ON,y\r\n"
    )
    assert (await cli.run("push", file, "--bad-lines", rejected)).code == 1
    assert rejected.read_bytes() == b"deviceId,status,pagesTotal\r\ndev-1,DS_ON,x\r\ndev-3,DS_ON,y\r\n"
    # Another file with columns in another order, and its bad lines behind those of the first.
    file = cli.file("t.csv", "pagesTotal,deviceId,status\nz,dev-2,DS_ON\n")
    assert (await cli.run("push", file, "--bad-lines", rejected)).code == 1

    mended = cli.file("mended.csv", re.sub(r"\b[xyz]\b", "7", rejected.read_text()))
    ended = await cli.run("push", mended, "--json")
    assert (ended.code, ended.json["sent"], ended.err) == (0, 3, "")
    assert [pages_total(sandbox, f"dev-{number}") for number in (1, 2, 3)] == [7, 7, 7]


async def test_each_header_of_a_csv_goes_before_its_bad_lines_once(cli: Cli) -> None:
    rejected = cli.folder / "rejected.csv"
    bad = "deviceId,status,pagesTotal\ndev-1,DS_ON,x\ndev-2,DS_ON,y\npagesTotal,deviceId\nz,dev-3\n"
    file = cli.file(
        "s.csv", bad + "deviceId,status\nstatus,deviceId\ndeviceId,status,pagesTotal\ndev-1,DS_ON,1\n"
    )
    ended = await cli.run("push", file, "--dry-run", "--json", "--bad-lines", rejected)
    assert (ended.code, ended.json["statuses"], ended.json["badLines"]) == (1, 1, 3)
    assert rejected.read_text() == bad


async def test_csv_files_with_byte_order_marks_can_be_concatenated(cli: Cli, sandbox: Sandbox) -> None:
    rejected = cli.folder / "rejected.csv"
    content = "\ufeffdeviceId,status,pagesTotal\ndev-1,DS_ON,7\ndev-2,DS_ON,x\n"
    ended = await cli.run("push", cli.file("s.csv", content * 2), "--json", "--bad-lines", rejected)
    assert (ended.code, ended.json["statuses"], ended.json["badLines"]) == (1, 2, 2)
    assert (ended.json["failed"], pages_total(sandbox, "dev-1")) == (0, 7)
    assert rejected.read_text() == "deviceId,status,pagesTotal\ndev-2,DS_ON,x\ndev-2,DS_ON,x\n"


async def test_a_csv_without_bad_lines_leaves_no_header_behind(cli: Cli, sandbox: Sandbox) -> None:
    rejected = cli.folder / "rejected.csv"
    file = cli.file("s.csv", "deviceId,status,pagesTotal\ndev-1,DS_ON,1\n")
    assert (await cli.run("push", file, "--bad-lines", rejected)).code == 0
    assert rejected.read_bytes() == b""


async def test_strict_sends_nothing_if_the_last_line_is_bad(cli: Cli, sandbox: Sandbox) -> None:
    file = cli.file("s.jsonl", line("dev-1") + "{")
    ended = await cli.run("push", file, "--strict", "--json")
    assert (ended.code, ended.json["sent"], ended.json["badLines"]) == (1, 0, 1)
    assert "line 2" in ended.err
    assert "nothing was sent" in ended.err
    assert sandbox.request_count == 0


async def test_strict_sends_a_clean_file(cli: Cli, sandbox: Sandbox) -> None:
    ended = await cli.run("push", cli.file("s.jsonl", line("dev-1", 9)), "--strict", "--json")
    assert (ended.code, ended.json["sent"], ended.json["statuses"]) == (0, 1, 1)
    assert pages_total(sandbox, "dev-1") == 9


@pytest.mark.parametrize(("tail", "code", "requests"), [("", 0, 2), ("{\n", 1, 0)])
async def test_strict_checks_standard_input_whole_before_sending(
    cli: Cli, sandbox: Sandbox, tail: str, code: int, requests: int
) -> None:
    process = await cli.start("push", "-", "--strict", "--json")
    ended = await process.wait((line("dev-1") + line("dev-2") + tail).encode())
    assert (ended.code, ended.json["sent"]) == (code, requests)
    assert sandbox.request_count == requests


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process")
@pytest.mark.parametrize(("limit_bytes", "folder"), [(1024, " in {}"), (0, "")], ids=["some", "none"])
async def test_strict_sends_nothing_if_standard_input_cannot_be_copied(
    cli: Cli, sandbox: Sandbox, limit_bytes: int, folder: str
) -> None:
    process = await cli.start("push", "-", "--strict", TMPDIR=str(cli.folder), PYTHONDONTWRITEBYTECODE="1")
    limit_file_size(process, limit_bytes)
    ended = await process.wait((line("dev-1") * 63).encode())
    assert (ended.code, ended.out, sandbox.request_count) == (1, "", 0)
    wanted = f"printos: nothing was sent: cannot copy standard input to a temporary file{folder}: "
    assert ended.err.startswith(wanted.format(cli.folder))
    assert len(ended.err.splitlines()) == 1


async def test_dry_run_sends_nothing_and_needs_no_credentials(cli: Cli) -> None:
    good, bad = cli.file("s.jsonl", line("dev-1")), cli.file("t.jsonl", "{\n")
    ended = await cli.run("push", good, "--dry-run", "--json")
    assert (ended.code, ended.json["statuses"], ended.json["dryRun"]) == (0, 1, True)
    ended = await cli.run("push", bad, "--dry-run")
    assert (ended.code, ended.out) == (1, "0 statuses, 1 line could not be read; nothing sent\n")


async def test_standard_input_is_sent_while_its_writer_still_writes(cli: Cli, sandbox: Sandbox) -> None:
    process = await cli.start("push", "-", "--json")
    await process.write(line("dev-1", 4).encode())
    await sandbox.wait_for(lambda: pages_total(sandbox, "dev-1") == 4)
    ended = await process.wait(line("dev-2").strip().encode())  # its last line without an end
    assert (ended.code, ended.json["sent"]) == (0, 2)


async def test_failed_statuses_can_be_pushed_again(cli: Cli, sandbox: Sandbox) -> None:
    file = cli.file("s.jsonl", line("new-1", 1) + line("dev-1", 2) + line("new-2", 3))
    failures = cli.folder / "failures.jsonl"
    ended = await cli.run("push", file, "--failures", failures, "--json")
    assert ended.code == 1
    assert (ended.json["sent"], ended.json["failed"], ended.json["errors"]) == (1, 2, {"NotFoundError": 2})
    assert "new-1: PUT /devices/new-1/status: 404 Not Found" in ended.err
    assert failures.read_text().count("new-") == 2

    sandbox.add_device("new-1")
    sandbox.add_device("new-2")
    ended = await cli.run("push", failures, "--json")
    assert (ended.code, ended.json["sent"]) == (0, 2)
    assert (pages_total(sandbox, "new-1"), pages_total(sandbox, "new-2")) == (1, 3)


async def test_the_first_ten_failures_are_named_once_and_the_others_counted(
    cli: Cli, sandbox: Sandbox
) -> None:
    file = cli.file("s.jsonl", "".join(line(f"nobody-{number}") for number in range(1_000)))
    process = await cli.start("push", file)
    ended = await process.wait()
    *named, count = ended.err.splitlines()
    assert ended.code == 1
    assert (
        len(named)
        == len({re.match(r"printos: (nobody-\d+): PUT .* 404 Not Found", text) for text in named})
        == 10
    )
    assert count == (
        "printos: 1,000 statuses failed (1,000 NotFoundError), the first 10 are named above; "
        "add --failures FILE to save them for another push"
    )


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        (("PRINTOS_SECRET", "another"), "AuthenticationError"),
        (("PRINTOS_BASE_URL", "http://127.0.0.1:1"), "TransportError"),
    ],
)
async def test_a_push_without_connection_or_credentials_names_the_command_that_looks_further(
    cli: Cli, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, setting: tuple[str, str], error: str
) -> None:
    monkeypatch.setenv(*setting)
    ended = await cli.run("push", cli.file("s.jsonl", line("dev-1")), "--max-attempts", "1")
    assert ended.code == 1
    assert ended.err.splitlines()[-1] == (
        f"printos: 1 status failed (1 {error}); printos check says what is wrong; "
        "add --failures FILE to save them for another push"
    )


async def test_how_to_push_again_what_failed_is_said(cli: Cli, sandbox: Sandbox) -> None:
    file, failures = cli.file("s.jsonl", line("dev-1") + line("nobody")), cli.folder / "failed.jsonl"
    ended = await cli.run("push", file, "--failures", failures)
    named, count = ended.err.splitlines()
    assert "nobody: PUT" in named
    assert count == (
        f"printos: 1 status failed (1 NotFoundError); printos push {failures} sends again what it keeps"
    )
    assert ended.out.startswith(
        f"1 sent, 0 replaced by newer ones, 1 status failed (failures: {failures}) in "
    )


@pytest.mark.parametrize("name", ["failed", "failed.csv", "it failed.NDJSON"])
async def test_the_command_that_is_said_pushes_again_what_failed(
    cli: Cli, sandbox: Sandbox, name: str
) -> None:
    ended = await cli.run("push", cli.file("s.jsonl", line("new")), "--failures", cli.folder / name)
    sandbox.add_device("new")
    said = re.search("; printos (push .*) sends again what it keeps\n", ended.err)
    assert said is not None
    ended = await cli.run(*shlex.split(said[1]), "--json")
    assert (ended.code, ended.json["sent"], ended.err) == (0, 1, "")


async def test_a_failure_is_named_while_a_pipe_is_still_open(cli: Cli, sandbox: Sandbox) -> None:
    process = await cli.start("push", "-")
    await process.write(line("nobody").encode())
    assert "nobody: PUT" in await process.complaint()
    assert (await process.wait(b"")).code == 1


async def test_a_failed_status_is_not_kept_once_a_newer_one_was_sent(cli: Cli, sandbox: Sandbox) -> None:
    sandbox.inject("server_error", device_id="dev-1")
    failures = cli.folder / "failures.jsonl"
    process = await cli.start("push", "-", "--failures", failures, "--max-attempts", "1", "--json")
    await process.write(line("dev-1", 1).encode())
    await sandbox.wait_for(lambda: sandbox.request_count == 1 and not sandbox.in_flight)
    ended = await process.wait(line("dev-1", 2).encode())
    assert (ended.code, ended.json["sent"]) == (1, 1)
    assert failures.read_text().strip() == ""
    assert pages_total(sandbox, "dev-1") == 2


async def test_failures_that_cannot_be_written_are_not_lost(cli: Cli, sandbox: Sandbox) -> None:
    file = cli.file("s.jsonl", line("nobody"))
    ended = await cli.run("push", file, "--failures", "/dev/full", "--json")
    assert ended.code == 1
    assert "cannot write /dev/full: No space left on device" in ended.json["problem"]
    assert '{"deviceId":"nobody"' in ended.err
    assert ended.err.endswith(f"printos: reading ended after line 1 of {file}; no line after it was sent\n")


@pytest.mark.parametrize("option", ["--failures", "--bad-lines"])
async def test_the_file_that_is_read_is_not_written(cli: Cli, sandbox: Sandbox, option: str) -> None:
    file = cli.file("s.jsonl", line("dev-1"))
    ended = await cli.run("push", file, option, file)
    assert ended.code == 2
    assert file.read_text() == line("dev-1")
    assert sandbox.request_count == 0


async def test_failures_and_bad_lines_are_not_mixed_in_one_file(cli: Cli, sandbox: Sandbox) -> None:
    file, both = cli.file("s.jsonl", line("nobody") + "{"), cli.folder / "both"
    options = ("--failures", both, "--bad-lines", f"{cli.folder}/./both")
    ended = await cli.run("push", file, *options)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "printos: --failures and --bad-lines need two files\n"
    assert sandbox.request_count == 0


@pytest.mark.parametrize("option", ["--failures", "--bad-lines"])
async def test_a_file_that_somebody_else_could_have_put_there_is_not_written(
    cli: Cli, sandbox: Sandbox, option: str
) -> None:
    precious, link = cli.file("precious", "mine"), cli.folder / "link"
    link.symlink_to(precious)
    dangling = cli.folder / "dangling"
    dangling.symlink_to(cli.folder / "new")
    for path in (link, dangling):
        ended = await cli.run("push", cli.file("s.jsonl", line("nobody") + "{"), option, path)
        assert (ended.code, ended.out) == (2, "")
        assert f"cannot write {path}: it is a symbolic link" in ended.err
    assert precious.read_text() == "mine"
    assert not (cli.folder / "new").exists()
    assert sandbox.request_count == 0


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="only root gives files to other users"
)
@pytest.mark.parametrize("option", ["--failures", "--bad-lines"])
@pytest.mark.parametrize("kind", ["file", "pipe"])
async def test_a_file_of_another_user_is_not_written(
    cli: Cli, sandbox: Sandbox, option: str, kind: str
) -> None:
    theirs = cli.folder / "theirs"
    if kind == "file":
        theirs.touch()
    else:
        os.mkfifo(theirs)
    os.chown(theirs, 12345, -1)
    ended = await cli.run("push", cli.file("s.jsonl", line("nobody") + "{"), option, theirs)
    assert (ended.code, ended.out) == (2, "")
    assert f"cannot write {theirs}: it belongs to another user (uid 12345" in ended.err
    assert sandbox.request_count == 0


@pytest.mark.parametrize("option", ["--failures", "--bad-lines"])
async def test_lines_can_go_to_a_stream_of_the_process(cli: Cli, sandbox: Sandbox, option: str) -> None:
    file = cli.file("s.jsonl", line("nobody") + '{"deviceId": "nobody"}')
    ended = await (await cli.start("push", file, option, "/dev/stdout", "--json")).wait()
    assert ended.code == 1
    kept, _ = ended.out.splitlines()
    assert json.loads(kept)["deviceId"] == "nobody"


async def test_faults_are_tried_again(cli: Cli, sandbox: Sandbox) -> None:
    sandbox.set_faults(Faults(retry_after="0"))
    sandbox.inject("rate_limited", device_id="dev-1")
    sandbox.inject("reset_before", device_id="dev-2")
    sandbox.inject("reset_after", device_id="dev-3")
    file = cli.file("s.jsonl", "".join(line(f"dev-{number}", number) for number in (1, 2, 3)))
    ended = await cli.run("push", file, "--json")
    assert (ended.code, ended.json["sent"], ended.json["retries"]) == (0, 3, 3)
    assert [pages_total(sandbox, f"dev-{number}") for number in (1, 2, 3)] == [1, 2, 3]


async def test_an_endless_line_costs_bounded_memory_and_is_one_bad_line(cli: Cli, sandbox: Sandbox) -> None:
    content = b'{"deviceId": "' + b"x" * 3_000_000 + b'"}\n' + line("dev-1", 3).encode()
    ended = await cli.run("push", cli.file("s.jsonl", content), "--json")
    assert (ended.code, ended.json["badLines"], ended.json["sent"]) == (1, 1, 1)
    assert "line 1: is longer than 1048576 bytes" in ended.err


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("s.txt", "", "has no known extension"),
        ("s.csv", "deviceId;status\ndev-1;DS_ON\n", "line 1: the first line must name columns"),
        ("s.jsonl", line("dev-1").encode("utf-16"), "is UTF-16"),
    ],
)
async def test_a_file_that_is_no_such_file_is_refused(
    cli: Cli, sandbox: Sandbox, name: str, content: str | bytes, complaint: str
) -> None:
    ended = await cli.run("push", cli.file(name, content))
    assert (ended.code, ended.out) == (2, "")
    assert complaint in ended.err
    assert len(ended.err.splitlines()) == 1
    assert sandbox.request_count == 0


async def test_a_missing_file_and_a_folder_are_refused(cli: Cli, sandbox: Sandbox) -> None:
    (cli.folder / "folder.jsonl").mkdir()
    for name in ("missing.jsonl", "folder.jsonl"):
        ended = await cli.run("push", cli.folder / name)
        assert ended.code == 2
        assert ended.err.startswith(f"printos: cannot read {cli.folder / name}: ")


async def test_an_empty_file_is_all_sent(cli: Cli, sandbox: Sandbox) -> None:
    ended = await cli.run("push", cli.file("s.jsonl", ""), "--json")
    assert (ended.code, ended.json["statuses"]) == (0, 0)


async def test_a_csv_without_the_column_of_devices_is_refused_at_its_first_line(
    cli: Cli, sandbox: Sandbox
) -> None:
    ended = await cli.run("push", cli.file("s.csv", "status\nDS_ON\nDS_OFF\n"))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.endswith("s.csv, line 1: the first line must name the column deviceId\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
async def test_a_file_of_bad_lines_that_cannot_be_written_is_named(cli: Cli, sandbox: Sandbox) -> None:
    file = cli.file("s.jsonl", line("dev-1") + "{\n" + line("dev-2"))
    ended = await cli.run("push", file, "--bad-lines", "/dev/full", "--json")
    assert (ended.code, ended.json["sent"]) == (1, 1)
    assert ended.json["problem"].startswith("cannot write /dev/full, nor read on in ")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process")
async def test_a_bad_line_that_is_written_in_part_is_no_line_that_was_kept(cli: Cli) -> None:
    rejected = cli.folder / "rejected"
    options = ("--dry-run", "--json", "--bad-lines", rejected)
    process = await cli.start("push", "-", *options, PYTHONDONTWRITEBYTECODE="1")
    limit_file_size(process, 1024)
    ended = await process.wait(b"x" * 40_000 + b"\n")
    assert (ended.code, ended.json["badLines"]) == (1, 1)
    assert ended.json["problem"].startswith(f"cannot write {rejected}, nor read on in ")
    assert "push it" not in ended.err


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
async def test_bad_lines_are_counted_at_the_end_with_what_to_do(
    cli: Cli, sandbox: Sandbox, options: list[str]
) -> None:
    ended = await cli.run("push", cli.file("s.jsonl", "{"), *options)
    assert ended.code == 1
    assert ended.err.splitlines()[-1] == (
        "printos: 1 line could not be read; add --bad-lines FILE to keep them"
    )

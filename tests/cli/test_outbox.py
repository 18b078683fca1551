from __future__ import annotations

import asyncio
import json
import re
import shlex
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from printos_async import DeviceStatusUpdate, HmacAuth, OutboxError, PrintOSClient, Spooler, StatusPush
from printos_async.cli.input.source import Source
from printos_async.cli.push.files import FailuresFile
from printos_async.cli.push.job import PushJob
from printos_async.cli.push.modes import Spool
from printos_async.cli.push.report import PushReport
from printos_async.outbox import Draft, Finish, SqlOutbox

from .conftest import KEY, SECRET

if TYPE_CHECKING:
    from collections.abc import Mapping

    from printos_async.sandbox import Sandbox

    from .conftest import Cli, Ended


def line(device_id: str, pages_total: int = 1) -> str:
    record = {"deviceId": device_id, "status": "DS_ON", "metrics": {"pagesTotal": pages_total}}
    return json.dumps(record) + "\n"


@pytest.fixture
def url(cli: Cli) -> str:
    return f"sqlite+aiosqlite:///{cli.folder / 'spool.db'}"


async def run_outbox(cli: Cli, url: str, *args: object) -> Ended:
    return await cli.run("outbox", *args, "--outbox", url)


async def give_up(url: str, sandbox: Sandbox, errors: Mapping[str, str]) -> None:
    """Put a status of each of these devices and note that it could not be delivered."""
    outbox = SqlOutbox(url)
    try:
        async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET)) as client:
            await outbox.open(client.account)
        owner = await outbox.join()
        await outbox.put([Draft(device_id, b'{"status":"DS_ON"}') for device_id in errors], owner=owner)
        finished = [Finish(device_id, 1, attempts=3, error=error) for device_id, error in errors.items()]
        await outbox.finish(owner, finished)
        await outbox.leave(owner)
    finally:
        await outbox.aclose()


async def test_statuses_are_accepted_and_not_sent(cli: Cli, sandbox: Sandbox, url: str) -> None:
    file = cli.file("s.jsonl", line("dev-1", 1) + line("dev-2", 2) + line("dev-1", 3))
    ended = await cli.run("push", file, "--outbox", url, "--json")
    assert (ended.code, ended.err) == (0, "")
    assert (ended.json["accepted"], ended.json["sent"], ended.json["unsent"]) == (3, 0, 0)
    stats = await run_outbox(cli, url, "stats", "--json")
    assert (stats.code, stats.json["waiting"], stats.json["claimed"], stats.json["workers"]) == (0, 2, 0, 0)
    assert stats.json["oldestWaitingS"] > 0
    assert sandbox.request_count == 0


async def test_the_environment_says_where_the_outbox_is_and_an_option_that_it_is_meant(
    cli: Cli, sandbox: Sandbox, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRINTOS_OUTBOX", url)
    file = cli.file("s.csv", "deviceId,status\ndev-1,DS_ON\n")
    ended = await cli.run("push", file, "--spool")
    assert ended.out.startswith("1 accepted into the outbox in ")
    assert sandbox.request_count == 0
    assert (await cli.run("push", file, "--json")).json["sent"] == 1
    assert sandbox.request_count == 1
    assert (await cli.run("outbox", "stats")).out.startswith("1 device: 1 waiting, the oldest for ")


async def test_bad_lines_are_left_out_and_named(cli: Cli, sandbox: Sandbox, url: str) -> None:
    file = cli.file("s.jsonl", line("dev-1") + "{\n" + line("dev-2"))
    ended = await cli.run("push", file, "--outbox", url, "--json")
    assert (ended.code, ended.json["accepted"], ended.json["badLines"]) == (1, 2, 1)
    ended = await cli.run("push", file, "--outbox", url, "--json", "--strict")
    assert (ended.code, ended.json["accepted"]) == (1, 0)


async def test_a_thousand_statuses_keep_the_order_of_each_device(
    cli: Cli, sandbox: Sandbox, url: str
) -> None:
    content = "".join(line(f"dev-{number % 3 + 1}", number) for number in range(3_000))
    ended = await cli.run("push", cli.file("s.jsonl", content), "--outbox", url, "--json")
    assert (ended.code, ended.json["accepted"]) == (0, 3_000)
    outbox = SqlOutbox(url)
    try:
        async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET)) as client:
            await outbox.open(client.account)
        claims = await outbox.claim(await outbox.join(), 10)
    finally:
        await outbox.aclose()
    newest = {claim.device_id: json.loads(claim.body)["metrics"]["pagesTotal"] for claim in claims}
    assert newest == {"dev-1": 2_997, "dev-2": 2_998, "dev-3": 2_999}


async def test_lines_of_a_pipe_are_accepted_while_its_writer_still_writes(
    cli: Cli, sandbox: Sandbox, url: str
) -> None:
    process = await cli.start("push", "--follow", "-", "--outbox", url, "--json")
    await process.write(line("dev-1").encode())
    async with asyncio.timeout(20):
        while True:
            stats = await run_outbox(cli, url, "stats", "--json")
            if stats.code == 0 and stats.json["waiting"] == 1:  # until then the file may be missing
                break
    ended = await process.wait(line("dev-2").encode())
    assert (ended.code, ended.json["accepted"]) == (0, 2)


async def test_the_line_after_which_a_failing_outbox_ended_reading_is_named(
    cli: Cli, sandbox: Sandbox, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def put(*_: object) -> None:
        raise OutboxError("the disk is full")

    monkeypatch.setattr(Spooler, "put", put)
    file = cli.file("s.jsonl", line("dev-1") * 3_000)
    ended = await cli.run("push", file, "--outbox", url, "--json")
    last_line = ended.json["lastLine"]
    assert (ended.code, ended.json["accepted"], ended.json["problem"]) == (1, 0, "the disk is full")
    assert 0 < last_line < 3_000
    assert ended.err.endswith(
        "printos: the disk is full\n"
        f"printos: reading ended after line {last_line} of {file}; no line after it was accepted\n"
    )


async def test_the_command_that_is_said_spools_again_what_was_not_accepted(
    cli: Cli,
    sandbox: Sandbox,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PRINTOS_OUTBOX", url)
    source, failures = Source(str(cli.file("s.jsonl", ""))), FailuresFile(cli.folder / "failed")
    with source, failures:
        job = PushJob(source, "jsonl", Spool(url), strict=False, failures=failures, bad_lines_file=None)
        job.counts.give_up([StatusPush("dev-1", DeviceStatusUpdate(status="DS_ON"))])
        PushReport(job, is_dry_run=False, elapsed_s=1.0).write(as_json=True)
    said = re.search("; printos (push .*) spools what it keeps\n", capsys.readouterr().err)
    assert said is not None
    ended = await cli.run(*shlex.split(said[1]), "--json")
    assert (ended.code, ended.json["accepted"], sandbox.request_count) == (0, 1, 0)


async def test_another_account_sees_nothing(cli: Cli, sandbox: Sandbox, url: str) -> None:
    await cli.run("push", cli.file("s.jsonl", line("dev-1")), "--outbox", url)
    other = await cli.run("outbox", "stats", "--json", "--outbox", url, "--key", "other")
    assert other.json["devices"] == 0


async def test_what_was_given_up_is_listed_page_by_page(cli: Cli, sandbox: Sandbox, url: str) -> None:
    await give_up(url, sandbox, {"b": "503", "a": "404 Not Found", "c": "timeout"})
    ended = await run_outbox(cli, url, "failed", "--json", "--limit", "2")
    assert [letter["deviceId"] for letter in ended.json["failed"]] == ["a", "b"]
    assert ended.json["nextAfter"] == "b"
    first = ended.json["failed"][0]
    assert (first["status"], first["attempts"], first["error"]) == ({"status": "DS_ON"}, 3, "404 Not Found")
    ended = await run_outbox(cli, url, "failed", "--json", "--after", "b")
    assert [letter["deviceId"] for letter in ended.json["failed"]] == ["c"]
    assert ended.json["nextAfter"] is None
    table = await run_outbox(cli, url, "failed", "--limit", "2")
    header, row, _ = table.out.splitlines()
    assert header.split("\t") == ["device", "attempts", "seconds ago", "error"]
    assert row.split("\t")[::3] == ["a", "404 Not Found"]
    assert "--after b" in table.err


async def test_what_was_given_up_can_be_pushed_by_other_means(cli: Cli, sandbox: Sandbox, url: str) -> None:
    await give_up(url, sandbox, {"dev-1": "503", "dev-2": "503"})
    lines = await run_outbox(cli, url, "failed", "--lines")
    ended = await cli.run("push", cli.file("s.jsonl", lines.out), "--json")
    assert (ended.code, ended.json["sent"]) == (0, 2)


async def test_what_was_given_up_is_sent_again_if_asked_for(cli: Cli, sandbox: Sandbox, url: str) -> None:
    await give_up(url, sandbox, {"a": "503", "b": "503", "c": "503"})
    assert (await run_outbox(cli, url, "requeue", "b", "unknown", "--json")).json == {"requeued": 1}
    assert (await run_outbox(cli, url, "stats", "--json")).json["failed"] == 2
    assert (await run_outbox(cli, url, "requeue", "--all")).out == "2 requeued\n"
    stats = (await run_outbox(cli, url, "stats", "--json")).json
    assert (stats["waiting"], stats["failed"]) == (3, 0)
    for args in ((), ("a", "--all")):
        ended = await run_outbox(cli, url, "requeue", *args)
        assert ended.code == 2
        assert "or give --all" in ended.err


async def test_a_device_of_which_nothing_was_given_up_is_named(cli: Cli, sandbox: Sandbox, url: str) -> None:
    await cli.run("push", cli.file("s.jsonl", line("waits")), "--outbox", url)
    await give_up(url, sandbox, {"a": "503"})
    ended = await run_outbox(cli, url, "requeue", "waits", "a", "no-such-device", "a")
    assert (ended.code, ended.out) == (1, "1 requeued\n")
    assert ended.err == (
        "printos: no failed status of waits, no-such-device; printos outbox failed lists those that failed\n"
    )
    ended = await run_outbox(cli, url, "requeue", "no-such-device", "--json")
    assert (ended.code, ended.json) == (1, {"requeued": 0})
    assert "no-such-device" in ended.err
    assert (await run_outbox(cli, url, "requeue", "--all")).code == 0


async def test_only_what_is_meant_is_purged(cli: Cli, sandbox: Sandbox, url: str) -> None:
    await cli.run("push", cli.file("s.jsonl", line("waits")), "--outbox", url)
    await give_up(url, sandbox, {"a": "503"})
    assert (await run_outbox(cli, url, "purge", "--json")).json == {"purged": 0}
    assert (await run_outbox(cli, url, "purge", "--failed", "--older-than", "3600")).out == "0 purged\n"
    assert (await run_outbox(cli, url, "purge", "--failed")).out == "1 purged\n"
    stats = (await run_outbox(cli, url, "stats", "--json")).json
    assert (stats["devices"], stats["waiting"], stats["failed"]) == (1, 1, 0)


@pytest.mark.parametrize(
    "command",
    [("stats",), ("failed",), ("requeue", "--all"), ("purge",)],
)
async def test_an_outbox_has_to_be_named(cli: Cli, sandbox: Sandbox, command: tuple[str, ...]) -> None:
    ended = await cli.run("outbox", *command)
    assert (ended.code, ended.out) == (2, "")
    assert "PRINTOS_OUTBOX" in ended.err


@pytest.mark.parametrize(
    "command",
    [
        ("stats",),
        ("devices",),
        ("failed",),
        ("requeue", "--all"),
        ("purge",),
        ("accounts",),
        ("adopt", "other"),
        ("adopt", "other", "--yes"),
    ],
)
async def test_a_missing_outbox_is_named_and_not_created(
    cli: Cli, sandbox: Sandbox, command: tuple[str, ...]
) -> None:
    path = cli.folder / "no" / "spool.db"
    ended = await run_outbox(cli, f"sqlite+aiosqlite:///{path}", *command)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == (
        f"printos: there is no outbox at {path}; a pusher, printos push --spool or printos worker makes it\n"
    )
    assert not path.parent.exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--spool"], "PRINTOS_OUTBOX"),
        (["--outbox", "mysql://x:pass-5f1e@host/x"], ""),
        (["--outbox", "pass-5f1e"], ""),
        (
            ["--outbox", "sqlite+aiosqlite:///s.db", "--follow", "--min-interval", "60"],
            "give it the options of delivery",
        ),
    ],
)
async def test_options_that_make_no_sense_are_refused_without_a_password(
    cli: Cli, sandbox: Sandbox, options: list[str], complaint: str
) -> None:
    ended = await cli.run("push", cli.file("s.jsonl", line("dev-1")), *options)
    assert (ended.code, ended.out) == (2, "")
    assert complaint in ended.err
    assert "pass-5f1e" not in ended.err


async def test_an_outbox_that_cannot_be_reached_is_an_error_without_its_password(
    cli: Cli, sandbox: Sandbox
) -> None:
    url = "postgresql+asyncpg://user:pass-5f1e@127.0.0.1:1/printos"
    file = cli.file("s.jsonl", line("dev-1"))
    for args in (("push", file), ("outbox", "stats")):
        ended = await cli.run(*args, "--outbox", url)
        assert (ended.code, ended.out) == (1, "")
        assert len(ended.err.splitlines()) == 1
        assert "the outbox's database cannot be used" in ended.err
        assert "pass-5f1e" not in ended.err


async def test_rows_with_values_of_wrong_types_are_listed_and_purged(
    cli: Cli, sandbox: Sandbox, url: str
) -> None:
    await give_up(url, sandbox, {"dev-1": "404", "dev-2": "404", "dev-3": "404"})
    with closing(sqlite3.connect(cli.folder / "spool.db")) as connection, connection:
        connection.execute("UPDATE printos_outbox SET body = x'ff00' WHERE device_id = 'dev-1'")
        connection.execute("UPDATE printos_outbox SET device_id = x'ff00' WHERE device_id = 'dev-2'")
    listed = await run_outbox(cli, url, "failed", "--json")
    assert [(one["deviceId"], one["status"]) for one in listed.json["failed"]] == [
        ("dev-1", None),
        ("dev-3", {"status": "DS_ON"}),
        ("x'FF00'", {"status": "DS_ON"}),
    ]
    lines = await run_outbox(cli, url, "failed", "--lines")
    assert [json.loads(one)["deviceId"] for one in lines.out.splitlines()] == ["dev-3", "x'FF00'"]
    assert "dev-1 is damaged" in lines.err
    assert (await run_outbox(cli, url, "stats", "--json")).json["failed"] == 3
    assert (await run_outbox(cli, url, "requeue", "dev-1", "--json")).json == {"requeued": 1}
    assert (await run_outbox(cli, url, "purge", "--failed", "--json")).json == {"purged": 2}

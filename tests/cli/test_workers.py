from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from printos_async import HmacAuth, PrintOSClient
from printos_async.cli.commands.worker import Work
from printos_async.cli.monitoring.monitor import Monitor
from printos_async.outbox import SqlOutbox

from .conftest import KEY, SECRET

if TYPE_CHECKING:
    from printos_async.sandbox import Sandbox

    from .conftest import Cli

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
pytestmark = posix_only


def line(device_id: str, pages_total: int = 1) -> str:
    record = {"deviceId": device_id, "status": "DS_ON", "metrics": {"pagesTotal": pages_total}}
    return json.dumps(record) + "\n"


def pages_total(sandbox: Sandbox, device_id: str) -> int | None:
    status = sandbox.devices[device_id].status
    return None if status is None else status["metrics"]["pagesTotal"]


@pytest.fixture
def outbox(cli: Cli, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"sqlite+aiosqlite:///{cli.folder / 'spool.db'}"
    monkeypatch.setenv("PRINTOS_OUTBOX", url)
    return url


async def put(cli: Cli, *lines: str) -> None:
    ended = await cli.run("push", cli.file("put.jsonl", "".join(lines)), "--spool", "--json")
    assert (ended.code, ended.json["accepted"]) == (0, len(lines))


async def test_what_is_put_is_delivered_until_a_signal_ends_it(
    cli: Cli, sandbox: Sandbox, outbox: str
) -> None:
    await put(cli, line("dev-1", 1), line("dev-2", 2))
    process = await cli.start("worker", "--json")
    await sandbox.wait_for(lambda: pages_total(sandbox, "dev-2") == 2)
    await put(cli, line("dev-1", 5), line("dev-3", 6))
    await sandbox.wait_for(lambda: (pages_total(sandbox, "dev-1"), pages_total(sandbox, "dev-3")) == (5, 6))
    process.send_signal(signal.SIGTERM)
    ended = await process.wait()
    assert (ended.code, ended.err) == (0, "")
    assert (ended.json["sent"], ended.json["failed"], ended.json["unfinished"]) == (4, 0, 0)
    assert (ended.json["stoppedBy"], ended.json["exitCode"]) == ("SIGTERM", 0)
    stats = (await cli.run("outbox", "stats", "--json")).json
    assert (stats["waiting"], stats["workers"], stats["failed"]) == (0, 0, 0)


async def test_what_is_in_flight_is_finished_before_the_end(cli: Cli, sandbox: Sandbox, outbox: str) -> None:
    await sandbox.block()
    await put(cli, line("dev-1", 1), line("dev-2", 2), line("dev-3", 3))
    process = await cli.start("worker", "--json")
    await sandbox.wait_for(lambda: sandbox.in_flight == 3)
    process.send_signal(signal.SIGINT)
    await sandbox.release()
    ended = await process.wait()
    assert (ended.code, ended.json["sent"], ended.json["stoppedBy"]) == (0, 3, "SIGINT")


async def test_what_is_not_finished_in_time_waits_in_the_outbox(
    cli: Cli, sandbox: Sandbox, outbox: str
) -> None:
    await sandbox.block()
    await put(cli, line("dev-1", 1))
    process = await cli.start("worker", "--json", "--drain-timeout", "0.1")
    await sandbox.wait_for(lambda: sandbox.in_flight == 1)
    process.send_signal(signal.SIGTERM)
    ended = await process.wait()
    assert (ended.code, ended.json["sent"], ended.json["unfinished"]) == (1, 0, 1)
    assert "1 status was not finished in time; it waits in the outbox" in ended.err
    assert (await cli.run("outbox", "stats", "--json")).json["waiting"] == 1
    await sandbox.release()


async def test_a_second_signal_ends_it_at_once(cli: Cli, sandbox: Sandbox, outbox: str) -> None:
    await sandbox.block()
    await put(cli, line("dev-1", 1))
    process = await cli.start("worker", "--json", "--drain-timeout", "3600")
    await sandbox.wait_for(lambda: sandbox.in_flight == 1)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    ended = await process.wait()
    assert ended.code in {130, 143}
    assert "1 status was not finished in time; it waits in the outbox" in ended.err
    assert (await cli.run("outbox", "stats", "--json")).json["waiting"] == 1
    await sandbox.release()


@linux_only
async def test_a_worker_takes_over_what_another_one_had_that_was_killed(
    cli: Cli, sandbox: Sandbox, outbox: str
) -> None:
    await sandbox.block()
    await put(cli, line("dev-1", 1), line("dev-2", 2))
    killed = await cli.start("worker", "--lease", "2", "--timeout", "1", "--ambiguity", "0.2")
    await sandbox.wait_for(lambda: sandbox.in_flight == 2)
    killed.process.kill()
    await killed.process.communicate()
    await sandbox.release()
    process = await cli.start("worker", "--lease", "2", "--timeout", "1", "--ambiguity", "0.2", "--json")
    # The server has the requests of the one that was killed; nobody knows that but the server.
    await sandbox.wait_for(lambda: sandbox.request_count >= 4 and not sandbox.in_flight)
    process.send_signal(signal.SIGTERM)
    ended = await process.wait()
    assert (ended.code, ended.err) == (0, "")
    assert ended.json["failed"] == 0
    assert (await cli.run("outbox", "stats", "--json")).json["waiting"] == 0


async def test_a_bug_ends_it_so_that_another_one_can_take_its_place(
    cli: Cli, sandbox: Sandbox, outbox: str
) -> None:
    spool = SqlOutbox(outbox)
    work = Work(outbox=spool, drain_timeout_s=25, delivery={}, state_every_s=0, monitor=Monitor(None))
    async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET)) as client:
        pusher = client.status_pusher(outbox=spool)
        working = asyncio.create_task(work.deliver(pusher))
        await put(cli, line("dev-1", 1))
        await sandbox.wait_for(lambda: sandbox.applied_count == 1)
        pusher._engine.fail(RuntimeError("a bug"))
        with pytest.raises(RuntimeError, match="a bug"):
            await working


async def test_the_time_that_passes_before_it_runs_does_not_count(
    cli: Cli, sandbox: Sandbox, outbox: str, capsys: pytest.CaptureFixture[str]
) -> None:
    work = Work(
        outbox=SqlOutbox(outbox), drain_timeout_s=25, delivery={}, state_every_s=0, monitor=Monitor(None)
    )
    await put(cli, line("dev-1", 1))  # here somebody may type a secret
    work.signals.stopping.set()
    begun_s = time.perf_counter()
    stats = await work.run(PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET)))
    assert work.report(stats, as_json=True) == 0
    assert 0 < json.loads(capsys.readouterr().out)["elapsedS"] < time.perf_counter() - begun_s


async def test_a_line_of_state_is_said_now_and_then(cli: Cli, sandbox: Sandbox, outbox: str) -> None:
    await put(cli, line("dev-1", 1))
    process = await cli.start("worker", "--state-every", "0.1")
    said = await process.complaint("1 sent")
    assert "in flight" in said
    assert "pending" in said
    process.send_signal(signal.SIGTERM)
    ended = await process.wait()
    assert ended.code == 0
    assert ended.out.startswith("1 sent, 0 replaced by newer ones, 0 failed in ")


async def test_a_status_that_is_refused_is_said_and_listed(cli: Cli, sandbox: Sandbox, outbox: str) -> None:
    await put(cli, line("nobody", 1))
    process = await cli.start("worker", "--json")
    assert "404 Not Found" in await process.complaint("device nobody")
    process.send_signal(signal.SIGTERM)
    ended = await process.wait()
    assert (ended.code, ended.json["failed"]) == (0, 1)
    assert "1 status failed; printos outbox failed lists what was given up" in ended.err
    assert "printos outbox requeue --all sends it again" in ended.err
    letters = (await cli.run("outbox", "failed", "--json")).json["failed"]
    assert [letter["deviceId"] for letter in letters] == ["nobody"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--outbox", "mysql://x:pass-5f1e@host/x"], ""),
        (["--drain-timeout", "nan"], "--drain-timeout must be a number"),
        (["--ambiguity", "inf"], "--ambiguity must be a number"),
        (["--base-url", "ftp://host"], "--base-url"),
        (["--lease", "10", "--timeout", "6"], "--lease must be at least 2 times --timeout (6 s)"),
    ],
)
async def test_settings_that_are_no_good_end_it_before_it_starts(
    cli: Cli, sandbox: Sandbox, outbox: str, options: list[str], complaint: str
) -> None:
    ended = await cli.run("worker", *options)
    assert (ended.code, ended.out) == (2, "")
    assert complaint in ended.err
    assert len(ended.err.splitlines()) == 1
    assert "pass-5f1e" not in ended.err


async def test_a_worker_needs_an_outbox(cli: Cli, sandbox: Sandbox) -> None:
    ended = await cli.run("worker")
    assert (ended.code, ended.out) == (2, "")
    assert "PRINTOS_OUTBOX" in ended.err

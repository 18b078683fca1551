from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from printos_async.cli.commands.work import Work
from printos_async.cli.options.client import ClientSettings
from printos_async.cli.options.worker import WorkerSettings

from .conftest import SECRET, children_of, seen_of, wait_for_end

if TYPE_CHECKING:
    from printos_async.sandbox import Sandbox

    from .conftest import Cli, Running

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


async def read_complaint(process: Running, wanted: str) -> str:
    assert process.process.stderr is not None
    async with asyncio.timeout(30):
        while text := (await process.process.stderr.readline()).decode():
            if wanted in text:
                return text
    pytest.fail(f"nothing was said of {wanted!r}")


@pytest.mark.parametrize("processes", [1, 2])
async def test_what_is_put_is_delivered_until_a_signal_ends_it(
    cli: Cli, sandbox: Sandbox, outbox: str, processes: int
) -> None:
    await put(cli, line("dev-1", 1), line("dev-2", 2))
    process = await cli.start("worker", "--processes", processes, "--json")
    await sandbox.wait_for(lambda: pages_total(sandbox, "dev-2") == 2)
    await put(cli, line("dev-1", 5), line("dev-3", 6))
    await sandbox.wait_for(lambda: (pages_total(sandbox, "dev-1"), pages_total(sandbox, "dev-3")) == (5, 6))
    process.send_signal(signal.SIGTERM)
    ended = await process.wait()
    assert (ended.code, ended.err) == (0, "")
    assert (ended.json["sent"], ended.json["failed"], ended.json["unfinished"]) == (4, 0, 0)
    assert (ended.json["stoppedBy"], ended.json["exitCode"], ended.json["restarts"]) == ("SIGTERM", 0, 0)
    stats = (await cli.run("outbox", "stats", "--json")).json
    assert (stats["waiting"], stats["workers"], stats["failed"]) == (0, 0, 0)


@pytest.mark.parametrize("processes", [1, 2])
async def test_what_is_in_flight_is_finished_before_the_end(
    cli: Cli, sandbox: Sandbox, outbox: str, processes: int
) -> None:
    await sandbox.block()
    await put(cli, line("dev-1", 1), line("dev-2", 2), line("dev-3", 3))
    process = await cli.start("worker", "--processes", processes, "--json")
    await sandbox.wait_for(lambda: sandbox.in_flight == 3)
    process.send_signal(signal.SIGINT)
    await sandbox.release()
    ended = await process.wait()
    assert (ended.code, ended.json["sent"], ended.json["stoppedBy"]) == (0, 3, "SIGINT")


@pytest.mark.parametrize("processes", [1, 2])
async def test_what_is_not_finished_in_time_waits_in_the_outbox(
    cli: Cli, sandbox: Sandbox, outbox: str, processes: int
) -> None:
    await sandbox.block()
    await put(cli, line("dev-1", 1))
    process = await cli.start("worker", "--processes", processes, "--json", "--drain-timeout", "0.1")
    await sandbox.wait_for(lambda: sandbox.in_flight == 1)
    process.send_signal(signal.SIGTERM)
    ended = await process.wait()
    assert (ended.code, ended.json["sent"], ended.json["unfinished"]) == (1, 0, 1)
    assert "1 statuses were not finished in time; they wait in the outbox" in ended.err
    assert (await cli.run("outbox", "stats", "--json")).json["waiting"] == 1
    await sandbox.release()


@pytest.mark.parametrize("processes", [1, 2])
async def test_a_second_signal_ends_it_at_once(
    cli: Cli, sandbox: Sandbox, outbox: str, processes: int
) -> None:
    await sandbox.block()
    await put(cli, line("dev-1", 1))
    process = await cli.start("worker", "--processes", processes, "--json", "--drain-timeout", "3600")
    await sandbox.wait_for(lambda: sandbox.in_flight == 1)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    ended = await process.wait()
    assert ended.code in {130, 143}
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


@linux_only
async def test_a_process_that_dies_is_replaced(cli: Cli, sandbox: Sandbox, outbox: str) -> None:
    options = ("--lease", "2", "--timeout", "1", "--ambiguity", "0.2")
    process = await cli.start("worker", "--processes", "2", "--json", *options)
    await put(cli, line("dev-1", 1))
    await sandbox.wait_for(lambda: pages_total(sandbox, "dev-1") == 1)
    before = children_of(process)
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    said = await read_complaint(process, "another one starts")
    assert said == f"printos: worker process {before[0]} was ended by SIGKILL; another one starts in 1 s\n"
    await put(cli, line("dev-1", 2), line("dev-2", 3), line("dev-3", 4))
    await sandbox.wait_for(
        lambda: [pages_total(sandbox, f"dev-{number}") for number in (1, 2, 3)] == [2, 3, 4]
    )
    assert await read_complaint(process, "takes its place")
    assert len(children_of(process)) == 2
    process.send_signal(signal.SIGTERM)
    ended = await process.wait()
    assert (ended.code, ended.json["restarts"], ended.json["unfinished"]) == (0, 1, 0)


@linux_only
async def test_processes_finish_what_they_have_when_the_first_one_is_killed(
    cli: Cli, sandbox: Sandbox, outbox: str
) -> None:
    await sandbox.block()
    await put(cli, line("dev-1", 1), line("dev-2", 2))
    process = await cli.start("worker", "--processes", "2")
    await sandbox.wait_for(lambda: sandbox.in_flight == 2)
    children = children_of(process)
    process.process.kill()
    # Not process.wait(): that also waits until nobody has its standard error.
    await asyncio.to_thread(wait_for_end, process.process.pid)
    await sandbox.release()
    for child in children:
        await asyncio.to_thread(wait_for_end, child)
    ended = await process.wait()
    assert (ended.code, ended.err) == (-signal.SIGKILL, "")
    stats = (await cli.run("outbox", "stats", "--json")).json
    assert (stats["waiting"], stats["workers"]) == (0, 0)


@linux_only
async def test_a_signal_to_all_processes_is_passed_on_only_once(
    cli: Cli, sandbox: Sandbox, outbox: str
) -> None:
    await sandbox.block()
    await put(cli, line("dev-1", 1))
    process = await cli.start("worker", "--processes", "2", "--json")
    await sandbox.wait_for(lambda: sandbox.in_flight == 1)
    for child in children_of(process):
        os.kill(child, signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    await sandbox.release()
    ended = await process.wait()
    assert (ended.code, ended.json["sent"], ended.err) == (0, 1, "")


@linux_only
async def test_no_secret_is_in_arguments_or_environment_of_a_process(
    cli: Cli, sandbox: Sandbox, outbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(cli, line("dev-1", 1))
    monkeypatch.delenv("PRINTOS_SECRET")
    secret = cli.file("secret", SECRET)
    process = await cli.start("worker", "--processes", "2", "--key", "cli-key", "--secret-file", secret)
    await sandbox.wait_for(lambda: sandbox.applied_count == 1)
    for child in children_of(process):
        assert b"_work_process" in seen_of(child)
        assert SECRET.encode() not in seen_of(child)
    process.send_signal(signal.SIGTERM)
    assert (await process.wait()).code == 0


async def test_a_bug_ends_it_so_that_another_one_can_take_its_place(
    cli: Cli, sandbox: Sandbox, outbox: str
) -> None:
    work = Work(
        WorkerSettings(
            client=ClientSettings(
                base_url=sandbox.url,
                credentials={"PRINTOS_KEY": "cli-key", "PRINTOS_SECRET": SECRET},
                timeout_s=10,
                max_in_flight=64,
                max_attempts=1,
                insecure_http=False,
            ),
            outbox=outbox,
            lease_s=30,
            pusher={},
            drain_timeout_s=25,
        )
    )
    working = asyncio.create_task(work.run(asyncio.Event()))
    await put(cli, line("dev-1", 1))
    await sandbox.wait_for(lambda: sandbox.applied_count == 1)
    assert work._pusher is not None
    work._pusher._engine.fail(RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        await working


async def test_a_line_of_state_is_said_now_and_then(cli: Cli, sandbox: Sandbox, outbox: str) -> None:
    await put(cli, line("dev-1", 1))
    process = await cli.start("worker", "--state-every", "0.1")
    said = await read_complaint(process, "1 sent")
    assert "in flight" in said
    assert "pending" in said
    process.send_signal(signal.SIGTERM)
    ended = await process.wait()
    assert ended.code == 0
    assert ended.out.startswith("1 sent, 0 replaced by newer ones, 0 failed in ")


async def test_a_status_that_is_refused_is_said_and_listed(cli: Cli, sandbox: Sandbox, outbox: str) -> None:
    await put(cli, line("nobody", 1))
    process = await cli.start("worker", "--json")
    assert "404 Not Found" in await read_complaint(process, "device nobody")
    process.send_signal(signal.SIGTERM)
    ended = await process.wait()
    assert (ended.code, ended.json["failed"]) == (0, 1)
    letters = (await cli.run("outbox", "failed", "--json")).json["failed"]
    assert [letter["deviceId"] for letter in letters] == ["nobody"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--outbox", "mysql://x:pass-5f1e@host/x"], ""),
        (["--outbox", "mysql://x:pass-5f1e@host/x", "--processes", "2"], ""),
        (["--drain-timeout", "nan"], "--drain-timeout must be a number"),
        (["--ambiguity", "inf", "--processes", "2"], "ambiguity_s must be a number"),
        (["--base-url", "ftp://host"], "--base-url"),
        (["--processes", "0"], "--processes"),
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

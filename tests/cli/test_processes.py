from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from printos_async import DeviceStatusUpdate, StatusPush
from printos_async.cli._senders import Senders
from printos_async.cli.input.records import line_of
from printos_async.cli.options.client import ClientSettings
from printos_async.cli.report.counts import Tally
from printos_async.sandbox import Faults, Sandbox

from .conftest import children_of, seen_of, wait_for_end

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .conftest import Cli

SECRET = "cli-secret-5f1e"
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def line(device_id: str, pages_total: int = 1) -> str:
    record = {"deviceId": device_id, "status": "DS_ON", "metrics": {"pagesTotal": pages_total}}
    return json.dumps(record) + "\n"


def pages(sandbox: Sandbox, device_id: str) -> list[int]:
    return [
        write.status["metrics"]["pagesTotal"] for write in sandbox.applied if write.device_id == device_id
    ]


def has(sandbox: Sandbox, device_id: str, number: int) -> bool:
    return pages(sandbox, device_id) == [number]


@pytest.fixture
def fleet(sandbox: Sandbox) -> list[str]:
    devices = [f"fleet-{number}" for number in range(40)]
    for device_id in devices:
        sandbox.add_device(device_id)
    return devices


async def test_every_device_gets_its_statuses_in_order(cli: Cli, sandbox: Sandbox, fleet: list[str]) -> None:
    content = "".join(line(device_id, number) for number in range(50) for device_id in fleet)
    ended = await cli.run("push", cli.file("s.jsonl", content), "--processes", "3", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert ended.json["statuses"] == ended.json["sent"] + ended.json["superseded"] == 50 * len(fleet)
    for device_id in fleet:
        assert pages(sandbox, device_id) == sorted(pages(sandbox, device_id))
        assert pages(sandbox, device_id)[-1] == 49
    assert all(at_once <= 1 for at_once in sandbox.max_in_flight_by_device.values())


async def test_standard_input_is_sent_while_its_writer_still_writes(cli: Cli, sandbox: Sandbox) -> None:
    process = await cli.start("push", "-", "--processes", "2", "--json")
    for number in (1, 2, 3):
        await process.write(line(f"dev-{number}", number).encode())
        await sandbox.wait_for(partial(has, sandbox, f"dev-{number}", number))
    ended = await process.wait(line("dev-1", 9).strip().encode())
    assert (ended.code, ended.json["sent"]) == (0, 4)
    assert pages(sandbox, "dev-1") == [1, 9]


async def test_csv_bad_lines_and_failures_are_accounted_for_as_by_one_process(
    cli: Cli, sandbox: Sandbox
) -> None:
    rows = ["deviceId,pagesTotal", "dev-1,1", "dev-2,x", "nobody-1,5", "dev-2,2", "nobody-2,6"]
    file = cli.file("s.csv", "\n".join(rows))
    accounts, kept = [], []
    for processes in (1, 2):
        failures = cli.folder / f"failures-{processes}.jsonl"
        ended = await cli.run("push", file, "--processes", processes, "--json", "--failures", failures)
        assert ended.code == 1
        assert "s.csv, line 3: pagesTotal" not in ended.out
        account = ended.json
        del account["elapsedS"]
        account["failures"].sort(key=lambda failure: failure["deviceId"])
        accounts.append((account, sorted(ended.err.splitlines())))
        kept.append(sorted(failures.read_text().splitlines()))
    assert accounts[0] == accounts[1]
    assert accounts[0][0]["errors"] == {"NotFoundError": 2}
    assert kept[0] == kept[1]
    assert len(kept[0]) == 2


async def test_faults_are_tried_again_and_counted(cli: Cli, sandbox: Sandbox) -> None:
    sandbox.set_faults(Faults(retry_after="0"))
    sandbox.inject("rate_limited", device_id="dev-1")
    sandbox.inject("reset_before", device_id="dev-2")
    sandbox.inject("reset_after", device_id="dev-3")
    file = cli.file("s.jsonl", "".join(line(f"dev-{number}", number) for number in (1, 2, 3)))
    ended = await cli.run("push", file, "--processes", "2", "--json")
    assert (ended.code, ended.json["sent"], ended.json["retries"]) == (0, 3, 3)


async def test_strict_and_dry_run_check_before_any_process_sends(cli: Cli, sandbox: Sandbox) -> None:
    file = cli.file("s.jsonl", line("dev-1") + "{")
    for option in ("--strict", "--dry-run"):
        ended = await cli.run("push", file, option, "--processes", "2", "--json")
        assert (ended.code, ended.json["sent"], ended.json["badLines"]) == (1, 0, 1)
    assert sandbox.request_count == 0


async def test_requests_in_flight_are_shared_out(cli: Cli, sandbox: Sandbox, fleet: list[str]) -> None:
    await sandbox.block()
    content = "".join(line(device_id) for device_id in fleet)
    process = await cli.start("push", "-", "--processes", "2", "--max-in-flight", "5", "--json")
    await process.write(content.encode())
    await sandbox.wait_for(lambda: sandbox.in_flight == 5)
    await sandbox.release()
    ended = await process.wait(b"")
    assert (ended.code, ended.json["sent"]) == (0, len(fleet))
    assert sandbox.max_concurrency == 5


async def test_following_is_refused(cli: Cli, sandbox: Sandbox) -> None:
    ended = await cli.run("push", "--follow", "-", "--processes", "2")
    assert (ended.code, ended.out) == (2, "")
    assert "leave --processes out" in ended.err


async def test_reading_is_not_ahead_of_sending(sandbox: Sandbox) -> None:
    settings = ClientSettings(
        base_url=sandbox.url,
        credentials={"PRINTOS_KEY": "cli-key", "PRINTOS_SECRET": SECRET},
        timeout_s=10,
        max_in_flight=64,
        max_attempts=1,
        insecure_http=False,
    )
    tally = Tally(failures=None, stop=asyncio.Event())
    ahead = 0
    status = DeviceStatusUpdate(status="x" * 2_000)

    async def lines() -> AsyncGenerator[tuple[str, bytes], None]:
        nonlocal ahead
        for number in range(6_000):
            push = StatusPush(f"nobody-{number}", status)
            tally.on_handed_over(push)
            ahead = max(ahead, tally.open_devices)
            yield push.device_id, line_of(push).rstrip()
            if number % 8 == 7:  # about as much as one read brings for one process
                await asyncio.sleep(0)

    problems: list[str] = []
    await Senders(settings.parts(2), tally, on_death=problems.append).run(lines())
    assert (problems, tally.failed, tally.open_devices) == ([], 6_000, 0)
    # In each process 1,024, and some hundred kilobytes in pipes and buffers.
    assert ahead < 4_500


@linux_only
async def test_no_secret_is_in_arguments_or_environment_of_a_process(
    cli: Cli, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PRINTOS_SECRET")
    secret = cli.file("secret", SECRET)
    process = await cli.start(
        "push", "-", "--processes", "2", "--json", "--secret-file", secret, "--key", "cli-key"
    )
    await process.write(line("dev-1").encode())
    await sandbox.wait_for(lambda: sandbox.applied_count == 1)
    children = children_of(process)
    assert len(children) == 2
    for child in children:
        assert b"_sender" in seen_of(child)
        assert SECRET.encode() not in seen_of(child)
    assert (await process.wait(b"")).code == 0


@posix_only
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_to_all_processes_ends_reading_and_what_was_read_arrives(
    cli: Cli, sandbox: Sandbox, number: signal.Signals, code: int
) -> None:
    await sandbox.block()
    process = await cli.start("push", "-", "--processes", "2", "--json", "--max-in-flight", "2")
    await process.write("".join(line(f"dev-{number}", number) for number in (1, 2, 3)).encode())
    await sandbox.wait_for(lambda: sandbox.in_flight >= 1)
    for child in children_of(process):
        os.kill(child, number)
    process.send_signal(number)
    assert process.process.stderr is not None
    await sandbox.release()
    ended = await process.wait_without_closing_input()
    assert ended.code == code
    assert (ended.json["sent"], ended.json["unsent"], ended.json["stoppedBy"]) == (3, 0, number.name)
    assert sandbox.applied_count == 3


@posix_only
async def test_a_second_signal_ends_all_processes_and_keeps_what_was_not_sent(
    cli: Cli, sandbox: Sandbox
) -> None:
    await sandbox.block()
    failures = cli.folder / "failures.jsonl"
    process = await cli.start("push", "-", "--processes", "2", "--json", "--failures", failures)
    await process.write("".join(line(f"dev-{number}", number) for number in (1, 2, 3)).encode())
    await sandbox.wait_for(lambda: sandbox.in_flight == 3)
    children = children_of(process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    ended = await process.wait_without_closing_input()
    assert ended.code in {130, 143}
    assert (ended.json["sent"], ended.json["unsent"], ended.json["problem"]) == (0, 3, None)
    assert len(failures.read_text().splitlines()) == 3
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)
    await sandbox.release()


@linux_only
async def test_a_process_that_dies_is_told_of_and_its_statuses_are_kept(
    cli: Cli, sandbox: Sandbox, fleet: list[str]
) -> None:
    failures = cli.folder / "failures.jsonl"
    process = await cli.start("push", "-", "--processes", "2", "--json", "--failures", failures)
    await process.write(line("dev-1").encode())
    await sandbox.wait_for(lambda: sandbox.applied_count == 1)
    await sandbox.block()
    await process.write("".join(line(device_id) for device_id in fleet).encode())
    await sandbox.wait_for(lambda: sandbox.in_flight == len(fleet))
    os.kill(children_of(process)[0], signal.SIGKILL)
    await sandbox.wait_for(lambda: sandbox.in_flight < len(fleet))
    await sandbox.release()
    ended = await process.wait_without_closing_input()  # nothing more is read, for it could not be sent
    kept = {json.loads(text)["deviceId"] for text in failures.read_text().splitlines() if text.strip()}
    assert ended.code == 1
    assert 0 < len(kept) < len(fleet)
    assert (ended.json["sent"], ended.json["unsent"]) == (1 + len(fleet) - len(kept), len(kept))
    assert "was ended by SIGKILL" in ended.json["problem"]
    assert f"the statuses of {len(kept)} devices have no outcome: " in ended.json["problem"]
    assert ended.json["problem"] in ended.err


@linux_only
async def test_processes_finish_what_they_have_when_the_reading_one_is_killed(
    cli: Cli, sandbox: Sandbox
) -> None:
    await sandbox.block()
    process = await cli.start("push", "-", "--processes", "2", stderr=asyncio.subprocess.DEVNULL)
    await process.write("".join(line(f"dev-{number}", number) for number in (1, 2, 3)).encode())
    await sandbox.wait_for(lambda: sandbox.in_flight == 3)
    children = children_of(process)
    process.process.kill()
    await process.process.wait()
    await sandbox.release()
    await sandbox.wait_for(lambda: sandbox.applied_count == 3)
    for child in children:
        await asyncio.to_thread(wait_for_end, child)

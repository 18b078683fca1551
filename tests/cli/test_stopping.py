from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from printos_async.sandbox import Sandbox

    from .conftest import Cli

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


def line(device_id: str, pages_total: int) -> bytes:
    record = {"deviceId": device_id, "status": "DS_ON", "metrics": {"pagesTotal": pages_total}}
    return json.dumps(record).encode() + b"\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_ends_reading_and_what_is_in_flight_arrives(
    cli: Cli, sandbox: Sandbox, number: signal.Signals, code: int
) -> None:
    await sandbox.block()
    process = await cli.start("push", "-", "--json")
    await process.write(line("dev-1", 1) + line("dev-2", 2))
    await sandbox.wait_for(lambda: sandbox.in_flight == 2)
    process.send_signal(number)
    await sandbox.release()
    ended = await process.wait_without_closing_input()
    assert ended.code == code
    assert (ended.json["sent"], ended.json["unsent"], ended.json["stoppedBy"]) == (2, 0, number.name)
    assert "stopped by" in ended.err
    assert sandbox.applied_count == 2


async def test_a_second_signal_gives_up_and_keeps_what_was_not_sent(cli: Cli, sandbox: Sandbox) -> None:
    await sandbox.block()
    failures = cli.folder / "failures.jsonl"
    process = await cli.start("push", "-", "--json", "--failures", failures, "--max-in-flight", "1")
    await process.write(line("dev-1", 1))
    await sandbox.wait_for(lambda: sandbox.in_flight == 1)
    await process.write(line("dev-2", 2) + line("dev-1", 3))
    # The third line is taken after the second, and a bad line shows that both were.
    await process.write(b"bad\n")
    assert process.process.stderr is not None
    assert b"line 4" in await process.process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    ended = await process.wait_without_closing_input()
    assert ended.code in {130, 143}  # whichever of the two signals the system delivered first
    assert (ended.json["sent"], ended.json["unsent"]) == (0, 3)
    kept = [json.loads(text) for text in failures.read_text().splitlines() if text.strip()]
    assert {item["deviceId"]: item["metrics"]["pagesTotal"] for item in kept} == {"dev-1": 3, "dev-2": 2}
    await sandbox.release()


async def test_the_sandbox_runs_until_it_is_told_to_stop(cli: Cli) -> None:
    process = await cli.start(
        "sandbox", "--port", "0", "--key", "k 1", "--secret-env", "MINE", MINE="very-secret"
    )
    first = await process.read_line()
    process.send_signal(signal.SIGTERM)
    ended = await process.wait()
    assert first.startswith("PrintOS sandbox at http://127.0.0.1:")
    assert ended.code == 0
    assert "export PRINTOS_KEY='k 1'\n  export PRINTOS_SECRET=\"$MINE\"" in ended.out
    assert "very-secret" not in first + ended.out + ended.err


@pytest.mark.parametrize(("host", "count"), [("0.0.0.0", 1), ("127.0.0.1", 0), ("localhost", 0)])
async def test_a_sandbox_that_other_machines_reach_is_warned_of(cli: Cli, host: str, count: int) -> None:
    process = await cli.start("sandbox", "--port", "0", "--host", host, "--json")
    url = json.loads(await process.read_line())["url"]
    process.send_signal(signal.SIGTERM)
    ended = await process.wait()
    *warnings, stopped = ended.err.splitlines()
    assert (ended.code, len(warnings)) == (0, count)
    assert "stopped after" in stopped
    for warning in warnings:
        assert warning.startswith(
            f"printos: warning: {url} can be reached from other machines, without encryption"
        )


async def test_a_client_can_be_pointed_at_the_sandbox_that_was_started(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await cli.start("sandbox", "--port", "0", "--key", "k", "--json", PRINTOS_SECRET="very-secret")
    url = json.loads(await server.read_line())["url"]
    monkeypatch.setenv("PRINTOS_SECRET", "very-secret")
    ended = await cli.run("devices", "provision", "--model", "M", "--base-url", url, "--key", "k")
    assert (ended.code, ended.err) == (0, "")
    monkeypatch.setenv("PRINTOS_SECRET", "another")
    refused = await cli.run("devices", "list", "--base-url", url, "--key", "k")
    assert refused.code == 1
    assert "401" in refused.err
    server.send_signal(signal.SIGINT)
    assert (await server.wait()).code == 0

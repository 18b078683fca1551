from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from printos_async import DeviceStatusUpdate, HmacAuth, PrintOSClient, RetryPolicy
from printos_async.cli.demo.faulty import FaultyDemo
from printos_async.cli.demo.report import DemoReport
from printos_async.cli.demo.run import Demo
from printos_async.sandbox import Faults, Sandbox

if TYPE_CHECKING:
    from .conftest import Cli


async def test_the_demo_pushes_a_fleet_and_finds_all_well(cli: Cli) -> None:
    ended = await cli.run("demo", "--devices", "20", "--rounds", "3", "--json")
    report = ended.json
    assert (ended.code, report["ok"], report["problems"]) == (0, True, [])
    assert (report["devices"], report["statuses"], report["failed"]) == (20, 20 * 3 * 3, 0)
    assert report["sent"] + report["superseded"] == report["statuses"]
    assert report["superseded"] > 0
    assert 0 < report["latencyS"]["p50"] <= report["latencyS"]["p95"] <= report["latencyS"]["p99"]


async def test_the_demo_withstands_faults(cli: Cli) -> None:
    ended = await cli.run("demo", "--devices", "30", "--rounds", "1", "--faults", "--seed", "4", "--json")
    report = ended.json
    assert (ended.code, report["problems"]) == (0, [])
    assert report["retries"] > 0
    assert (report["sent"] + report["superseded"], report["failed"]) == (report["statuses"], 0)
    assert {"server_error", "rate_limited"} <= set(report["faults"])
    assert report["engine"]["lateWrites"] == report["faults"].get("late_write", 0)
    assert report["engine"]["circuitOpened"] >= 1
    assert report["engine"]["limit"]["fewest"] >= 1
    # The revoked key: what was in flight, at most one request of each device, and a probe each second.
    assert (report["engine"]["accountHeld"], report["engine"]["accountResumed"]) == (1, 1)
    assert 1 <= report["engine"]["refused"] <= 30 + 5


async def test_the_demo_shows_older_writes_that_landed_late_and_how_the_devices_came_right(cli: Cli) -> None:
    ended = await cli.run("demo", "--devices", "20", "--rounds", "1", "--faults", "--json")
    assert (ended.code, ended.json["problems"]) == (0, [])
    assert ended.json["engine"]["overwritten"] > 0
    assert ended.json["engine"]["reasserted"] > 0


async def test_an_older_status_that_stays_is_found_out_under_faults_too() -> None:
    demo = FaultyDemo(devices=12, rounds=1, seed=0)
    async with Sandbox(hmac_keys=dict([demo.key])) as sandbox:
        retry = RetryPolicy(base_delay_s=0.01, max_delay_s=2.0)
        auth = HmacAuth(*demo.key)
        async with PrintOSClient(sandbox.url, auth=auth, retry=retry, hooks=[demo.on_event]) as client:
            report = await demo.run_against(sandbox, client)
            assert report.problems == []
            assert report.events["CircuitOpened"] >= 1
            [device_id, *_] = sandbox.devices
            old = DeviceStatusUpdate.from_dict({"status": "DS_ON", "metrics": {"pagesTotal": 1}})
            sandbox.set_faults(Faults())
            await client.update_device_status(device_id, old)
        demo.check(sandbox)
    assert f"1 not at their newest status: {device_id} has report 1, not 3" in report.problems
    assert f"1 went back to an older status: {device_id}: report 1 after 3" in report.problems


async def test_the_demo_without_json_is_for_people(cli: Cli) -> None:
    ended = await cli.run("demo", "--devices", "2", "--rounds", "1")
    assert ended.code == 0
    assert "newest status" in ended.out
    for word in ("rate", "latency", "p99", "retries", "coalesced"):
        assert word in ended.out
    assert "reasserted" not in ended.out


async def test_the_demo_with_faults_tells_people_what_the_pusher_did(cli: Cli) -> None:
    ended = await cli.run("demo", "--devices", "20", "--rounds", "1", "--faults")
    assert ended.code == 0
    for word in (
        "newest status",
        "too late",
        "reasserted",
        "limit",
        "circuit    opened",
        "key        revoked for a moment: ",
        "the account was held, its statuses waited, and it resumed",
        "coalesced",
        "retries",
    ):
        assert word in ended.out


async def test_a_server_that_ends_with_an_older_status_is_found_out() -> None:
    async with Sandbox(hmac_keys={"demo": "s"}) as sandbox:
        demo = Demo(devices=3, rounds=2, faults=Faults())
        auth = HmacAuth("demo", "s")
        async with PrintOSClient(sandbox.url, auth=auth, hooks=[demo.on_event]) as client:
            report = await demo.run_against(sandbox, client)
            assert report.problems == []
            [device_id, *_] = sandbox.devices
            old = DeviceStatusUpdate.from_dict({"status": "DS_ON", "metrics": {"pagesTotal": 1}})
            await client.update_device_status(device_id, old)
        demo.check(sandbox)
    assert len(report.problems) == 2
    assert f"1 not at their newest status: {device_id} has report 1, not 6" in report.problems
    assert f"1 went back to an older status: {device_id}: report 1 after 6" in report.problems


async def test_the_demo_counts_one_device_and_one_round(cli: Cli) -> None:
    ended = await cli.run("demo", "--devices", "1", "--rounds", "1")
    assert ended.code == 0
    assert "registering 1 device at " in ended.err
    assert "pushing 1 round of 3 statuses\n" in ended.err
    report = DemoReport(seed=0, requests=1, late_writes=1, limits=[1])
    report.events["StatusReasserted"] = 1
    text = "\n".join(report.lines())
    for part in ("0 of 1 request\n", "1 write, 0 of", "1 newest status was sent", "1 request in flight"):
        assert part in text


def test_percentiles_are_by_nearest_rank() -> None:
    report = DemoReport(seed=0, latencies_s=[number / 1000 for number in range(1, 101)])
    assert [report.latency_s(percent) for percent in (50, 95, 99, 100)] == [0.05, 0.095, 0.099, 0.1]
    assert DemoReport(seed=0).latency_s(50) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
def test_progress_is_shown_on_a_terminal() -> None:
    controller, terminal = pty.openpty()
    program = "from printos_async.cli import main; raise SystemExit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "demo", "--devices", "5", "--rounds", "1", "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(terminal)
    seen = b""
    try:
        while True:
            try:
                chunk = os.read(controller, 4096)
            except OSError:  # the other side is closed
                break
            if not chunk:
                break
            seen += chunk
        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
        os.close(controller)
    assert process.returncode == 0
    assert out.startswith(b'{"ok": true')
    assert re.search(rb"100%.*statuses/s", seen)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--latency", "inf"], "--latency must be a number, not inf"),
        (["--clock-offset", "1e300"], "'--clock-offset': 1e+300 is not in the range"),
        (["--clock-offset", "-4e8"], "'--clock-offset': -400000000.0 is not in the range"),
        (["--clock-offset", "nan"], "--clock-offset must be a number, not nan"),
        (["--latency", "2", "--latency-max", "1"], "--latency-max must not be less than --latency"),
        (["--key", "k"], "PRINTOS_SECRET is not set; it must hold the secret to check"),
        (["--login", "l"], "PRINTOS_PASSWORD is not set; it must hold the password to check"),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1:8000: "),
        (["--host", "\udcff"], "cannot listen on \\udcff:8000: "),
    ],
)
async def test_a_sandbox_that_cannot_run_names_the_option(
    cli: Cli, options: list[str], complaint: str
) -> None:
    ended = await cli.run("sandbox", *options)
    assert (ended.code, ended.out) == (2, "")
    assert complaint in ended.err

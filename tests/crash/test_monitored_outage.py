"""A worker's health and metrics through an outage of the host that lasts longer than a supervisor's patience."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from printos_async.sandbox import Sandbox
from tests.cli.conftest import Cli
from tests.cli.probe import Probe, lines

from .children import long_only
from .worker import KEY, SECRET

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [long_only, pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")]
OUTAGE_S = 30.0
DEVICES = tuple(f"press-{number}" for number in range(200))
UNKNOWN = "not-registered"


async def put(cli: Cli, *device_ids: str) -> None:
    ended = await cli.run("push", cli.file("put.jsonl", lines(*device_ids)), "--spool", "--json")
    assert (ended.code, ended.json["accepted"]) == (0, len(device_ids))


async def test_a_worker_is_live_and_not_ready_through_an_outage_and_its_counters_equal_its_report(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli = Cli(capsys, tmp_path)
    async with Sandbox(hmac_keys={KEY: SECRET}) as sandbox:
        for device_id in DEVICES:
            sandbox.add_device(device_id)
        monkeypatch.setenv("PRINTOS_BASE_URL", sandbox.url)
        monkeypatch.setenv("PRINTOS_KEY", KEY)
        monkeypatch.setenv("PRINTOS_SECRET", SECRET)
        monkeypatch.setenv("PRINTOS_OUTBOX", f"sqlite+aiosqlite:///{tmp_path / 'spool.db'}")
        process = await cli.start("worker", "--listen", "127.0.0.1:0", "--json")
        try:
            probe = await Probe.of(process)
            await put(cli, *DEVICES)
            await sandbox.wait_for(lambda: sandbox.applied_count == len(DEVICES))
            await probe.is_ready()

            await sandbox.stop()
            ends_s = time.monotonic() + OUTAGE_S
            await put(cli, *DEVICES, UNKNOWN)
            await probe.is_unready("circuit_open")
            pending = f"printos_statuses_pending {len(DEVICES) + 1}.0\n"
            await probe.wait_for("/metrics", lambda page: pending in page.text)
            await put(cli, *DEVICES)  # replaces what waits
            while time.monotonic() < ends_s:
                live, ready = await probe.get("/livez"), await probe.get("/readyz")
                assert (live.code, ready.code, list(ready.reasons)) == (200, 503, ["circuit_open"])
                await asyncio.sleep(0.2)

            await sandbox.start()
            await probe.is_ready()
            await sandbox.wait_for(lambda: sandbox.applied_count == 2 * len(DEVICES))
            ends = ('outcome="failed"} 1.0', "printos_statuses_pending 0.0")
            await probe.wait_for("/metrics", lambda page: all(end in page.text for end in ends))
            await probe.is_ready()
            metrics = await probe.samples()
            process.send_signal(signal.SIGTERM)
            ended = await process.wait()
        finally:
            await cli.end_all()

    report = ended.json
    assert (ended.code, report["sent"], report["failed"], report["unfinished"]) == (0, 2 * len(DEVICES), 1, 0)
    assert report["superseded"] == len(DEVICES)
    for outcome in ("sent", "superseded", "failed"):
        assert metrics[f"printos_statuses_total outcome={outcome}"] == report[outcome]
    assert metrics["printos_statuses_accepted_total"] == sum(
        report[outcome] for outcome in ("sent", "superseded", "failed")
    )
    assert metrics["printos_request_retries_total"] == report["retries"]
    durations = "printos_request_duration_seconds_count"
    requests = {
        code: metrics[f"{durations} code={code} operation=updateDeviceStatus"] for code in (200, 404, "none")
    }
    assert sum(value for key, value in metrics.items() if key.startswith(durations)) == sum(requests.values())
    assert (requests[200], requests[404]) == (report["sent"], 1)
    assert requests[200] + requests[404] == sandbox.request_count
    # Every request that got no answer was followed by another one.
    assert requests["none"] == report["retries"]

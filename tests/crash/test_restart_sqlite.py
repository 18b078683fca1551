"""SIGKILL of a process with a long lease on a SQLite file: the next one sends at once what it held."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from attrs import evolve

from .children import LONG, Fleet, long_only

if TYPE_CHECKING:
    from printos_async.sandbox import Sandbox

    from .worker import Settings

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")
KILLS = 200 if LONG else 2
LINES = 60
LEASE_S = 30.0
STOPPED_LEASE_S = 4.0
# From when the next process is ready, for the start of Python takes as long as other work on the machine lets it. The
# short form runs beside other tests.
WITHIN_S = 3.0 if LONG else LEASE_S / 2


def held_devices(settings: Settings) -> set[str]:
    """Return the devices with a waiting status that a worker owns."""
    path = Path(settings.outbox.partition(":///")[2])
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT device_id FROM printos_outbox WHERE owner IS NOT NULL AND seq > done_seq"
        )
        return {device_id for (device_id,) in rows}


async def request_comes(sandbox: Sandbox, devices: set[str], since: int) -> float:
    """Return when one of the devices was first sent for after so many requests."""

    def found() -> list[float]:
        return [request.at_s for request in sandbox.requests[since:] if request.device_id in devices]

    await sandbox.wait_for(lambda: bool(found()), timeout_s=2 * LEASE_S)
    return found()[0]


@pytest.mark.parametrize("consistency", [pytest.param("strict", marks=long_only), "eventual"])
async def test_a_restarted_process_sends_at_once_what_the_killed_one_held(
    late_sandbox: Sandbox, sqlite_settings: Settings, consistency: Literal["strict", "eventual"]
) -> None:
    chance = random.Random(7)
    settings = evolve(sqlite_settings, lease_s=LEASE_S, consistency=consistency)
    limit_s = WITHIN_S + (settings.ambiguity_s if consistency == "strict" else 0.0)
    took_s: list[float] = []
    async with Fleet(late_sandbox, settings) as fleet:
        worker = await fleet.start(count=1_000, pause_s=0.01)
        while len(took_s) < KILLS:
            await worker.says("accepted", chance.randrange(20, LINES))
            await worker.kill()
            held = await asyncio.to_thread(held_devices, settings)
            # It puts newer statuses for these devices as well, which are not sent either until they are taken over.
            worker = await fleet.start(count=1_000, pause_s=0.01)
            since = len(late_sandbox.requests)  # those of the killed process have been read by now
            await worker.says("ready")
            ready_s = time.monotonic()
            if held:
                took_s.append(await request_comes(late_sandbox, held, since) - ready_s)
        await worker.kill()
        await (await fleet.start(devices=(), stay=True)).says("ready")
        await fleet.everything_arrives()
        await fleet.workers[-1].finish()
        await late_sandbox.wait_for(lambda: late_sandbox.pending_late_writes == 0)
        fleet.verify(strict=consistency == "strict")
    assert max(took_s) <= limit_s


@long_only
async def test_a_stopped_process_is_not_taken_over_before_its_lease_ends(
    late_sandbox: Sandbox, sqlite_settings: Settings
) -> None:
    settings = evolve(sqlite_settings, lease_s=STOPPED_LEASE_S, consistency="eventual")
    async with Fleet(late_sandbox, settings) as fleet:
        worker = await fleet.start(count=1_000, pause_s=0.01)
        other = await fleet.start(devices=(), stay=True)
        await other.says("ready")
        held: set[str] = set()
        while not held:
            worker.signal(signal.SIGCONT)
            await worker.says("accepted", worker.lines["accepted"] + 20)
            worker.signal(signal.SIGSTOP)
            # Renewed four times in its length, it runs for three quarters of it at least.
            not_before_s = time.monotonic() + STOPPED_LEASE_S / 2
            await late_sandbox.wait_for(lambda: late_sandbox.in_flight == 0)
            held = await asyncio.to_thread(held_devices, settings)
        since = len(late_sandbox.requests)
        assert await request_comes(late_sandbox, held, since) >= not_before_s

"""SIGKILL of the process that puts and sends on a SQLite file, again and again."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Literal

import pytest
from attrs import evolve

from printos_async.sandbox import Sandbox

from .children import LONG, Fleet
from .conftest import DEVICES, settings_of
from .worker import KEY, SECRET

if TYPE_CHECKING:
    from pathlib import Path

    from .worker import Settings

KILLS = 200 if LONG else 3
LINES, PAUSE_S = 150, 0.3
REFUSED_KILLS = 60 if LONG else 2


@pytest.mark.parametrize("consistency", ["strict", "eventual"])
async def test_what_was_accepted_arrives_however_often_the_process_is_killed(
    late_sandbox: Sandbox, sqlite_settings: Settings, consistency: Literal["strict", "eventual"]
) -> None:
    chance = random.Random(7)
    settings = evolve(sqlite_settings, consistency=consistency)
    async with Fleet(late_sandbox, settings) as fleet:
        for _ in range(KILLS):
            worker = await fleet.start(count=1_000, pause_s=0.01)
            await worker.says("accepted", chance.randrange(LINES))
            await asyncio.sleep(
                chance.uniform(0.0, PAUSE_S)
            )  # the moment is random, and nothing waits for it
            await worker.kill()
            assert worker.lines["refused"] == 0
        await (await fleet.start(stay=True)).says("ready")
        await fleet.everything_arrives()
        worker = fleet.workers[-1]
        await worker.finish()
        await late_sandbox.wait_for(lambda: late_sandbox.pending_late_writes == 0)
        fleet.verify(strict=consistency == "strict")
    assert len(fleet.accepted) == len(settings.devices)


async def test_what_was_accepted_arrives_though_credentials_are_refused_while_the_process_is_killed(
    tmp_path: Path,
) -> None:
    async with Sandbox(hmac_keys={KEY: SECRET}, record_limit=1_000_000) as sandbox:
        for device_id in DEVICES:
            sandbox.add_device(device_id)
        settings = settings_of(sandbox, f"sqlite+aiosqlite:///{tmp_path / 'spool.db'}")
        async with Fleet(sandbox, settings) as fleet:
            for _ in range(REFUSED_KILLS):
                sandbox.set_key(KEY, SECRET)
                worker = await fleet.start(count=1_000, pause_s=0.01)
                await worker.says("accepted", LINES)
                sandbox.set_key(KEY, "another secret")
                refused = unauthorized(sandbox)
                await sandbox.wait_for(lambda: unauthorized(sandbox) > refused)  # noqa: B023
                await worker.says("accepted", 3 * LINES)
                await worker.kill()
            worker = await fleet.start(devices=(), stay=True)
            await sandbox.wait_for(lambda: unauthorized(sandbox) > refused + 1)
            sandbox.set_key(KEY, SECRET)
            await fleet.everything_arrives()
            stats = await worker.finish()
            fleet.verify()
    assert (stats["failed"], stats["held_accounts"]) == (0, 0)


def unauthorized(sandbox: Sandbox) -> int:
    return sum(count for (_, _, status), count in sandbox.request_counts.items() if status == 401)

"""SIGKILL of the process that puts and sends on a SQLite file, again and again."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Literal

import pytest
from attrs import evolve

from .children import LONG, Fleet

if TYPE_CHECKING:
    from printos_async.sandbox import Sandbox

    from .worker import Settings

KILLS = 200 if LONG else 3
LINES, PAUSE_S = 150, 0.3


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

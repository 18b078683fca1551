"""SIGKILL of one of four processes that share a PostgreSQL database, and of the database server itself."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from .children import LONG, Fleet, long_only

if TYPE_CHECKING:
    from printos_async.sandbox import Sandbox
    from tests.postgres import PostgresServer

    from .worker import Settings

WORKERS = 4
ROUNDS = 200 if LONG else 2
ROUNDS_PER_SERVER_KILL = 4 if LONG else 2
LINES, PAUSE_S = 100, 0.3


@long_only
async def test_what_was_accepted_arrives_however_often_workers_and_server_are_killed(
    late_sandbox: Sandbox, postgres_settings: Settings, postgres_server: PostgresServer
) -> None:
    chance = random.Random(11)
    async with Fleet(late_sandbox, postgres_settings) as fleet:
        shares = [postgres_settings.devices[index::WORKERS] for index in range(WORKERS)]
        workers = [await fleet.start(devices=share, count=10_000, pause_s=0.01) for share in shares]
        for worker in workers:
            await worker.says("ready")
        for number in range(ROUNDS):
            index = chance.randrange(WORKERS)
            seen = workers[index].lines["accepted"]
            await workers[index].says("accepted", seen + chance.randrange(1, LINES))
            await asyncio.sleep(
                chance.uniform(0.0, PAUSE_S)
            )  # the moment is random, and nothing waits for it
            if number % ROUNDS_PER_SERVER_KILL == ROUNDS_PER_SERVER_KILL - 1:
                await asyncio.to_thread(postgres_server.kill)
                await asyncio.to_thread(postgres_server.start)
            else:
                await workers[index].kill()
                workers[index] = await fleet.start(devices=shares[index], count=10_000, pause_s=0.01)
        for worker in workers:
            await worker.says("accepted", worker.lines["accepted"] + 1)  # all of them work again
            await worker.kill()
        last = await fleet.start(devices=(), stay=True)
        await fleet.everything_arrives()
        await last.finish()
        await late_sandbox.wait_for(lambda: late_sandbox.pending_late_writes == 0)
        fleet.verify()
    assert len(fleet.accepted) == len(postgres_settings.devices)

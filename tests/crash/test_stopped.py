"""SIGSTOP of a worker for longer than its lease, and SIGCONT, while others go on."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from attrs import evolve

from .children import LONG, Fleet, long_only

if TYPE_CHECKING:
    from printos_async.sandbox import Sandbox

    from .worker import Settings

WORKERS = 3
STOPS = 100 if LONG else 2
# So many statuses are accepted from each of the others, and so many writes applied, while one is stopped.
ACCEPTED_MEANWHILE, APPLIED_MEANWHILE = 20, 50


@long_only
async def test_a_stopped_worker_overwrites_nothing_when_it_goes_on_and_nobody_waits_for_it(
    late_sandbox: Sandbox, postgres_settings: Settings
) -> None:
    settings = evolve(postgres_settings, lease_s=1.0, timeout_s=0.4)
    async with Fleet(late_sandbox, settings) as fleet:
        shares = [settings.devices[index::WORKERS] for index in range(WORKERS)]
        workers = [await fleet.start(devices=share, count=100_000, pause_s=0.005) for share in shares]
        for worker in workers:
            await worker.says("accepted", 10)
        for number in range(STOPS):
            stopped = workers[number % WORKERS]
            stopped.signal(signal.SIGSTOP)
            accepted = dict(fleet.accepted)
            others = [(worker, worker.lines["accepted"]) for worker in workers if worker is not stopped]
            enough = late_sandbox.applied_count + APPLIED_MEANWHILE
            for worker, lines in others:
                await worker.says("accepted", lines + ACCEPTED_MEANWHILE)
            await late_sandbox.wait_for(lambda: late_sandbox.applied_count >= enough)  # noqa: B023 - it is awaited at once
            # What it owned has been taken over, so its lease has ended.
            await fleet.everything_arrives(accepted)
            lines = stopped.lines["accepted"]
            stopped.signal(signal.SIGCONT)
            await stopped.says("accepted", lines + 10)
        for worker in workers:
            await worker.kill()
        last = await fleet.start(devices=(), stay=True)
        await fleet.everything_arrives()
        await last.finish()
        await late_sandbox.wait_for(lambda: late_sandbox.pending_late_writes == 0)
        fleet.verify()

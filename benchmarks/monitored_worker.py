"""Cost of ``--listen`` for a worker: CPU time for each status with and without it, scraped once a second.

    python benchmarks/monitored_worker.py --statuses 20000 --rounds 5

Each round measures both, in alternating order. The worker's CPU time is that between the first and the last status
that the server applied, as Linux reports it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import urllib.request
from contextlib import suppress
from pathlib import Path

from printos_async import DeviceStatusUpdate, HmacAuth, PrintOSClient
from printos_async.outbox import SqlOutbox
from printos_async.sandbox import Sandbox

KEY, SECRET = "key", "secret"
PROGRAM = "from printos_async.cli import main; raise SystemExit(main())"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Return the CPU time of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def scrape(url: str) -> None:
    """Read all metrics."""
    with urllib.request.urlopen(url) as answer:
        answer.read()


async def scrape_each_second(url: str) -> None:
    """Scrape until cancelled."""
    while True:
        await asyncio.to_thread(scrape, url)
        await asyncio.sleep(1)


async def measure(statuses: int, *, listens: bool) -> float:
    """Return the CPU time for one status, in microseconds."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite+aiosqlite:///{folder}/spool.db"
        async with Sandbox(hmac_keys={KEY: SECRET}, record=False) as sandbox:
            async with (
                PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET)) as client,
                client.spooler(SqlOutbox(url)) as spooler,
            ):
                for start in range(0, statuses, 1000):
                    devices = [f"dev-{number}" for number in range(start, min(start + 1000, statuses))]
                    for device in devices:
                        sandbox.add_device(device)
                    status = DeviceStatusUpdate(status="DS_ON")
                    await asyncio.gather(*(spooler.put(device, status) for device in devices))
            env = {"PRINTOS_BASE_URL": sandbox.url, "PRINTOS_KEY": KEY, "PRINTOS_SECRET": SECRET}
            options = ["--listen", "127.0.0.1:0"] if listens else []
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", PROGRAM, "worker", "--outbox", url, "--json", *options),
                env={**os.environ, **env},
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            scraping = None
            if listens and process.stderr is not None:
                said = (await process.stderr.readline()).decode()
                page = said.split()[5].removesuffix(":") + "/metrics"
                scraping = asyncio.create_task(scrape_each_second(page))
            await sandbox.wait_for(lambda: sandbox.applied_count > 0, timeout_s=60)
            first_s, first = cpu_s(process.pid), sandbox.applied_count
            await sandbox.wait_for(lambda: sandbox.applied_count >= statuses, timeout_s=600)
            last_s = cpu_s(process.pid)
            if scraping is not None:
                scraping.cancel()
                with suppress(asyncio.CancelledError):
                    await scraping
            process.terminate()
            await process.communicate()
        return (last_s - first_s) / (statuses - first) * 1e6


async def main(statuses: int, rounds: int) -> None:
    """Measure, and print each round and the median of the ratios."""
    ratios = []
    for number in range(rounds):
        order = (False, True) if number % 2 else (True, False)
        cost_us = {listens: await measure(statuses, listens=listens) for listens in order}
        ratios.append(cost_us[True] / cost_us[False])
        print(f"without {cost_us[False]:.1f} us, with --listen {cost_us[True]:.1f} us: {ratios[-1]:.3f}")
    print(f"median {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--statuses", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    asyncio.run(main(given.statuses, given.rounds))

"""Soak test: a pusher works through mixed faults for minutes, and nothing may grow or get lost.

``python -m benchmarks.soak`` warms up and then takes ten minutes, with ``--seconds 20`` less. It exits with 1 if
descriptors or tasks are left, memory grows, a device ends with a wrong status, or the outcomes do not add up.
``--million`` pushes a million statuses from an asynchronous iterator instead, and prints how much memory grew.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from printos_async import (
    ConcurrencyLimit,
    DeviceStatusUpdate,
    DeviceStatusUpdateMetrics,
    HmacAuth,
    PrintOSClient,
    RetryPolicy,
)
from printos_async.sandbox import Faults, Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DEVICES = 200
MIXED = Faults(
    latency_s=(0.0, 0.01),
    server_error=0.05,
    reset=0.05,
    truncated=0.02,
    rate_limited=0.001,
    retry_after="0",
    late_write=0.02,
    late_write_by_s=(0.0, 0.3),
)
# Until then caches, pools and the allocator's arenas fill. Not a time: a busy machine sends fewer in it.
_WARM_UP_REQUESTS = 8_000
_SAMPLE_EVERY_S = 0.5
_MAX_SLOPE_MIB = 1.0
_MAX_RISE_MIB = 64.0
_MAX_LAG_S = 0.05
_LONG_S = 60.0


def status(number: int) -> DeviceStatusUpdate:
    """Return a status that holds its number."""
    return DeviceStatusUpdate(status="DS_PRINTING", metrics=DeviceStatusUpdateMetrics(pages_total=number))


def resident_mib() -> float:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def descriptors() -> int:
    """Return the number of open descriptors of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class Watch:
    """Samples memory, descriptors, tasks and the event loop's lag."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float, int, int]] = []
        # Counted, because a list would grow, and its memory is measured.
        self._lags_ms: Counter[int] = Counter()

    async def run(self) -> None:
        """Sample until cancelled."""
        loop = asyncio.get_running_loop()
        next_sample_s = loop.time()
        while True:
            before_s = loop.time()
            await asyncio.sleep(0.01)
            self._lags_ms[round((loop.time() - before_s) * 1000) - 10] += 1
            if loop.time() >= next_sample_s:
                next_sample_s += _SAMPLE_EVERY_S
                self.samples.append((loop.time(), resident_mib(), descriptors(), len(asyncio.all_tasks())))

    def growth_mib(self) -> float:
        """Return the growth of memory over the second half, by linear regression."""
        half = self.samples[len(self.samples) // 2 :]
        times, sizes = [sample[0] for sample in half], [sample[1] for sample in half]
        return statistics.linear_regression(times, sizes).slope * (times[-1] - times[0])

    def lag_p99_s(self) -> float:
        """Return the 99th percentile of the event loop's lag."""
        seen, total = 0, self._lags_ms.total()
        for lag_ms in sorted(self._lags_ms):
            seen += self._lags_ms[lag_ms]
            if seen >= 0.99 * total:
                return lag_ms / 1000
        return 0.0


async def soak(seconds: float) -> list[str]:
    """Push through faults for a time; return what went wrong."""
    # One attempt in eight fails, so five in a row do so once in 40,000 statuses; none may be given up here.
    retry = RetryPolicy(max_attempts=20, base_delay_s=0.01, max_delay_s=1.0)
    watch = Watch()
    async with Sandbox(hmac_keys={"key": "secret"}, record=False, faults=MIXED) as sandbox:
        for device in range(DEVICES):
            sandbox.add_device(f"dev-{device}")
        limit = ConcurrencyLimit(minimum=16, maximum=64)
        async with PrintOSClient(
            sandbox.url, auth=HmacAuth("key", "secret"), retry=retry, limit=limit, timeout_s=2.0
        ) as client:
            before = descriptors(), len(asyncio.all_tasks())
            number = 0
            async with client.status_pusher(ambiguity_s=0.5) as pusher:

                async def put_all() -> None:
                    nonlocal number
                    number += 1
                    for device in range(DEVICES):
                        await pusher.put(f"dev-{device}", status(number))
                    await asyncio.sleep(0.05)

                while pusher.stats().requests < _WARM_UP_REQUESTS:
                    await put_all()
                watcher = asyncio.create_task(watch.run())
                ends_s = time.monotonic() + seconds
                while time.monotonic() < ends_s:
                    await put_all()
                stats = await pusher.drain(30)
                watcher.cancel()
            wrong = [device.id for device in sandbox.devices.values() if _number(device.status) != number]
        await sandbox.wait_for(lambda: not sandbox.open_connections or sandbox.in_flight == 0)
    gc.collect()
    after = descriptors(), len(asyncio.all_tasks())
    print(
        f"accepted {stats.accepted:,}, sent {stats.sent:,}, superseded {stats.superseded:,}, failed {stats.failed:,}"
    )
    print(
        f"requests {stats.requests:,}, pending {stats.pending}, circuit {stats.circuit}, limit {stats.limit}"
    )
    print(
        f"memory {watch.samples[0][1]:.1f} to {watch.samples[-1][1]:.1f} MiB, {watch.growth_mib():+.2f} in the second half"
    )
    print(f"descriptors {before[0]} to {after[0]}, tasks {before[1]} to {after[1]}")
    print(f"event loop's lag, 99th percentile: {watch.lag_p99_s() * 1000:.1f} ms")
    problems = {
        "a status was lost": stats.sent + stats.superseded + stats.failed != stats.accepted,
        f"{len(wrong)} devices ended wrong": bool(wrong) and not stats.failed,
        "descriptors are left": after[0] > before[0],
        "tasks are left": after[1] > before[1],
        "memory grows": watch.growth_mib() > _MAX_SLOPE_MIB,
        # A short run is a test, and a test is not timed.
        "the event loop lags": seconds >= _LONG_S and watch.lag_p99_s() > _MAX_LAG_S,
    }
    return [problem for problem, holds in problems.items() if holds]


def _number(applied: object) -> object:
    return applied["metrics"]["pagesTotal"] if isinstance(applied, dict) else None


async def million(number: int) -> list[str]:
    """Push a number of statuses from an asynchronous iterator; return what went wrong."""

    async def statuses(count: int) -> AsyncIterator[tuple[str, DeviceStatusUpdate]]:
        for index in range(count):
            yield f"dev-{index}", status(index)

    async with (
        _target() as url,
        PrintOSClient(
            url, auth=HmacAuth("key", "secret"), limit=ConcurrencyLimit(minimum=64, maximum=64)
        ) as client,
    ):
        await client.push_statuses(statuses(5_000))
        before_mib = resident_mib()
        watch = Watch()
        watcher = asyncio.create_task(watch.run())
        report = await client.push_statuses(statuses(number))
        watcher.cancel()
    rise_mib = max(sample[1] for sample in watch.samples) - before_mib
    print(
        f"sent {report.sent:,} at {number / report.elapsed_s:,.0f} statuses/s; memory rose by {rise_mib:.1f} MiB at most"
    )
    print(f"event loop's lag, 99th percentile: {watch.lag_p99_s() * 1000:.1f} ms")
    problems = {
        "not all were sent": report.sent != number,
        "memory rose too far": rise_mib > _MAX_RISE_MIB,
        "the event loop lags": watch.lag_p99_s() > _MAX_LAG_S,
    }
    return [problem for problem, holds in problems.items() if holds]


@asynccontextmanager
async def _target() -> AsyncIterator[str]:
    """Run the benchmarks' server on the other core, where it does not share memory or time."""
    command = (sys.executable, "-m", "benchmarks.server")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:  # noqa: ASYNC220  # starts at once
        assert server.stdout is not None
        port = await asyncio.to_thread(server.stdout.readline)
        try:
            yield f"http://127.0.0.1:{int(port)}"
        finally:
            await asyncio.to_thread(server.communicate)  # the end of its input ends it


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=600.0, help="how long to push after warming up (default: 600)"
    )
    parser.add_argument("--million", action="store_true", help="push a million statuses instead")
    arguments = parser.parse_args()
    problems = asyncio.run(million(1_000_000) if arguments.million else soak(arguments.seconds))
    for problem in problems:
        print(f"wrong: {problem}", file=sys.stderr)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()

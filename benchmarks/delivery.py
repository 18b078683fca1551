"""From ``put`` to the server's answer, through each outbox: ``python -m benchmarks.delivery``.

Memory and SQLite are measured in one process that puts and sends, pinned to a core of its own, without latency at the
server. PostgreSQL is measured with one process that only puts and four that send; they, the database and the server
share the machine. Every device gets one status in a round, so that nothing is coalesced. The outboxes take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from printos_async import (
    ConcurrencyLimit,
    DeviceStatusUpdate,
    DeviceStatusUpdateMetrics,
    HmacAuth,
    MemoryOutbox,
    PrintOSClient,
    SqlOutbox,
)
from tests.postgres import PostgresServer

from .loops import fastest_loop, loop_factory, pick_cores, pin_to
from .runner import running_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from printos_async import Outbox, StatusPusher

_IN_FLIGHT = 64
_PUTTERS = 256
_WORKERS = 4
_KINDS = ("memory", "sqlite", "postgres")
_LEAST = {"sqlite of memory": 0.5, "postgres": 3_000.0}


def _status(number: int) -> DeviceStatusUpdate:
    metrics = DeviceStatusUpdateMetrics(pages_total=number, ink_level=0.5)
    return DeviceStatusUpdate(status="DS_PRINTING", metrics=metrics)


@asynccontextmanager
async def _client(url: str) -> AsyncIterator[PrintOSClient]:
    limit = ConcurrencyLimit(minimum=_IN_FLIGHT, maximum=_IN_FLIGHT)
    async with PrintOSClient(url, auth=HmacAuth("key", "secret"), limit=limit) as client:
        yield client


async def _settled(pusher: StatusPusher) -> None:
    while pusher.stats().pending:  # noqa: ASYNC110 - nothing else is measured with it
        await asyncio.sleep(0.001)


async def _push(url: str, outbox: Outbox, statuses: int) -> float:
    """Put and send in this process; give statuses per second."""
    async with _client(url) as client, client.status_pusher(outbox=outbox) as pusher:
        numbers = iter(range(-_PUTTERS, statuses))

        async def putter(until: int) -> None:
            for number in numbers:
                await pusher.put(f"dev-{number}", _status(abs(number)))
                if number == until:
                    return

        await putter(-1)  # opens connections
        await _settled(pusher)
        started = time.perf_counter()
        await asyncio.gather(*(putter(statuses) for _ in range(_PUTTERS)))
        await _settled(pusher)
        return statuses / (time.perf_counter() - started)


async def _spool(url: str, database: str, statuses: int) -> float:
    """Put here and send in four other processes; give statuses per second."""
    command = [sys.executable, "-m", "benchmarks.delivery", "--worker", url, database]
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                subprocess.Popen(  # noqa: ASYNC220 - before anything is measured
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for _ in range(_WORKERS)
        ]
        for worker in workers:
            assert worker.stdout is not None
            await asyncio.to_thread(worker.stdout.readline)
        async with _client(url) as client, client.spooler(SqlOutbox(database)) as spooler:
            outbox = SqlOutbox(database)
            await outbox.open(client.account)
            numbers = iter(range(statuses))

            async def putter() -> None:
                for number in numbers:
                    await spooler.put(f"dev-{number}", _status(number))

            started = time.perf_counter()
            await asyncio.gather(*(putter() for _ in range(_PUTTERS)))
            while (await outbox.stats()).waiting:  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.05)
            elapsed_s = time.perf_counter() - started
            await outbox.aclose()
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.close()
    return statuses / elapsed_s


async def _work(url: str, database: str) -> None:
    async with _client(url) as client, client.status_pusher(outbox=SqlOutbox(database)):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


def _run(kind: str, statuses: int, postgres: PostgresServer | None) -> float:
    server_core, client_core = pick_cores()
    if kind == "postgres":
        assert postgres is not None
        with running_server(latency_ms=0, core=None) as server, asyncio.Runner() as runner:
            return runner.run(_spool(server.url, postgres.url(), statuses))
    with (
        running_server(latency_ms=0, core=server_core) as server,
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=loop_factory(fastest_loop())) as runner,
    ):
        pin_to(client_core)
        url = f"sqlite+aiosqlite:///{Path(folder) / 'spool.db'}"
        outbox = MemoryOutbox() if kind == "memory" else SqlOutbox(url)
        return runner.run(_push(server.url, outbox, statuses))


def _measure(kind: str, statuses: int, postgres: PostgresServer | None) -> float:
    if kind == "postgres":
        return _run(kind, statuses, postgres)
    # A process of its own, for it stays on its core.
    command = [sys.executable, "-m", "benchmarks.delivery", "--once", kind, "--statuses", str(statuses)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> int:
    """Measure, print medians and ratios; 1 if one of them is less than it has to be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.delivery", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--statuses", type=int, default=20_000, help="in each round")
    parser.add_argument("--outboxes", nargs="+", choices=_KINDS, default=_KINDS)
    parser.add_argument("--once", choices=_KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--worker", nargs=2, metavar=("URL", "DATABASE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        asyncio.run(_work(*arguments.worker))
        return 0
    if arguments.once:
        print(_run(arguments.once, arguments.statuses, None))
        return 0
    rates: dict[str, list[float]] = {kind: [] for kind in arguments.outboxes}
    with ExitStack() as stack:
        postgres = stack.enter_context(PostgresServer()) if "postgres" in rates else None
        for _ in range(arguments.rounds):
            for kind, measured in rates.items():
                measured.append(_measure(kind, arguments.statuses, postgres))
                print(f"{kind:10} {measured[-1]:>10,.0f}/s", file=sys.stderr, flush=True)
    medians = {kind: statistics.median(measured) for kind, measured in rates.items()}
    for kind, measured in rates.items():
        print(f"{kind:10} {medians[kind]:>10,.0f}/s  ({min(measured):,.0f} to {max(measured):,.0f})")
    reached = dict(medians)
    if {"memory", "sqlite"} <= medians.keys():
        reached["sqlite of memory"] = medians["sqlite"] / medians["memory"]
        print(f"sqlite of memory: {reached['sqlite of memory']:.2f}")
    missed = [name for name, least in _LEAST.items() if name in reached and reached[name] < least]
    for name in missed:
        print(f"not reached: {name}, {_LEAST[name]:g} asked")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())

"""Cost of outboxes through the facade: ``python -m benchmarks.outboxes``.

``put``: 64 callers that put one status after the other into an outbox that nobody reads, by ``spooler.put``.
``put to answer``: 256 callers, and the time until the server has answered for every status. Memory and SQLite in one
process that puts and sends; PostgreSQL with one process that only puts and four that send. Every device gets one
status in a round, so that none is superseded. Client and server have a core each, except for PostgreSQL, where server,
database and processes share both cores. The outboxes take turns.

``a status in the outbox``: put, claim and finish, in batches of 64, of a fleet of 1,000 and of 1,000,000 devices.
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
from .outbox import cycle_cost_us, names_of
from .report import publish
from .runner import running_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from printos_async import Outbox, StatusPusher

_IN_FLIGHT = 64
_PUTTERS = {"put": 64, "put to answer": 256}
_WORKERS = 4
_SMALL, _LARGE, _BATCH, _CYCLE_S = 1_000, 1_000_000, 64, 1.0
_MEASURED = (
    ("put", "sqlite"),
    ("put", "postgres"),
    ("put to answer", "memory"),
    ("put to answer", "sqlite"),
    ("put to answer", "postgres"),
    ("a status in the outbox", "sqlite"),
    ("a status in the outbox", "sqlite, large"),
)
_Key = tuple[str, str]


def _status(number: int) -> DeviceStatusUpdate:
    metrics = DeviceStatusUpdateMetrics(pages_total=number, ink_level=0.5)
    return DeviceStatusUpdate(status="DS_PRINTING", metrics=metrics)


@asynccontextmanager
async def _client(url: str) -> AsyncIterator[PrintOSClient]:
    limit = ConcurrencyLimit(minimum=_IN_FLIGHT, maximum=_IN_FLIGHT)
    async with PrintOSClient(url, auth=HmacAuth("key", "secret"), limit=limit) as client:
        yield client


async def _put(outbox: Outbox, statuses: int) -> float:
    """Put only; return statuses per second."""
    async with _client("http://127.0.0.1:1") as client, client.spooler(outbox) as spooler:
        numbers = iter(range(statuses))

        async def putter() -> None:
            for number in numbers:
                await spooler.put(f"dev-{number}", _status(number))

        started = time.perf_counter()
        await asyncio.gather(*(putter() for _ in range(_PUTTERS["put"])))
        return statuses / (time.perf_counter() - started)


async def _settled(pusher: StatusPusher) -> None:
    while pusher.stats().pending:  # noqa: ASYNC110 - nothing else is measured with it
        await asyncio.sleep(0.001)


async def _push(url: str, outbox: Outbox, statuses: int) -> float:
    """Put and send in this process; return statuses per second."""
    async with _client(url) as client, client.status_pusher(outbox=outbox) as pusher:
        for number in range(_IN_FLIGHT):  # opens connections
            await pusher.put(f"first-{number}", _status(number))
        await _settled(pusher)
        numbers = iter(range(statuses))

        async def putter() -> None:
            for number in numbers:
                await pusher.put(f"dev-{number}", _status(number))

        started = time.perf_counter()
        await asyncio.gather(*(putter() for _ in range(_PUTTERS["put to answer"])))
        await _settled(pusher)
        return statuses / (time.perf_counter() - started)


async def _spool(url: str, database: str, statuses: int) -> float:
    """Put here and send in four other processes; return statuses per second."""
    command = [sys.executable, "-m", "benchmarks.outboxes", "--worker", url, database]
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
            await asyncio.gather(*(putter() for _ in range(_PUTTERS["put to answer"])))
            while (await outbox.stats()).waiting:  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.02)
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


async def _cycle(outbox: Outbox, devices: int) -> float:
    """Return microseconds for put, claim and finish of one status."""
    await outbox.open("benchmark")
    try:
        return await cycle_cost_us(outbox, names_of(devices, 2), _CYCLE_S, _BATCH)
    finally:
        await outbox.aclose()


def _once(key: _Key, statuses: int, database: str) -> float:
    what, kind = key
    server_core, client_core = pick_cores()
    with (
        running_server(latency_ms=0, core=None if kind == "postgres" else server_core) as server,
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=loop_factory(fastest_loop())) as runner,
    ):
        url = database or f"sqlite+aiosqlite:///{Path(folder) / 'spool.db'}"
        if key == ("put to answer", "postgres"):
            return runner.run(_spool(server.url, url, statuses))
        if kind != "postgres":
            pin_to(client_core)
        outbox = MemoryOutbox() if kind == "memory" else SqlOutbox(url)
        if what == "put":
            return runner.run(_put(outbox, statuses))
        if what == "put to answer":
            return runner.run(_push(server.url, outbox, statuses))
        return runner.run(_cycle(outbox, _LARGE if kind.endswith("large") else _SMALL))


def _measure(key: _Key, statuses: int, postgres: PostgresServer) -> float:
    """Measure once, in a process of its own, which stays on its core."""

    def run(database: str) -> float:
        command = [sys.executable, "-m", "benchmarks.outboxes", "--statuses", str(statuses)]
        command += ["--once", *key, database]
        return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)

    async def run_on_new_database() -> float:
        async with postgres.database() as url:
            return await asyncio.to_thread(run, url)

    return asyncio.run(run_on_new_database()) if key[1] == "postgres" else run("")


def _table(medians: dict[_Key, float], ranges: dict[_Key, tuple[float, float]]) -> tuple[list[str], bool]:
    """Return the lines of a table, and whether all targets were reached."""
    memory = medians.get(("put to answer", "memory"))
    small = medians.get(("a status in the outbox", "sqlite"))
    asked: dict[_Key, tuple[str, float]] = {
        ("put", "sqlite"): ("20,000/s", 20_000),
        ("put", "postgres"): ("8,000/s", 8_000),
        ("put to answer", "postgres"): ("3,000/s", 3_000),
    }
    if memory:
        asked["put to answer", "sqlite"] = ("half of memory's", memory / 2)
    lines = ["| what | outbox | median | slowest to fastest | asked |", "| --- | --- | ---: | ---: | ---: |"]
    reached = True
    for key, median in medians.items():
        low, high = ranges[key]
        if key[0].startswith("a status"):
            figure, spread = f"{median:.1f} µs", f"{high:.1f} to {low:.1f} µs"
            name = f"SQLite, {_LARGE if 'large' in key[1] else _SMALL:,} devices"
            wanted = ""
            if "large" in key[1] and small:
                wanted = f"{median / small:.2f} times, at most 1.3"
                reached = reached and median <= 1.3 * small
        else:
            figure, spread = f"{median:,.0f}/s", f"{low:,.0f} to {high:,.0f}"
            name = {"memory": "memory", "sqlite": "SQLite", "postgres": "PostgreSQL"}[key[1]]
            wanted, least = asked.get(key, ("", 0.0))
            reached = reached and median >= least
        lines.append(f"| {key[0]} | {name} | {figure} | {spread} | {wanted} |")
    return lines, reached


def main() -> int:
    """Measure and print; return 1 with ``--assert`` if a target is not reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outboxes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--statuses", type=int, default=20_000, help="in each measurement")
    parser.add_argument("--write", action="store_true", help="write the table into docs/benchmarks.md")
    parser.add_argument(
        "--assert", dest="check", action="store_true", help="exit with 1 if a figure is not reached"
    )
    parser.add_argument("--once", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        asyncio.run(_work(*arguments.worker))
        return 0
    if arguments.once:
        what, kind, database = arguments.once
        print(_once((what, kind), arguments.statuses, database))
        return 0
    samples: dict[_Key, list[float]] = {key: [] for key in _MEASURED}
    with PostgresServer() as postgres:
        for _ in range(arguments.rounds):
            for key, measured in samples.items():
                measured.append(_measure(key, arguments.statuses, postgres))
                print(f"{key[0]:24} {key[1]:14} {measured[-1]:>10,.1f}", file=sys.stderr, flush=True)
    medians = {key: statistics.median(measured) for key, measured in samples.items()}
    lines, reached = _table(medians, {key: (min(part), max(part)) for key, part in samples.items()})
    publish(lines, name="outboxes", rounds=arguments.rounds, is_written=arguments.write)
    return int(arguments.check and not reached)


if __name__ == "__main__":
    sys.exit(main())

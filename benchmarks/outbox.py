"""Cost of an outbox's operations: ``python -m benchmarks.outbox [--postgres URL] [--large 1000000]``.

Measures durable ``put`` from 64 concurrent callers, each with one status at a time, and the cost of one status
(put, claim, finish): for a small and a large fleet whose statuses are delivered at once, and for a large fleet beside
few and beside many other devices in a hold. Prints medians.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from printos_async.outbox import Draft, Finish, MemoryOutbox, Release, SqlOutbox

from .loops import available_loops, loop_factory

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence

    from printos_async.outbox import Outbox

    from .loops import Loop

    AnyOutbox = MemoryOutbox | SqlOutbox

_PUTTERS = 64
_SMALL = 1_000
_BODY = b'{"status":"DS_PRINTING","metrics":{"pagesTotal":1234567,"inkLevel":0.4375}}'


_FOR_LONG_S = 1e8


def names_of(devices: int, seed: int) -> list[str]:
    """Return identifiers of devices."""
    # Random, like those of PrintOS: ordered ones would be neighbours in the same page.
    dice = random.Random(seed)
    return [f"{dice.getrandbits(128):032x}" for _ in range(devices)]


async def _fill(outbox: AnyOutbox, names: Sequence[str]) -> float:
    """Put a status for each of these devices, in a long hold."""
    if (await outbox.stats()).waiting >= len(names):
        return 0.0
    owner = await outbox.join()
    unfilled = iter(names)
    while part := list(islice(unfilled, 1000)):
        await outbox.put([Draft(name, _BODY) for name in part], owner=owner)
        await outbox.release(owner, [Release(name, hold_s=_FOR_LONG_S) for name in part])
        await outbox.renew(owner)
    await outbox.leave(owner)
    return 0.0


async def _put_rate(outbox: AnyOutbox, names: Sequence[str], duration_s: float) -> float:
    """Return statuses per second."""
    count = 0
    end = time.perf_counter() + duration_s

    async def put(mine: Iterator[str]) -> None:
        nonlocal count
        while time.perf_counter() < end:
            await outbox.put([Draft(next(mine), _BODY)])
            count += 1

    begun = time.perf_counter()
    await asyncio.gather(*(put(_random(names, seed)) for seed in range(_PUTTERS)))
    return count / (time.perf_counter() - begun)


async def cycle_cost_us(outbox: Outbox, names: Sequence[str], duration_s: float, batch: int) -> float:
    """Return microseconds for put, claim and finish of one status, in batches."""
    owner = await outbox.join()
    dice = random.Random(time.perf_counter())
    count = 0
    begun = time.perf_counter()
    while time.perf_counter() - begun < duration_s:
        await outbox.put([Draft(name, _BODY) for name in dice.sample(names, batch)])
        claims = await outbox.claim(owner, batch)
        await outbox.finish(owner, [Finish(claim.device_id, claim.seq) for claim in claims])
        count += len(claims)
    spent_s = time.perf_counter() - begun
    await outbox.leave(owner)
    return 1e6 * spent_s / count


def _random(names: Sequence[str], seed: int) -> Iterator[str]:
    dice = random.Random(seed)
    while True:
        yield dice.choice(names)


def _run(loop: Loop, main: Callable[[], Coroutine[None, None, float]]) -> float:
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        return runner.run(main())


def _measure(arguments: argparse.Namespace, kind: str, make: Callable[[str], AnyOutbox]) -> None:
    async def on(account: str, use: Callable[[AnyOutbox], Coroutine[None, None, float]]) -> float:
        outbox = make(account)
        await outbox.open(account)
        try:
            return await use(outbox)
        finally:
            await outbox.aclose()

    small = names_of(_SMALL, 1)
    for loop in available_loops():
        rates = [
            _run(loop, lambda: on("rate", lambda outbox: _put_rate(outbox, small, arguments.duration_s)))
            for _ in range(arguments.rounds)
        ]
        print(f"{kind:11} {loop:8} put from {_PUTTERS} putters       {statistics.median(rates):>10,.0f}/s")
    if not arguments.large or kind == "memory":
        return  # no pusher claims from a MemoryOutbox, whose claims look at every row
    large = names_of(arguments.large, 2)
    compare = partial(_compare, arguments, kind, on)
    compare("devices, none of which waits for long", {"few": small, "many": large})
    for account, devices in (("few", _SMALL), ("many", arguments.large)):
        _run("asyncio", lambda: on(account, partial(_fill, names=names_of(devices, 3))))  # noqa: B023 - at once
    compare("devices that wait beside", {"few": large, "many": large})


def _compare(
    arguments: argparse.Namespace,
    kind: str,
    on: Callable[[str, Callable[[AnyOutbox], Coroutine[None, None, float]]], Coroutine[None, None, float]],
    what: str,
    fleets: Mapping[str, Sequence[str]],
) -> None:
    for batch in (64, 500):
        costs: dict[str, list[float]] = {account: [] for account in fleets}
        for _ in range(arguments.rounds):
            for account, names in fleets.items():
                spend = partial(cycle_cost_us, names=names, duration_s=arguments.duration_s, batch=batch)
                costs[account].append(_run(available_loops()[-1], partial(on, account, spend)))
        few, many = (statistics.median(costs[account]) for account in ("few", "many"))
        print(
            f"{kind:11} put + claim + finish, batches of {batch:3}: {few:6.1f} µs a status with {_SMALL:,} {what},"
            f" {many:6.1f} µs with {arguments.large:,}: {many / few:.2f} times"
        )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outbox", description=__doc__)
    parser.add_argument(
        "--kinds", nargs="+", choices=("memory", "sqlite", "postgresql"), default=["memory", "sqlite"]
    )
    parser.add_argument("--postgres", metavar="URL", help="an empty database: postgresql+asyncpg://...")
    parser.add_argument(
        "--large", type=int, default=1_000_000, help="devices in the large outbox, 0 for none"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration-s", type=float, default=2.0)
    parser.add_argument("--folder", type=Path, help="where the files are made; on a disk, not in memory")
    arguments = parser.parse_args()
    kinds = [*arguments.kinds]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        memory: dict[str, AnyOutbox] = {}
        makers: dict[str, Callable[[str], AnyOutbox]] = {
            "memory": lambda account: memory.setdefault(account, MemoryOutbox()),
            # A file for each, because the tenants of a database share its size.
            "sqlite": lambda account: SqlOutbox(f"sqlite+aiosqlite:///{folder}/{account}.db"),
            "postgresql": lambda _: SqlOutbox(arguments.postgres or ""),
        }
        for kind in dict.fromkeys(kinds):
            _measure(arguments, kind, makers[kind])


if __name__ == "__main__":
    main()

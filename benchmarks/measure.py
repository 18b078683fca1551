"""Measures one rival on one loop in one scenario, in a process of its own, and prints the result as a line of JSON."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import sys
import time
from typing import TYPE_CHECKING

from .loops import available_loops, loop_factory, pin_to
from .rivals import find_rival

if TYPE_CHECKING:
    from .rivals import Push, Rival

_FEWEST_ROUNDS = 2


def _cpu_s() -> float:
    if sys.platform == "win32":
        return time.process_time()
    import resource  # noqa: PLC0415 - not on Windows

    # Of all threads, so that a rival's own thread counts, too.
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def _calibrate(push: Push, *, in_flight: int, duration_s: float) -> tuple[int, int]:
    """Warm up until the rate is known; return how many statuses to push for ``duration_s``, and how many were pushed.

    The first batch opens the connections, so its rate counts only if it is so low that the fewest rounds are enough.
    """
    pushed = batch = in_flight
    started = time.perf_counter()
    await push(batch)
    if time.perf_counter() - started >= duration_s * _FEWEST_ROUNDS:
        return _FEWEST_ROUNDS * in_flight, pushed
    while True:
        started = time.perf_counter()
        await push(batch)
        elapsed_s = time.perf_counter() - started
        pushed += batch
        if elapsed_s >= duration_s / 5:
            break
        batch *= 2
    # Whole rounds, and several of them, because fewer requests than slots are in flight at the end of the last one.
    rounds = max(_FEWEST_ROUNDS, math.ceil(batch / elapsed_s * duration_s / in_flight))
    return rounds * in_flight, pushed


async def _measure(rival: Rival, arguments: argparse.Namespace) -> dict[str, float]:
    async with rival(arguments.url, arguments.in_flight) as push:
        statuses, pushed = arguments.statuses, 0
        if not statuses:
            statuses, pushed = await _calibrate(
                push, in_flight=arguments.in_flight, duration_s=arguments.duration_s
            )
        gc.collect()
        cpu_s = _cpu_s()
        started = time.perf_counter()
        achieved = await push(statuses)
        elapsed_s = time.perf_counter() - started
        cpu_s = _cpu_s() - cpu_s
    if achieved != statuses:
        sys.exit(f"{arguments.rival}: only {achieved} of {statuses} statuses were answered with 200")
    return {
        "rate": achieved / elapsed_s,
        "cpu_us": cpu_s / achieved * 1e6,
        "statuses": achieved,
        "elapsed_s": elapsed_s,
        "pushed": pushed + achieved,
    }


def main() -> None:
    """Measure once and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.measure", description=__doc__)
    parser.add_argument("--rival", required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    parser.add_argument("--loop", choices=available_loops(), required=True)
    parser.add_argument("--duration-s", type=float, default=1.5)
    parser.add_argument(
        "--statuses", type=int, help="push so many without a warm-up, instead of for a duration"
    )
    parser.add_argument("--core", type=int, help="the core to stay on")
    arguments = parser.parse_args()
    pin_to(arguments.core)
    rival = find_rival(arguments.rival)
    with asyncio.Runner(loop_factory=loop_factory(arguments.loop)) as runner:
        result = runner.run(_measure(rival, arguments))
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()

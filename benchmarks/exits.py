"""Counts processes that push a few statuses and then do not end cleanly.

A client whose threads or finalizers outlive the event loop may measure well and sometimes abort when the interpreter
exits. This benchmark starts many short processes, on each loop in turn. Each must end with exit code 0 and without
output on standard error, such as warnings about unclosed transports and sockets.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections import Counter
from itertools import cycle

from .loops import available_loops
from .runner import measure_command, running_server

_IN_FLIGHT = 8
_RUN_TIMEOUT_S = 30.0
# How much is printed of an abnormal end.
_STDERR_CHARACTERS = 2000


async def _run_once(command: list[str]) -> str:
    """Run one process; return why its end was abnormal, or an empty text."""
    process = await asyncio.create_subprocess_exec(
        command[0],
        # ResourceWarning is off by default, and the only sign of an unclosed transport.
        "-W",
        "always::ResourceWarning",
        *command[1:],
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_RUN_TIMEOUT_S):
            _, stderr = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return f"still running after {_RUN_TIMEOUT_S:g} s"
    if process.returncode or stderr:
        return (
            f"exit code {process.returncode}: {stderr.decode(errors='replace')[:_STDERR_CHARACTERS].strip()}"
        )
    return ""


async def _run_all(commands: list[list[str]], *, at_once: int) -> list[str]:
    waiting = iter(commands)

    async def work() -> list[str]:
        return [await _run_once(command) for command in waiting]

    return [end for ends in await asyncio.gather(*(work() for _ in range(at_once))) for end in ends]


def main() -> int:
    """Run the processes; return 1 if any ended abnormally."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exits", description=__doc__)
    parser.add_argument("--rival", default="transport")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--statuses", type=int, default=50, help="pushed by each process")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    loops = cycle(available_loops())
    with running_server(latency_ms=0, core=None) as server:
        commands = [
            measure_command(
                rival=arguments.rival,
                url=server.url,
                in_flight=_IN_FLIGHT,
                loop=next(loops),
                core=None,
                extra=("--statuses", str(arguments.statuses)),
            )
            for _ in range(arguments.runs)
        ]
        ends = asyncio.run(_run_all(commands, at_once=arguments.at_once))
    abnormal = Counter(end for end in ends if end)
    for end, times in abnormal.most_common():
        print(f"{times} times {end}", file=sys.stderr)
    print(f"{arguments.rival}: {abnormal.total()} abnormal exits in {len(ends)} runs")
    wanted = arguments.runs * arguments.statuses
    if not abnormal and server.answered != wanted:
        print(f"the server answered {server.answered} statuses, not {wanted}", file=sys.stderr)
        return 1
    return 1 if abnormal else 0


if __name__ == "__main__":
    sys.exit(main())

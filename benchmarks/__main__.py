"""The command line: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .loops import available_loops
from .plot import write_plot
from .report import PAGE, check_thresholds, to_json, to_markdown, write_between_markers
from .rivals import HTTP2_RIVALS, RIVALS
from .runner import MeasurementError, run
from .scenarios import SCENARIOS, allow_descriptors

if TYPE_CHECKING:
    from .runner import Row

_CEILING = "benchmarks.ceiling:unpipelined"
_PLOT = PAGE.with_name("benchmarks.svg")
_QUICK_SCENARIOS, _QUICK_ROUNDS, _QUICK_DURATION_S = 2, 2, 0.3
_ROUNDS, _DURATION_S = 5, 0.8


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a rough idea in under a minute; nothing to publish"
    )
    parser.add_argument(
        "--scenarios", nargs="+", choices=SCENARIOS, help="all by default, the first two with --quick"
    )
    parser.add_argument("--rivals", nargs="+", metavar="NAME", default=[_CEILING, *RIVALS, *HTTP2_RIVALS])
    parser.add_argument("--loops", nargs="+", choices=available_loops(), default=available_loops())
    parser.add_argument("--rounds", type=int, help=f"measurements of each (default {_ROUNDS})")
    parser.add_argument(
        "--duration-s",
        type=float,
        help=f"length of each, twice that where the server waits (default {_DURATION_S})",
    )
    parser.add_argument("--write", action="store_true", help="write the tables and the plot into docs/")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single measurement to a file")
    parser.add_argument(
        "--assert", dest="check", action="store_true", help="exit with 1 if a threshold is not met"
    )
    arguments = parser.parse_args()
    if arguments.write and (arguments.quick or (arguments.rounds or _ROUNDS) < _ROUNDS):
        parser.error(f"--write needs at least {_ROUNDS} rounds and no --quick")
    return arguments


def _show(row: Row) -> None:
    sample = row.samples[-1]
    print(
        f"{row.scenario.title:46} {row.loop:8} {row.rival:32} {sample.rate:>10,.0f}/s {sample.cpu_us:>9,.1f} µs",
        file=sys.stderr,
        flush=True,
    )


def main() -> int:
    """Measure and print, write and check as the arguments say, and return the exit code."""
    arguments = _parse()
    names = arguments.scenarios or list(SCENARIOS)[: _QUICK_SCENARIOS if arguments.quick else None]
    scenarios = [SCENARIOS[name] for name in names]
    for scenario in scenarios:
        if not allow_descriptors(scenario):
            print(f"{scenario.title}: the limit of open files (ulimit -n) is too low", file=sys.stderr)
            return 2
    rounds = arguments.rounds or (_QUICK_ROUNDS if arguments.quick else _ROUNDS)
    duration_s = arguments.duration_s or (_QUICK_DURATION_S if arguments.quick else _DURATION_S)
    try:
        rows = run(
            scenarios=scenarios,
            loops=arguments.loops,
            rivals=arguments.rivals,
            rounds=rounds,
            duration_s=duration_s,
            on_sample=_show,
        )
    except MeasurementError as error:
        print(error, file=sys.stderr)
        return 2
    markdown = to_markdown(rows, command=f"python -m benchmarks {' '.join(sys.argv[1:])}".rstrip())
    print(markdown)
    if arguments.write:
        write_plot(rows, _PLOT)
        picture = f"![Statuses per second of each client, and share of the ideal]({_PLOT.name})"
        write_between_markers(PAGE, f"{picture}\n\n{markdown}")
    if arguments.json:
        arguments.json.write_text(json.dumps(to_json(rows), indent=1), encoding="utf-8")
    if arguments.check:
        met, lines = check_thresholds(rows)
        print("\n" + "\n".join(lines))
        return 0 if met else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

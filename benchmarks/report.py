"""Report of the results: machine, tables, and which thresholds are met."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .loops import fastest_loop, pick_cores
from .scenarios import THRESHOLDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .loops import Loop
    from .runner import Row
    from .scenarios import Scenario, Threshold

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
_BASELINES = ("generated", "generated_http2")
_HTTP2_NOTE = (
    "The server (hypercorn) speaks HTTP/2 in Python and may limit these figures; clients that cannot speak it are "
    "left out."
)
NAMES = {
    "generated": "generated client, semaphore",
    "httpx": "bare httpx",
    "aiohttp": "bare aiohttp",
    "transport": "bare default transport",
    "push_statuses": "**`push_statuses`**",
    "generated_http2": "generated client, semaphore",
    "httpx_http2": "bare httpx",
    "push_statuses_http2": "**`push_statuses`** over httpx",
    "benchmarks.ceiling:unpipelined": "*ceiling: bytes only*",
    "benchmarks.ceiling:pipelined": "*ceiling: bytes only, pipelined*",
}
# httpx does not require sniffio, but httpcore looks for it with every request, and is slower without it.
_PACKAGES = ("httpx", "httpcore", "sniffio", "aiohttp", "httptools", "uvloop", "h2", "hypercorn")


def cpu_model() -> str:
    """Return the name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"no {package}"


def machine() -> str:
    """Return two lines of Markdown with the machine and the versions."""
    server_core, client_core = pick_cores()
    pinned = (
        "client and server not pinned"
        if client_core is None
        else f"server on core {server_core} ({fastest_loop()}), client on core {client_core}"
    )
    system = f"{platform.system()} {platform.release()}"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    versions = ", ".join(_version(package) for package in _PACKAGES)
    return f"{cpu_model()}, {os.cpu_count()} cores, {system}; {pinned}.  \n{python}, {versions}."


def find_row(rows: Sequence[Row], scenario: Scenario, loop: Loop, rival: str) -> Row | None:
    """Return the measurements of a rival in a scenario on a loop; None without any."""
    return next((row for row in rows if (row.scenario, row.loop, row.rival) == (scenario, loop, rival)), None)


def _ordered(rows: Sequence[Row]) -> list[Scenario]:
    return list(dict.fromkeys(row.scenario for row in rows))


def _table(rows: Sequence[Row], scenario: Scenario) -> str:
    ideal = scenario.ideal_rate
    header = ["client", "loop", "statuses/s", "slowest to fastest", "ratio to generated", "CPU µs/status"]
    if ideal:
        header.insert(5, f"of the ideal {ideal:,.0f}/s")
    lines = [header, ["---", "---", *["---:"] * (len(header) - 2)]]
    for row in (row for row in rows if row.scenario == scenario):
        baseline = next(filter(None, (find_row(rows, scenario, row.loop, name) for name in _BASELINES)), None)
        cells = [
            NAMES.get(row.rival, row.rival),
            row.loop,
            f"{row.rate:,.0f}",
            f"{row.slowest:,.0f} to {row.fastest:,.0f}",
            f"{row.rate / baseline.rate:,.1f}" if baseline else "",
            f"{row.cpu_us:,.1f}",
        ]
        if ideal:
            cells.insert(5, f"{row.rate / ideal:.0%}")
        lines.append(cells)
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{table}\n\n{_HTTP2_NOTE}" if scenario.is_http2 else table


def to_markdown(rows: Sequence[Row], *, command: str) -> str:
    """Return the results: a table for each scenario, then the machine and the command."""
    parts = [f"### {scenario.title}\n\n{_table(rows, scenario)}" for scenario in _ordered(rows)]
    aborted = [
        f"{row.abnormal_exits} of {row.rival} ({row.loop}, {row.scenario.title})"
        for row in rows
        if row.abnormal_exits
    ]
    if aborted:
        parts.append(f"Processes that measured and then ended abnormally: {'; '.join(aborted)}.")
    rounds = min(len(row.samples) for row in rows)
    parts.append(f"{machine()}  \n`{command}`: medians of {rounds}, rivals in turn.")
    return "\n\n".join(parts)


def write_between_markers(path: Path, markdown: str, *, name: str = "benchmarks") -> None:
    """Replace the text between the page's markers of this name.

    Raises:
        ValueError: The page has no such markers.
    """
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    page = path.read_text(encoding="utf-8")
    before, found_start, rest = page.partition(start)
    _, found_end, after = rest.partition(end)
    if not found_start or not found_end:
        raise ValueError(f"{path} has no {start} ... {end}")
    path.write_text(f"{before}{start}\n\n{markdown}\n\n{end}{after}", encoding="utf-8")


def publish(lines: Sequence[str], *, name: str, rounds: int, is_written: bool) -> None:
    """Print a table with machine and command below it, and write it into the page if asked to.

    Args:
        lines: The table.
        name: The name of the benchmark's module, and of the page's markers.
        rounds: Number of measurements.
        is_written: Whether the table is written into the page.
    """
    command = f"python -m benchmarks.{name} {' '.join(sys.argv[1:])}".rstrip()
    markdown = "\n".join([*lines, "", f"{machine()}  ", f"`{command}`: medians of {rounds}, in turn."])
    print(markdown)
    if is_written:
        write_between_markers(PAGE, markdown, name=name)


def to_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return every sample, for plots and comparisons."""
    return [asdict(row) for row in rows]


def _verdict(rows: Sequence[Row], threshold: Threshold, loop: Loop) -> tuple[bool, str]:
    row = find_row(rows, threshold.scenario, loop, threshold.rival)
    other = find_row(rows, threshold.scenario, loop, threshold.relative_to)
    what = f"{threshold.rival}, {loop}, {threshold.scenario.title}"
    ideal = threshold.scenario.ideal_rate if threshold.relative_to == "ideal" else None
    # A threshold that was not measured is not met, so that a wrong selection of rivals does not look like a success.
    met, figures = False, f"needs {threshold.rival} and {threshold.relative_to}"
    if row is not None and threshold.at_least is not None and (base := other.rate if other else ideal):
        share = row.rate / base
        met = share >= threshold.at_least
        figures = f"{share:.2f} x {threshold.relative_to}, at least {threshold.at_least:g}"
    elif row is not None and threshold.cpu_more is not None and other is not None:
        more_us = row.cpu_us - other.cpu_us
        more = more_us / other.cpu_us
        met = more <= threshold.cpu_more
        figures = (
            f"{more_us:.1f} CPU µs/status more than {threshold.relative_to}, "
            f"{more:.2f} times its own, at most {threshold.cpu_more:g}"
        )
    return met, f"{'met    ' if met else 'NOT MET'} {what}: {figures}"


def check_thresholds(rows: Sequence[Row]) -> tuple[bool, list[str]]:
    """Return whether all thresholds are met and no process ended abnormally, with a line for each of them."""
    loops = list(dict.fromkeys(row.loop for row in rows))
    verdicts = [
        _verdict(rows, threshold, loop)
        for threshold in THRESHOLDS
        for loop in loops
        if threshold.loop in {None, loop}
    ]
    aborted = sum(row.abnormal_exits for row in rows)
    verdicts.append(
        (aborted == 0, f"{'met    ' if not aborted else 'NOT MET'} abnormal exits: {aborted}, none allowed")
    )
    return all(met for met, _ in verdicts), [line for _, line in verdicts]

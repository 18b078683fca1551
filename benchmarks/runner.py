"""Runs measurements: each in a process of its own, against a server of its own, rivals in turn."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, cast

from .loops import pick_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .loops import Loop
    from .scenarios import Scenario

# Long enough for the slowest rival's two rounds at 1,000 in flight.
_MEASUREMENT_TIMEOUT_S = 180.0
_SERVER_STOP_TIMEOUT_S = 10.0


class MeasurementError(Exception):
    """A measurement that says nothing: the client failed, or the server saw less than the client counted."""


@dataclass(frozen=True)
class Sample:
    """One measurement of one rival."""

    rate: float
    cpu_us: float
    exit_code: int


@dataclass(frozen=True)
class Row:
    """All measurements of one rival under one scenario on one event loop."""

    scenario: Scenario
    loop: Loop
    rival: str
    samples: list[Sample] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Statuses per second, the median."""
        return statistics.median(sample.rate for sample in self.samples)

    @property
    def slowest(self) -> float:
        """Statuses per second in the slowest measurement."""
        return min(sample.rate for sample in self.samples)

    @property
    def fastest(self) -> float:
        """Statuses per second in the fastest measurement."""
        return max(sample.rate for sample in self.samples)

    @property
    def cpu_us(self) -> float:
        """Processor time of the client per status, in microseconds, the median."""
        return statistics.median(sample.cpu_us for sample in self.samples)

    @property
    def abnormal_exits(self) -> int:
        """Processes that measured well and then did not end with 0."""
        return sum(sample.exit_code != 0 for sample in self.samples)


@dataclass
class ServerHandle:
    """A running server; ``answered`` is set once it has stopped."""

    url: str
    answered: int = 0


@contextmanager
def running_server(*, latency_ms: float, core: int | None) -> Iterator[ServerHandle]:
    """Run the target server while the block does."""
    command = [sys.executable, "-m", "benchmarks.server", "--latency-ms", str(latency_ms)]
    if core is not None:
        command += ["--core", str(core)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        stdin, stdout = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
        try:
            handle = ServerHandle(f"http://127.0.0.1:{int(stdout.readline())}")
            yield handle
            stdin.close()
            handle.answered = int(stdout.readline())
            process.wait(_SERVER_STOP_TIMEOUT_S)
        except BaseException:
            process.kill()
            raise


def measure_command(
    *, rival: str, url: str, in_flight: int, loop: Loop, core: int | None, extra: Sequence[str] = ()
) -> list[str]:
    """Return the command of one measuring process."""
    command = [sys.executable, "-m", "benchmarks.measure", "--rival", rival, "--url", url]
    command += ["--in-flight", str(in_flight), "--loop", loop, *extra]
    return command if core is None else [*command, "--core", str(core)]


def _measure(row: Row, *, duration_s: float, cores: tuple[int | None, int | None]) -> Sample:
    server_core, client_core = cores
    with running_server(latency_ms=row.scenario.latency_ms, core=server_core) as server:
        command = measure_command(
            rival=row.rival,
            url=server.url,
            in_flight=row.scenario.in_flight,
            loop=row.loop,
            core=client_core,
            extra=("--duration-s", str(duration_s)),
        )
        done = subprocess.run(
            command, capture_output=True, check=False, text=True, timeout=_MEASUREMENT_TIMEOUT_S
        )
    # A client that aborts after its measurement has still measured: its exit code is reported beside the figures.
    if not done.stdout.strip():
        raise MeasurementError(f"{row.rival} ({row.loop}, {row.scenario.title}): {done.stderr.strip()}")
    result = json.loads(done.stdout)
    if server.answered < result["pushed"]:
        raise MeasurementError(
            f"{row.rival} counted {result['pushed']} statuses, the server answered {server.answered}"
        )
    return Sample(rate=result["rate"], cpu_us=result["cpu_us"], exit_code=done.returncode)


def run(
    *,
    scenarios: Sequence[Scenario],
    loops: Sequence[Loop],
    rivals: Sequence[str],
    rounds: int,
    duration_s: float,
    on_sample: Callable[[Row], None],
) -> list[Row]:
    """Measure everything ``rounds`` times, the rivals in turn, so that a slow minute is everyone's.

    Raises:
        MeasurementError: A measurement failed; the others would be of no use without it.
    """
    cores = pick_cores()
    rows = [Row(scenario, loop, rival) for scenario in scenarios for loop in loops for rival in rivals]
    for _ in range(rounds):
        for row in rows:
            row.samples.append(_measure(row, duration_s=duration_s, cores=cores))
            on_sample(row)
    return rows

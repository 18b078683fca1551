"""Runs the measurements, each with a process and a server of its own; the rivals take turns."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, cast

from .certificate import made_certificate
from .loops import pick_cores
from .rivals import CEILING, HTTP2_RIVALS, RIVALS
from .scenarios import NO_LATENCY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .certificate import Certificate
    from .loops import Loop
    from .scenarios import Scenario

# Enough for two rounds of the slowest rival with 1,000 in flight.
_MEASUREMENT_TIMEOUT_S = 180.0
_SERVER_STOP_TIMEOUT_S = 10.0
# With latency a round takes at least that long, and the first and the last one, in which slots are empty, must be a
# small part.
_LATENCY_DURATION_FACTOR = 2


class MeasurementError(Exception):
    """A measurement is not valid: the client failed, or the server counted fewer requests than the client."""


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
        """Processes that measured, and then ended with another exit code than 0."""
        return sum(sample.exit_code != 0 for sample in self.samples)


@dataclass
class ServerHandle:
    """A running server; ``answered`` is set once it has stopped."""

    url: str
    answered: int = 0


@contextmanager
def running_server(
    *, latency_ms: float, core: int | None, certificate: Certificate | None = None, http2: bool = False
) -> Iterator[ServerHandle]:
    """Run the target server until the context manager exits."""
    module = "benchmarks.server_http2" if http2 else "benchmarks.server"
    command = [sys.executable, "-m", module]
    if not http2:
        command += ["--latency-ms", str(latency_ms)]
    if certificate is not None:
        command += ["--certificate", str(certificate.server)]
    if core is not None:
        command += ["--core", str(core)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        stdin, stdout = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
        try:
            scheme = "http" if certificate is None else "https"
            handle = ServerHandle(f"{scheme}://127.0.0.1:{int(stdout.readline())}")
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


def _measure(
    row: Row, *, duration_s: float, cores: tuple[int | None, int | None], certificate: Certificate | None
) -> Sample:
    server_core, client_core = cores
    if row.scenario.latency_ms:
        duration_s *= _LATENCY_DURATION_FACTOR
    # OpenSSL and httpx read this variable, so all clients trust the server without further settings.
    trust = {} if certificate is None else {"SSL_CERT_FILE": str(certificate.authority)}
    with running_server(
        latency_ms=row.scenario.latency_ms,
        core=server_core,
        certificate=certificate if row.scenario.has_tls else None,
        http2=row.scenario.is_http2,
    ) as server:
        command = measure_command(
            rival=row.rival,
            url=server.url,
            in_flight=row.scenario.in_flight,
            loop=row.loop,
            core=client_core,
            extra=("--duration-s", str(duration_s)),
        )
        done = subprocess.run(
            command,
            capture_output=True,
            check=False,
            env={**os.environ, **trust},
            text=True,
            timeout=_MEASUREMENT_TIMEOUT_S,
        )
    # The figures of a client that aborts after its measurement are valid; its exit code is reported beside them.
    if not done.stdout.strip():
        raise MeasurementError(f"{row.rival} ({row.loop}, {row.scenario.title}): {done.stderr.strip()}")
    result = json.loads(done.stdout)
    if server.answered < result["pushed"]:
        raise MeasurementError(
            f"{row.rival} counted {result['pushed']} statuses, the server answered {server.answered}"
        )
    return Sample(rate=result["rate"], cpu_us=result["cpu_us"], exit_code=done.returncode)


def _takes_part(rival: str, scenario: Scenario) -> bool:
    """Return whether a rival speaks the scenario's protocol; those of other modules are expected to."""
    if rival.startswith(CEILING):  # it speaks no TLS, and with latency it shows nothing
        return scenario == NO_LATENCY
    return scenario.is_http2 if rival in HTTP2_RIVALS else not (scenario.is_http2 and rival in RIVALS)


def run(
    *,
    scenarios: Sequence[Scenario],
    loops: Sequence[Loop],
    rivals: Sequence[str],
    rounds: int,
    duration_s: float,
    on_sample: Callable[[Row], None],
) -> list[Row]:
    """Measure everything ``rounds`` times. The rivals take turns, so that noise affects all of them.

    Raises:
        MeasurementError: A measurement failed; without it the others cannot be compared.
    """
    cores = pick_cores()
    rows = [
        Row(scenario, loop, rival)
        for scenario in scenarios
        for loop in loops
        for rival in rivals
        if _takes_part(rival, scenario)
    ]
    needs_certificate = any(scenario.has_tls for scenario in scenarios)
    with made_certificate() if needs_certificate else nullcontext() as certificate:
        for _ in range(rounds):
            for row in rows:
                row.samples.append(_measure(row, duration_s=duration_s, cores=cores, certificate=certificate))
                on_sample(row)
    return rows

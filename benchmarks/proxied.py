"""Cost of a proxy for the client: `push_statuses` over TLS, direct and through a CONNECT proxy, in turn.

Proxy and server use the same cores. So without latency the client's CPU time per status is compared, not the rate.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, cast

from . import rivals
from .certificate import made_certificate
from .loops import available_loops
from .runner import measure_command, running_server
from .scenarios import Scenario, allow_descriptors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractAsyncContextManager

    from .rivals import Push

_PROXY = "BENCHMARKS_PROXY"
_SCENARIOS = (
    Scenario(64, protocol="HTTP/1.1 over TLS"),
    Scenario(64, 50.0, protocol="HTTP/1.1 over TLS"),
)
_AT_LEAST = 0.8


def push_statuses(url: str, in_flight: int) -> AbstractAsyncContextManager[Push]:
    """`push_statuses`, through the proxy of the environment if there is one."""
    return rivals.push_statuses(url, in_flight, proxy=os.environ.get(_PROXY))


@contextmanager
def _running_proxy() -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.proxy"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield f"http://user:password@127.0.0.1:{int(cast('IO[str]', process.stdout).readline())}"
        cast("IO[str]", process.stdin).close()


def main() -> int:
    """Measure and print; return 1 if the proxy costs the client more than the limit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proxied", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration-s", type=float, default=0.8)
    parser.add_argument("--loops", nargs="+", choices=available_loops(), default=available_loops())
    arguments = parser.parse_args()
    is_met = True
    for scenario in _SCENARIOS:
        allow_descriptors(scenario)
        for loop in arguments.loops:
            found: dict[str, list[dict[str, float]]] = {"direct": [], "proxy": []}
            with (
                made_certificate() as certificate,
                running_server(latency_ms=scenario.latency_ms, core=None, certificate=certificate) as server,
                _running_proxy() as proxy,
            ):
                command = measure_command(
                    rival="benchmarks.proxied:push_statuses",
                    url=server.url,
                    in_flight=scenario.in_flight,
                    loop=loop,
                    core=None,
                    extra=("--duration-s", str(arguments.duration_s)),
                )
                for _ in range(arguments.rounds):
                    for way, samples in found.items():
                        env = {**os.environ, "SSL_CERT_FILE": str(certificate.authority)}
                        env |= {_PROXY: proxy} if way == "proxy" else {}
                        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=env, text=True)
                        samples.append(json.loads(done.stdout))
            rate, cpu_us = (
                {way: statistics.median(sample[name] for sample in samples) for way, samples in found.items()}
                for name in ("rate", "cpu_us")
            )
            share = (
                rate["proxy"] / rate["direct"] if scenario.latency_ms else cpu_us["direct"] / cpu_us["proxy"]
            )
            is_met &= share >= _AT_LEAST
            print(
                f"{scenario.title:46} {loop:8} direct {rate['direct']:>8,.0f}/s {cpu_us['direct']:>6,.1f} µs"
                f"   proxy {rate['proxy']:>8,.0f}/s {cpu_us['proxy']:>6,.1f} µs"
                f"   {'rate' if scenario.latency_ms else 'CPU'} {share:.2f}"
            )
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())

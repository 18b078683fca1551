"""The cost of credentials of each device: ``python -m benchmarks.credentials``.

``push_statuses`` to 10,000 devices over and over, with one key for all, with a key for each and with a session token
for each, after the logins. The three take turns in one process, so that noise affects all of them, and are compared by
CPU time for each status. The server has the other core.

Memory: growth of the resident set of a new process, for each account: its credentials in use, and everything that the
client keeps for it. The texts of keys and secrets belong to the application, and are made before.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from printos_async import (
    ConcurrencyLimit,
    DeviceCredentials,
    DeviceStatusUpdate,
    DeviceStatusUpdateMetrics,
    HmacAuth,
    PrintOSClient,
    SessionTokenAuth,
)

from .loops import fastest_loop, loop_factory, pick_cores, pin_to
from .report import publish
from .runner import running_server

if TYPE_CHECKING:
    from printos_async import PushReport

_ACCOUNTS = 10_000
_IN_FLIGHT = 64
_LEAST_SHARE = 0.85
_MOST_BYTES = 1_536
_PAGE_BYTES = 4_096
_ONE, _KEYS, _TOKENS = "one key", "a key for each", "a token for each"
_Texts = list[tuple[str, str, str]]


def _texts() -> _Texts:
    """Return device, key or login, and secret or password, in the lengths that they usually have."""
    return [(f"dev-{number}", f"key-{number:016}", f"secret-{number:032}") for number in range(_ACCOUNTS)]


async def _log_in(auth: SessionTokenAuth, number: int) -> None:
    """Answer one login, and accept the first request with its token."""
    request = httpx.Request("PUT", "http://127.0.0.1/devices/dev/status")
    flow = auth.async_auth_flow(request)
    login = await anext(flow)
    await flow.asend(httpx.Response(200, json={"authToken": f"token-{number:064}"}, request=login))
    try:
        await flow.asend(httpx.Response(200, request=request))
    except StopAsyncIteration:
        return


async def _credentials(kind: str, texts: _Texts) -> DeviceCredentials | HmacAuth:
    if kind == _ONE:
        return HmacAuth("key", "secret")
    if kind == _KEYS:
        return DeviceCredentials({device: HmacAuth(key, secret) for device, key, secret in texts})
    logins = {device: SessionTokenAuth(login, password) for device, login, password in texts}
    for number, auth in enumerate(logins.values()):
        await _log_in(auth, number)
    return DeviceCredentials(logins)


def _client(url: str, auth: httpx.Auth) -> PrintOSClient:
    limit = ConcurrencyLimit(minimum=_IN_FLIGHT, maximum=_IN_FLIGHT)
    return PrintOSClient(url, auth=auth, limit=limit)


async def _push(client: PrintOSClient, texts: _Texts, status: DeviceStatusUpdate) -> PushReport:
    report = await client.push_statuses((device, status) for device, _, _ in texts)
    report.raise_for_failures()
    return report


async def _cpu(url: str, rounds: int) -> dict[str, list[float]]:
    """Return microseconds of CPU time for each status, by kind."""
    texts = _texts()
    status = DeviceStatusUpdate(
        status="DS_PRINTING", metrics=DeviceStatusUpdateMetrics(pages_total=1, ink_level=0.4)
    )
    samples: dict[str, list[float]] = {_ONE: [], _KEYS: [], _TOKENS: []}
    async with AsyncExitStack() as stack:
        clients = {
            kind: await stack.enter_async_context(_client(url, await _credentials(kind, texts)))
            for kind in samples
        }
        for client in clients.values():
            await _push(client, texts, status)  # opens the connections, and looks up every account
        gc.collect()
        for _ in range(rounds):
            for kind, client in clients.items():
                started = time.process_time()
                await _push(client, texts, status)
                samples[kind].append((time.process_time() - started) / len(texts) * 1e6)
    return samples


def _resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * _PAGE_BYTES


async def _memory(url: str, kind: str) -> float:
    """Return bytes for each account."""
    texts = _texts()
    status = DeviceStatusUpdate(status="DS_ON")
    # So that connections and buffers, which sending itself needs, are not counted.
    async with _client(url, HmacAuth("key", "secret")) as client:
        await _push(client, texts, status)
    before = _resident_bytes()
    auth = await _credentials(kind, texts)
    async with _client(url, auth) as client:
        await _push(client, texts, status)
        return (_resident_bytes() - before) / len(texts)


def _measure_memory(url: str, kind: str) -> float:
    command = [sys.executable, "-m", "benchmarks.credentials", "--memory-of", kind, url]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> int:
    """Measure and print; return 1 with ``--assert`` if a limit is exceeded."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.credentials", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", action="store_true", help="write the table into docs/benchmarks.md")
    parser.add_argument(
        "--assert", dest="check", action="store_true", help="exit with 1 if a figure is not reached"
    )
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=loop_factory(fastest_loop())) as runner:
        if arguments.memory_of:
            kind, url = arguments.memory_of
            print(runner.run(_memory(url, kind)))
            return 0
        server_core, client_core = pick_cores()
        with running_server(latency_ms=0, core=server_core) as server:
            memory = {kind: _measure_memory(server.url, kind) for kind in (_KEYS, _TOKENS)}
            pin_to(client_core)
            samples = runner.run(_cpu(server.url, arguments.rounds))
    lines = [
        "| credentials of 10,000 devices | CPU µs/status | slowest to fastest | rate for the CPU time | memory for each |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    reached = True
    for kind, measured in samples.items():
        median_us = statistics.median(measured)
        # For each round, because noise affects all of a round.
        share = statistics.median(one / each for one, each in zip(samples[_ONE], measured, strict=True))
        size = memory.get(kind)
        reached = reached and share >= _LEAST_SHARE and (size is None or size <= _MOST_BYTES)
        spread = f"{max(measured):.1f} to {min(measured):.1f}"
        in_memory = "" if size is None else f"{size:,.0f} bytes"
        lines.append(f"| {kind} | {median_us:.1f} | {spread} | {share:.2f} | {in_memory} |")
    publish(lines, name="credentials", rounds=arguments.rounds, is_written=arguments.write)
    return int(arguments.check and not reached)


if __name__ == "__main__":
    sys.exit(main())

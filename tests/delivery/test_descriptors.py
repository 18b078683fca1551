"""A process with too few file descriptors for its limit: that is no failure of the host, nor of a status."""

from __future__ import annotations

import asyncio
import json
import sys

from printos_async import APIError, PrintOSClient, RetryPolicy, TransportError
from printos_async._execution.concurrency import is_overload
from printos_async.sandbox import Faults, Sandbox
from tests.conftest import KEY, SECRET

STATUSES = 3_000
# On its own: the limit on descriptors is the process's.
PROGRAM = f"""
import asyncio, json, resource, sys
from printos_async import CircuitChanged, ConcurrencyLimit, DeviceStatusUpdate, HmacAuth, PrintOSClient

async def main():
    circuit = []
    watch = lambda event: circuit.append(event.circuit) if isinstance(event, CircuitChanged) else None
    limit = ConcurrencyLimit(initial=256)
    auth = HmacAuth({KEY!r}, {SECRET!r})
    async with PrintOSClient(sys.argv[1], auth=auth, limit=limit, hooks=[watch]) as client:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
        async with client.status_pusher() as pusher:
            for device in range({STATUSES}):
                await pusher.put(f"dev-{{device}}", DeviceStatusUpdate(status="DS_ON"))
            stats = await pusher.drain(30)
    print(json.dumps([stats.sent, stats.failed, stats.requests, stats.limit, circuit]))

asyncio.run(main())
"""


async def test_a_process_without_descriptors_lowers_its_limit_and_gives_nothing_up() -> None:
    async with Sandbox(hmac_keys={KEY: SECRET}, faults=Faults(latency_s=0.02)) as sandbox:
        for device in range(STATUSES):
            sandbox.add_device(f"dev-{device}")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, sandbox.url, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
    sent, failed, requests, limit, circuit = json.loads(output)
    assert (sent, failed, circuit) == (STATUSES, 0, [])
    assert limit < 160
    assert requests < 1.5 * STATUSES


async def test_a_refused_connection_is_not_this_machines_failure(unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    async with PrintOSClient(url, auth=None, retry=RetryPolicy(max_attempts=1)) as client:
        try:
            await client.list_devices()
        except APIError as error:
            failure = error
    assert isinstance(failure, TransportError)
    assert not failure.local
    assert not is_overload(failure)

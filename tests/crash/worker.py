"""A process that puts and sends, until it is ended: ``python worker.py SETTINGS``, with the fields of ``Settings`` in JSON.

It says on its output, a line each:

- ``closed ERROR``: the pusher could not be opened, which is tried again;
- ``ready``: it is open;
- ``accepted DEVICE PAGES``: ``put`` has returned, or ``push`` has;
- ``sent DEVICE PAGES``: ``push`` has returned, with the outcome ``"sent"``;
- ``refused ERROR``: ``put`` has raised an ``OutboxError``;
- ``done STATS``: everything was put, and the pusher has drained and closed; the account in JSON.

With ``stay`` it goes on sending until its input ends, and drains then.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Literal

from attrs import asdict, frozen

from printos_async import (
    DeviceStatusUpdate,
    DeviceStatusUpdateMetrics,
    HmacAuth,
    OutboxError,
    PrintOSClient,
    PusherClosedError,
    RetryPolicy,
    SqlOutbox,
)

if TYPE_CHECKING:
    from printos_async import StatusPusher

KEY, SECRET = "testkey123", "testsecret456"
PUSHED = 5  # every fifth status is pushed rather than put


@frozen(kw_only=True)
class Settings:
    """Work of a worker: ``count`` rounds, in each of which every device gets a status with the next page count."""

    server: str
    outbox: str
    lease_s: float
    timeout_s: float
    ambiguity_s: float
    consistency: Literal["eventual", "strict"] = "strict"
    devices: tuple[str, ...] = ()
    first: int = 0
    count: int = 0
    pause_s: float = 0.0
    stay: bool = False
    pushes: bool = True


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def status(pages: int) -> DeviceStatusUpdate:
    return DeviceStatusUpdate(status="DS_PRINTING", metrics=DeviceStatusUpdateMetrics(pages_total=pages))


async def put(pusher: StatusPusher, device_id: str, pages: int) -> None:
    try:
        await pusher.put(device_id, status(pages))
    except OutboxError as error:
        say("refused", type(error).__name__)
    else:
        say("accepted", device_id, pages)


async def push(pusher: StatusPusher, device_id: str, pages: int) -> None:
    try:
        result = await pusher.push(device_id, status(pages))
    except OutboxError as error:
        say("refused", type(error).__name__)
    except PusherClosedError:
        pass  # it was accepted, and others are to send it
    else:
        say("accepted", device_id, pages)
        if result.outcome == "sent":
            say("sent", device_id, pages)


async def put_all(pusher: StatusPusher, settings: Settings) -> None:
    async with asyncio.TaskGroup() as pushes:
        for pages in range(settings.first, settings.first + settings.count):
            puts = []
            for index, device_id in enumerate(settings.devices):
                if settings.pushes and (pages + index) % PUSHED == 0:
                    pushes.create_task(push(pusher, device_id, pages))
                else:
                    puts.append(put(pusher, device_id, pages))
            await asyncio.gather(*puts)
            await asyncio.sleep(settings.pause_s)


async def input_ends() -> None:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    await reader.read()
    transport.close()


async def opened(client: PrintOSClient, settings: Settings) -> StatusPusher:
    """Return an open pusher; the database may be unreachable for a while."""
    while True:
        outbox = SqlOutbox(settings.outbox, lease_s=settings.lease_s)
        pusher = client.status_pusher(
            outbox=outbox, consistency=settings.consistency, ambiguity_s=settings.ambiguity_s
        )
        try:
            return await pusher.__aenter__()
        except OutboxError as error:
            say("closed", type(error).__name__)
            await pusher.aclose()


async def main() -> None:
    settings = Settings(**json.loads(sys.argv[1]))
    async with PrintOSClient(
        settings.server,
        auth=HmacAuth(KEY, SECRET),
        timeout_s=settings.timeout_s,
        retry=RetryPolicy(base_delay_s=0.01, max_delay_s=0.2),
    ) as client:
        pusher = await opened(client, settings)
        try:
            say("ready")
            await put_all(pusher, settings)
            if settings.stay:
                await input_ends()
            stats = await pusher.drain(timeout_s=120.0)
        finally:
            await pusher.aclose()
    say("done", json.dumps(asdict(stats)))


if __name__ == "__main__":
    asyncio.run(main())

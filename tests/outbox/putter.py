"""Puts statuses into an outbox and says of each that it was accepted, once ``put`` has returned. Ended at any moment.

``python putter.py URL --devices 4 --count 20``. Every line of the output is JSON: ``{"device", "number"}`` for a
status that was accepted, ``{"error", "text"}`` for a call that failed. The body of a status holds device and number.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from printos_async import OutboxError
from printos_async.outbox import Draft, SqlOutbox

ACCOUNT = "account"
OPENINGS = 3


def body(device: str, number: int) -> bytes:
    return json.dumps({"deviceId": device, "status": "DS_ON", "metrics": {"pagesTotal": number}}).encode()


def read(text: bytes) -> tuple[str, int]:
    """Return device and number of a body; one that ``body`` did not make is an error."""
    found = json.loads(text)
    device, number = found["deviceId"], found["metrics"]["pagesTotal"]
    if text != body(device, number):
        raise ValueError(f"no body that was put: {text!r}")
    return device, number


async def stored(url: str) -> dict[str, int]:
    """Return the number of the newest status of every device that waits in an outbox."""
    outbox = SqlOutbox(url)
    await outbox.open(ACCOUNT)
    try:
        return await claimed(outbox)
    finally:
        await outbox.aclose()


async def claimed(outbox: SqlOutbox) -> dict[str, int]:
    """Claim everything that waits, and return the number of each device; bodies that nobody put are an error."""
    owner = await outbox.join()
    found = {}
    while claims := await outbox.claim(owner, 1000):
        for claim in claims:
            device, number = read(claim.body)
            assert device == claim.device_id
            found[device] = number
    await outbox.leave(owner)
    return found


def say(**line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def put_all(outbox: SqlOutbox, device: str, first: int, count: int) -> None:
    for number in range(first, first + count):
        try:
            await outbox.put([Draft(device, body(device, number))])
        except OutboxError as error:
            say(error=type(error).__name__, text=str(error))
        else:
            say(device=device, number=number)


async def open_outbox(url: str) -> SqlOutbox:
    for _ in range(OPENINGS):
        outbox = SqlOutbox(url)
        try:
            await outbox.open(ACCOUNT)
        except OutboxError as error:
            say(error=type(error).__name__, text=str(error))
            await outbox.aclose()
        else:
            return outbox
    sys.exit("the outbox does not open")


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--prefix", default="dev")
    parser.add_argument("--file-limit-bytes", type=int)
    args = parser.parse_args()
    outbox = await open_outbox(args.url)
    devices = [f"{args.prefix}-{index}" for index in range(args.devices)]
    lifted = None
    if args.file_limit_bytes:
        import resource  # noqa: PLC0415  # Windows has none

        lifted = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (args.file_limit_bytes, lifted[1]))
    await asyncio.gather(*(put_all(outbox, device, args.first, args.count) for device in devices))
    if lifted is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, lifted)
    # Whatever failed before: now it works again, or with the next call where the fault hits this one.
    last = args.first + args.count
    for _ in range(2):
        await asyncio.gather(*(put_all(outbox, device, last, 1) for device in devices))
    await outbox.aclose()


if __name__ == "__main__":
    asyncio.run(main())

"""Service that pushes the status of a fleet to PrintOS every minute, until SIGTERM or Ctrl+C.

    PRINTOS_KEY=... PRINTOS_SECRET=... python examples/push_every_minute.py fleet.jsonl

Another system of the shop keeps the file up to date. Each line is one status, as the specification names its fields:

    {"deviceId": "dev-1", "status": "DS_PRINTING", "metrics": {"pagesTotal": 1200, "inkLevel": 0.4}}
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
from contextlib import suppress
from pathlib import Path

from printos_async import DeviceStatusUpdate, PrintOSClient, StatusPush

# Service managers kill a service that does not end in time, commonly after 10 to 90 s.
GRACE_S = 5.0

log = logging.getLogger("push_every_minute")


def read_fleet(file: Path) -> list[StatusPush]:
    """Return the statuses in the file; a line that cannot be read is logged and left out."""
    fleet = []
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            fields = json.loads(line)
            device_id = fields.pop("deviceId")
            fleet.append(StatusPush(device_id, DeviceStatusUpdate.from_dict(fields)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("line %d of %s is left out: %r", number, file, error)
    return fleet


async def push_repeatedly(printos: PrintOSClient, file: Path, *, every_s: float, stop: asyncio.Event) -> None:
    """Push the fleet every ``every_s`` seconds until ``stop`` is set."""
    loop = asyncio.get_running_loop()
    while not stop.is_set():
        due = loop.time() + every_s
        try:
            fleet = await asyncio.to_thread(read_fleet, file)
            # What is not sent by then is out of date: the next reading replaces it.
            async with asyncio.timeout_at(due):
                report = await printos.push_statuses(fleet)
        except OSError as error:  # TimeoutError is one of them
            log.error("not pushed: %r", error)  # noqa: TRY400  # a missing file needs no traceback
        else:
            log.info("%d sent, %d failed in %.2f s", report.sent, report.failed, report.elapsed_s)
            for failure in report.failures[:10]:
                log.warning("%s: %s", failure.device_id, failure.error)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(due):
                await stop.wait()


async def main() -> None:
    """Push until a signal comes; a push in progress then has ``GRACE_S`` to end."""
    parser = argparse.ArgumentParser(description="Push a fleet's status to PrintOS every minute.")
    parser.add_argument("file", type=Path, help="one status per line, as JSON")
    parser.add_argument("--every-s", type=float, default=60.0, help="seconds from one push to the next")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    try:
        async with PrintOSClient.from_env() as printos, asyncio.timeout(None) as patience:

            def end() -> None:
                stop.set()
                patience.reschedule(loop.time() + GRACE_S)

            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, end)
            await push_repeatedly(printos, arguments.file, every_s=arguments.every_s, stop=stop)
    except TimeoutError:
        log.warning("ended in the middle of a push")
    log.info("ended")


if __name__ == "__main__":
    asyncio.run(main())

"""One of the processes of ``printos push --processes``: sends what it is handed, and tells what became of it.

``python -m printos_async.cli._sender`` reads its settings and then statuses, in JSON lines, from standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import aclosing
from typing import IO, TYPE_CHECKING

from printos_async._errors import PrintOSError
from printos_async._models import DeviceStatusUpdate, StatusPush

from ._client_settings import ClientSettings
from ._outcomes import Outcomes
from ._output import EXIT_FAILED, EXIT_OK, CommandError, complain
from ._processes import ignore_signals, tell
from ._records import DEVICE_ID, JsonLines
from ._source import STANDARD_INPUT, LineReader, Source

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

# ASCII JSON may be several times as long as the line of UTF-8 that it was made from.
_MAX_LINE_BYTES = 16 * 1024 * 1024


async def send(source: Source, out: IO[bytes]) -> None:
    """Send every status, and tell outcomes until the last one is known."""
    async with aclosing(_lines(source)) as lines:
        settings = ClientSettings.from_json(json.loads(await anext(lines, b"{}")))
        parser = JsonLines()
        outcomes = Outcomes(lambda message: tell(out, message))

        async def statuses() -> AsyncGenerator[StatusPush, None]:
            async for line in lines:
                record = parser.parse(line)
                if record is None:  # whoever handed it over has checked it
                    continue
                yield StatusPush(record.pop(DEVICE_ID), DeviceStatusUpdate.from_dict(record))

        async with settings.make_client(hooks=[outcomes.on_event]) as client:
            await client.push_statuses(statuses(), on_result=outcomes.on_result)
    outcomes.end()


async def _lines(source: Source) -> AsyncGenerator[bytes, None]:
    reader = LineReader(source, stop=asyncio.Event(), max_line_bytes=_MAX_LINE_BYTES)
    async with aclosing(reader.batches()) as batches:
        async for batch in batches:
            for line in batch:
                yield line.data


def main() -> int:
    """Run the process."""
    ignore_signals()
    try:
        asyncio.run(send(Source(STANDARD_INPUT), sys.stdout.buffer))
    except BrokenPipeError:
        return EXIT_FAILED  # nobody is left to tell
    except (CommandError, PrintOSError, OSError) as error:
        complain(error)
        return EXIT_FAILED
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())

"""One of the processes of ``printos push --processes``: sends what it is handed, and tells what became of it.

``python -m printos_async.cli._sender`` reads its settings and then statuses, in JSON lines, from standard input.
"""

from __future__ import annotations

import json
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING

from printos_async._models import DeviceStatusUpdate, StatusPush

from . import _parent
from ._outcomes import Outcomes
from .input.records import DEVICE_ID, JsonLines
from .options.client import ClientSettings
from .terminal.log import LibraryWarnings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


async def send() -> None:
    """Send every status, and tell outcomes until the last one is known."""
    parser, outcomes = JsonLines(), Outcomes(_parent.tell)
    async with aclosing(_parent.lines()) as lines:
        settings = ClientSettings.from_json(json.loads(await anext(lines)))

        async def statuses() -> AsyncGenerator[StatusPush, None]:
            async for line in lines:
                record = parser.parse(line)
                if record is not None:  # the parent has checked it
                    yield StatusPush(record.pop(DEVICE_ID), DeviceStatusUpdate.from_dict(record))

        async with settings.make_client(hooks=[outcomes.on_event]) as client:
            with LibraryWarnings(except_for="StatusFailed"):  # the parent names failures
                await client.push_statuses(statuses(), on_result=outcomes.on_result)
    outcomes.end()


if __name__ == "__main__":
    sys.exit(_parent.run(send))

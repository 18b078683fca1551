"""One of the processes of ``printos worker --processes``.

``python -m printos_async.cli._work_process`` reads its settings from standard input, works until that ends, and
tells on standard output what it does.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import aclosing, suppress

from . import _parent
from .commands.work import Work
from .options.worker import WorkerSettings

_INTERVAL_S = 0.5


async def work() -> None:
    """Deliver until the parent wants an end."""
    stop = asyncio.Event()
    async with aclosing(_parent.lines()) as lines:
        doing = Work(WorkerSettings.from_json(json.loads(await anext(lines))))

        async def listen() -> None:
            async for _ in lines:
                pass
            stop.set()

        async def tell() -> None:
            with suppress(BrokenPipeError):  # the parent has ended: then its line has, too
                while True:
                    _parent.tell({**doing.state().to_json(), "isLast": False})
                    await asyncio.sleep(_INTERVAL_S)

        helpers = {asyncio.create_task(listen()), asyncio.create_task(tell())}
        try:
            await doing.run(stop)
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.wait(helpers)
    _parent.tell({**doing.state().to_json(), "isLast": True})


if __name__ == "__main__":
    sys.exit(_parent.run(work))

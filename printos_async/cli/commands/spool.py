"""``printos push --outbox``: puts statuses where workers find them, instead of sending them."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from printos_async._errors import InvalidDeviceIdError, InvalidStatusError, OutboxError
from printos_async.cli.report.counts import Failure
from printos_async.outbox import SqlOutbox

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from printos_async._client import PrintOSClient
    from printos_async._delivery.spooler import Spooler
    from printos_async._models import StatusPush
    from printos_async.cli.report.counts import Tally

# What is put at the same time shares a commit, and each costs a write to the disk.
_AT_ONCE = 1_000


class Spooling:
    """Puts statuses into an outbox.

    Args:
        url: The outbox.
        tally: Where outcomes are counted.
        on_problem: Called with a text when the outbox takes no more.
    """

    def __init__(self, url: str, tally: Tally, *, on_problem: Callable[[str], None]) -> None:
        self._url = url
        self._tally = tally
        self._on_problem = on_problem
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def run(self, client: PrintOSClient, statuses: AsyncGenerator[StatusPush, None]) -> None:
        """Put every status; returns when all of them are durable.

        Raises:
            ConfigurationError: The outbox's URL is no good.
            OutboxError: The outbox cannot be opened. Nothing was put.
        """
        async with (
            client.spooler(SqlOutbox(self._url)) as spooler,
            asyncio.TaskGroup() as puts,
            aclosing(statuses),
        ):
            async for push in statuses:
                await self._room.acquire()
                puts.create_task(self._put(spooler, push))

    async def _put(self, spooler: Spooler, push: StatusPush) -> None:
        try:
            await spooler.put(push.device_id, push.status)
        except OutboxError as error:  # what was not put stays open in the account
            self._on_problem(str(error))
        except (InvalidDeviceIdError, InvalidStatusError) as error:
            self._tally.on_failed(Failure(push.device_id, type(error).__name__, str(error), 0))
        else:
            self._tally.on_accepted(push.device_id)
        finally:
            self._room.release()

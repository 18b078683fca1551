"""Modes of ``printos push`` other than sending in bulk: following a source, and spooling into an outbox."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from printos_async._errors import InvalidDeviceIdError, InvalidStatusError, OutboxError
from printos_async._events import CircuitChanged
from printos_async.cli.push.counts import Failure
from printos_async.cli.terminal.output import complain_of_circuit
from printos_async.cli.terminal.progress import PusherLine
from printos_async.outbox import SqlOutbox

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from printos_async._client import PrintOSClient
    from printos_async._delivery.pusher import StatusPusher
    from printos_async._delivery.spooler import Spooler
    from printos_async._events import Event
    from printos_async._models import StatusPush
    from printos_async.cli.push.counts import Counts

# Statuses that are put at the same time share a commit, and each commit is a write to the disk.
_AT_ONCE = 1_000


class Follow:
    """Pushes statuses as they arrive with a long-lived pusher, and drains at the end.

    Args:
        delivery: The arguments of ``PrintOSClient.status_pusher`` that were given.
        drain_timeout_s: Seconds to drain once the statuses end; None for as long as it takes.
        counts: Counts the outcomes, from the client's events.

    Attributes:
        unconfirmed: Devices whose newest status was acknowledged, but may have been overwritten by an older one
            with a lost answer, and was not sent again in time.
    """

    def __init__(self, delivery: Mapping[str, Any], *, drain_timeout_s: float | None, counts: Counts) -> None:
        self._delivery = delivery
        self._drain_timeout_s = drain_timeout_s
        self._counts = counts
        self._pusher: StatusPusher | None = None
        self._waiting_for_room = 0
        self._line = PusherLine()
        self.unconfirmed = 0

    def on_event(self, event: Event) -> None:
        """Count outcomes and report outages; a hook of the client."""
        self._counts.on_outcome(event)
        if isinstance(event, CircuitChanged):
            complain_of_circuit(event)

    async def run(self, client: PrintOSClient, statuses: AsyncGenerator[StatusPush, None]) -> None:
        """Push until the statuses end, then drain; cancellation gives up what is not sent."""
        pusher = self._pusher = client.status_pusher(**self._delivery)
        try:
            async with aclosing(pusher), aclosing(statuses):
                async for push in statuses:
                    self._waiting_for_room = 1
                    await pusher.put(push.device_id, push.status)
                    self._waiting_for_room = 0
                await pusher.drain(self._drain_timeout_s)
        finally:
            open_devices = self._counts.open_devices - self._waiting_for_room
            self.unconfirmed = pusher.stats().active_devices - open_devices

    def sample(self) -> str:
        """Return the current state in one line."""
        if self._pusher is None:
            return ""
        return self._line.describe(self._pusher.stats(), retries=self._counts.retries)


class Spooling:
    """Puts statuses into an outbox.

    Args:
        url: The outbox.
        counts: Counts the outcomes.
        on_problem: Called with a message when the outbox accepts no more.
    """

    def __init__(self, url: str, counts: Counts, *, on_problem: Callable[[str], None]) -> None:
        self._url = url
        self._counts = counts
        self._on_problem = on_problem
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def run(self, client: PrintOSClient, statuses: AsyncGenerator[StatusPush, None]) -> None:
        """Put every status; returns when all of them are durable.

        Raises:
            ConfigurationError: The outbox's URL is not valid.
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
        except OutboxError as error:  # the status stays open in the counts
            self._on_problem(str(error))
        except (InvalidDeviceIdError, InvalidStatusError) as error:
            self._counts.on_failed(Failure(push.device_id, type(error).__name__, str(error), 0))
        else:
            self._counts.on_accepted(push.device_id)
        finally:
            self._room.release()

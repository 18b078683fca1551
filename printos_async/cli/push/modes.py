"""Modes of ``printos push``: sending in bulk, following a source, and spooling into an outbox."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from printos_async._errors import OutboxError
from printos_async.cli.terminal.progress import PusherLine
from printos_async.cli.terminal.signals import GRACE_S
from printos_async.outbox import SqlOutbox

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from printos_async._client import PrintOSClient
    from printos_async._delivery.pusher import StatusPusher
    from printos_async._delivery.spooler import Spooler
    from printos_async._models import StatusPush
    from printos_async.cli.monitoring.monitor import Monitor

    from .counts import Counts

    Statuses = AsyncGenerator[StatusPush, None]

# Less than the time after which a service that does not stop is killed: 90 s under systemd, 30 s in Kubernetes.
# Docker kills after 10 s, so --drain-timeout has to be less there.
DEFAULT_DRAIN_TIMEOUT_S = 10.0
# Statuses that are put at the same time share a commit, and each commit is a write to the disk.
_AT_ONCE = 1_000


class Mode(ABC):
    """Hands the statuses of a source over.

    Attributes:
        is_spooled: Whether an outbox accepts the statuses, and nothing is sent.
        grace_s: Seconds from a stop signal to giving up what is not done.
        unconfirmed: Devices whose newest status was acknowledged, but may have been overwritten by an older one
            with a lost answer, and was not sent again in time.
        held_accounts: Accounts that PrintOS refuses at the end.
        monitor: Serves health and metrics where a long-lived pusher sends; it has hooks for the client.
    """

    is_spooled: bool = False
    grace_s: float = GRACE_S
    unconfirmed: int = 0
    held_accounts: int = 0
    monitor: Monitor | None = None

    @property
    def has_pusher(self) -> bool:
        """Whether a long-lived pusher sends. Then outages are waited for."""
        return self.monitor is not None

    @property
    def done(self) -> str:
        """What becomes of a status: it is sent, or accepted by an outbox."""
        return "accepted" if self.is_spooled else "sent"

    @abstractmethod
    async def run(self, client: PrintOSClient, statuses: Statuses, counts: Counts) -> None:
        """Hand over every status, and return when all have an outcome; cancellation gives up the rest."""

    def progress(self, counts: Counts, elapsed_s: float) -> str:
        """Return the current state in one line."""
        failed = f" · {counts.failed:,} failed" if counts.failed else ""
        return f"{counts.done:,} {self.done}{failed} · {counts.done / max(elapsed_s, 0.001):,.0f}/s"


class Bulk(Mode):
    """Sends in bulk with ``PrintOSClient.push_statuses``."""

    async def run(self, client: PrintOSClient, statuses: Statuses, counts: Counts) -> None:  # noqa: ARG002  # counts events
        """Send every status."""
        await client.push_statuses(statuses)


class Follow(Mode):
    """Sends statuses as they arrive with a long-lived pusher, and drains at the end.

    Args:
        delivery: The arguments of ``PrintOSClient.status_pusher`` that were given.
        drain_timeout_s: Seconds to drain once the statuses end; None for as long as it takes, and the default
            after a signal.
        monitor: Serves health and metrics.
    """

    def __init__(self, delivery: Mapping[str, Any], drain_timeout_s: float | None, monitor: Monitor) -> None:
        self._delivery = delivery
        self._drain_timeout_s = drain_timeout_s
        self._pusher: StatusPusher | None = None
        self._line = PusherLine()
        self.monitor: Monitor = monitor
        self.grace_s = DEFAULT_DRAIN_TIMEOUT_S if drain_timeout_s is None else drain_timeout_s

    async def run(self, client: PrintOSClient, statuses: Statuses, counts: Counts) -> None:
        """Send until the statuses end, then drain."""
        pusher = self._pusher = client.status_pusher(**self._delivery)
        waiting_for_room = 0
        try:
            async with self.monitor, aclosing(pusher), aclosing(statuses):
                self.monitor.watch(pusher, lambda: self.progress(counts, 0.0))
                async for push in statuses:
                    waiting_for_room = 1
                    await pusher.put(push.device_id, push.status)
                    waiting_for_room = 0
                await pusher.drain(self._drain_timeout_s)
        finally:
            stats = pusher.stats()
            self.unconfirmed = stats.active_devices - (counts.open_devices - waiting_for_room)
            self.held_accounts = stats.held_accounts

    def progress(self, counts: Counts, elapsed_s: float) -> str:  # noqa: ARG002  # a rate of its own
        """Return the current state in one line."""
        return (
            "" if self._pusher is None else self._line.describe(self._pusher.stats(), retries=counts.retries)
        )


class Spool(Mode):
    """Puts statuses into an outbox.

    Args:
        url: The outbox; it may hold a password, so never show it.
    """

    is_spooled = True

    def __init__(self, url: str) -> None:
        self._url = url
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def run(self, client: PrintOSClient, statuses: Statuses, counts: Counts) -> None:
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
                puts.create_task(self._put(spooler, push, counts))

    async def _put(self, spooler: Spooler, push: StatusPush, counts: Counts) -> None:
        try:
            await spooler.put(push.device_id, push.status)
        except OutboxError as error:  # the status stays open in the counts
            counts.end_reading(str(error))
        else:
            counts.on_done(push.device_id)
        finally:
            self._room.release()

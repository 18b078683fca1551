"""A worker's lease on its devices: joins the outbox, renews the lease, and joins again after it was lost."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from printos_async._common.clock import steady_s
from printos_async._errors import OutboxError
from printos_async._events import LeaseLost

if TYPE_CHECKING:
    from printos_async._execution.channel import Channel
    from printos_async.outbox import Outbox

    from .dispatch import Dispatcher

_log = logging.getLogger("printos_async.outbox")

# Fraction of the lease, for the drift of clocks and for late answers of the database.
_MARGIN = 0.1
_RENEWALS_PER_LEASE = 4
_RETRY_S = 0.2


class Lease:
    """Lease of one worker.

    Its end, by ``steady_s()``, is counted from before the request to the database, so it is never too late: until then
    no other worker can have taken the devices over.

    Attributes:
        owner: The worker's token; None while there is none.
    """

    def __init__(self, outbox: Outbox, channel: Channel, dispatcher: Dispatcher) -> None:
        self._outbox = outbox
        self._hooks = channel.executor.hooks
        self._timeout_s = channel.timeout_s
        self._dispatcher = dispatcher
        self.owner: int | None = None
        self._wanted = asyncio.Event()

    async def join(self) -> None:
        """Become a worker.

        Raises:
            OutboxError: The outbox cannot be read or written.
        """
        asked_s = steady_s()
        self.owner = await self._outbox.join()
        self._extend(asked_s)

    async def keep(self) -> None:
        """Renew the lease for ever, and join again after it was lost."""
        interval_s = self._outbox.lease_s / _RENEWALS_PER_LEASE
        pause_s = interval_s
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._renew()
            except OutboxError as error:
                _log.warning(
                    "the lease on the outbox cannot be renewed: %s; trying again",
                    error,
                    extra={"error": type(error).__name__},
                )
                pause_s = min(_RETRY_S, interval_s)
            else:
                pause_s = interval_s

    def lose(self) -> None:
        """Drop the lease and join again at once: another worker may have the devices, or the outbox is another one."""
        self.owner = None
        devices = self._dispatcher.lose()
        if devices:
            self._hooks.emit(LeaseLost(devices))  # logged even without hooks
        self._wanted.set()

    async def _renew(self) -> None:
        asked_s = steady_s()
        if self.owner is None:
            await self.join()
        elif await self._outbox.renew(self.owner):
            self._extend(asked_s)
        else:
            self.lose()
            await self.join()

    def _extend(self, asked_s: float) -> None:
        ends_s = asked_s + self._outbox.lease_s * (1 - _MARGIN)
        # Every request gets its whole timeout, and has ended when the lease does.
        self._dispatcher.engine.scheduler.send_until(ends_s - self._timeout_s, lease_ends_s=ends_s)

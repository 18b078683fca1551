"""A worker's lease on its devices: joins the outbox, renews the lease, and joins again after it was lost."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from printos_async._common.clock import steady_s
from printos_async._errors import OutboxError

if TYPE_CHECKING:
    from collections.abc import Callable

    from printos_async.outbox import Outbox

_log = logging.getLogger("printos_async.outbox")

# Fraction of the lease, for the drift of clocks and for late answers of the database.
_MARGIN = 0.1
_RENEWALS_PER_LEASE = 4
_RETRY_S = 0.2


class Lease:
    """Lease of one worker.

    Until ``ends_s`` by ``steady_s()`` no other worker can have taken the devices over. This time is counted from
    before the request to the database, so it is never too late.

    ``on_kept`` is called with each new ``ends_s``; ``on_lost`` when another worker may have taken the devices over.

    Attributes:
        owner: The worker's token; None while there is none.
    """

    def __init__(
        self, outbox: Outbox, *, on_kept: Callable[[float], None], on_lost: Callable[[], None]
    ) -> None:
        self._outbox = outbox
        self._on_kept = on_kept
        self._on_lost = on_lost
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
                _log.warning("lease not renewed: %s", error, extra={"error": type(error).__name__})
                pause_s = min(_RETRY_S, interval_s)
            else:
                pause_s = interval_s

    def lose(self) -> None:
        """Drop the lease and join again at once, because the outbox is another one than before."""
        self.owner = None
        self._on_lost()
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
        self._on_kept(asked_s + self._outbox.lease_s * (1 - _MARGIN))

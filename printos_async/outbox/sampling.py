"""Samples of an outbox's counts, for gauges: reading a gauge never waits for the database."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from printos_async._errors import OutboxError

if TYPE_CHECKING:
    from .administration import OutboxAdministration, OutboxStats

# Counting goes through every row: pauses this many times as long as the last count keep it below 2 % of the time.
_PAUSE_PER_READ = 50
# A database that does not answer leaves counts that are no longer true.
_MAX_AGE_IN_INTERVALS = 3
_RETRY_S = 1.0


class StatsSampler:
    """Reads the counts of an outbox every so often, while it runs.

    Args:
        outbox: The outbox; nothing is read while it is not open.
        every_s: Seconds between two reads; more where the outbox is so large that counting takes long.
    """

    def __init__(self, outbox: OutboxAdministration, *, every_s: float) -> None:
        self._outbox = outbox
        self._every_s = every_s
        self._stats: OutboxStats | None = None
        self._expires_s = 0.0

    @property
    def latest(self) -> OutboxStats | None:
        """The last counts; None while the outbox cannot be read. May be read in any thread."""
        return self._stats if time.monotonic() < self._expires_s else None

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            asked_s = time.monotonic()
            pause_s = self._every_s
            try:
                stats = await self._outbox.stats()
            except OutboxError:
                self._expires_s, pause_s = 0.0, min(self._every_s, _RETRY_S)
            else:
                answered_s = time.monotonic()
                pause_s = max(self._every_s, (answered_s - asked_s) * _PAUSE_PER_READ)
                self._stats, self._expires_s = stats, answered_s + pause_s * _MAX_AGE_IN_INTERVALS
            await asyncio.sleep(pause_s)

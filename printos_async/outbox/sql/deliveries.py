"""The last deliveries of a tenant's devices: collected in memory, and written in batches."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from printos_async._common.clock import steady_s
from printos_async._errors import OutboxError
from printos_async.outbox.deliveries import NewDeliveries
from printos_async.outbox.postgresql.limits import LONG, PROMPT

from .batches import portions, to_json
from .statements.deliveries import DeliveryTimeStatements

if TYPE_CHECKING:
    from collections.abc import Iterable

    from printos_async.outbox.protocol import Finish

    from .database import Database
    from .statements.dialect import Dialect

# A device is written once in this time at most, and later where writing takes long: 1/61 of the time at most.
_INTERVAL_S = 10.0
_PAUSE_PER_WRITE = 60
# Written at once, so that memory is bounded.
_MAX_PENDING = 250_000
_ROWS_AT_ONCE = 5000


class Deliveries:
    """Deliveries of one tenant, written a little later than they took place: a report, not a promise.

    A write for each completion would cost as much as keeping delivered rows, which was measured and refused: see
    ``statements.deletion``.
    """

    def __init__(self, database: Database, dialect: Dialect, tenant: str) -> None:
        self._database = database
        self._tenant = {"this_tenant": tenant}
        self._new = NewDeliveries()
        self._pending: dict[str, float] = {}
        self._next_write_s = 0.0
        self._writing = asyncio.Lock()
        self.statements = DeliveryTimeStatements(dialect)

    def record(self, finished: Iterable[Finish]) -> None:
        """Collect the deliveries among completions."""
        found = self._new.find(finished)
        if found:
            self._pending.update(dict.fromkeys(found, steady_s()))

    @property
    def is_due(self) -> bool:
        """Whether ``write`` should be called: the last one was some time ago, or there is much."""
        if not self._pending or self._writing.locked():
            return False
        return steady_s() >= self._next_write_s or len(self._pending) >= _MAX_PENDING

    async def write(self) -> None:
        """Write what was collected. If that fails, it is tried again later."""
        async with self._writing:
            begun_s = steady_s()
            left, self._pending = self._pending, {}
            # Neighbours share pages: in the order of the devices each page is written once.
            parts = portions(sorted(left.items()))
            try:
                for part in parts:
                    await self._write(part)
                    for device_id, _ in part:
                        del left[device_id]
            except OutboxError:
                self._pending = left | self._pending
            ended_s = steady_s()
            self._next_write_s = ended_s + max(_INTERVAL_S, _PAUSE_PER_WRITE * (ended_s - begun_s))

    async def _write(self, part: list[tuple[str, float]]) -> None:
        now_s = steady_s()
        lines = [(device_id, round(now_s - delivered_s, 3)) for device_id, delivered_s in part]
        # What a loss of power takes away is some seconds of a report.
        await self._database.rows(
            self.statements.write,
            {**self._tenant, "batch": to_json(lines)},
            within=PROMPT,
            outlives_power=False,
        )

    async def leave(self) -> None:
        """Write what was collected by a worker that has ended."""
        self._new.clear()
        await self.write()

    async def purge(self, *, older_than_s: float) -> int:
        """As ``OutboxAdministration.purge_deliveries``."""
        parameters = {**self._tenant, "older_than_s": older_than_s, "limit": _ROWS_AT_ONCE}
        count = 0
        while True:
            rows = await self._database.rows(self.statements.purge, parameters, within=LONG)
            count += len(rows)
            if len(rows) < _ROWS_AT_ONCE:
                return count

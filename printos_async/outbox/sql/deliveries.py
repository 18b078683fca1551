"""The last deliveries of a tenant's devices: collected in memory, and written in batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from printos_async._clock import steady_s
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

# Each device is written once in this time at most: most fleets report less often, and others pay for a part only.
_INTERVAL_S = 10.0
# Written sooner, so that no write takes long.
_MAX_PENDING = 5000
_ROWS_AT_ONCE = 5000


class Deliveries:
    """Deliveries of one tenant, written a little later than they took place: a report, not a promise.

    One write for each completion would cost as much as keeping delivered rows, which was measured and refused: see
    ``statements.deletion``.
    """

    def __init__(self, database: Database, dialect: Dialect, tenant: str) -> None:
        self._database = database
        self._tenant = {"this_tenant": tenant}
        self._new = NewDeliveries()
        self._pending: dict[str, float] = {}
        self._max_pending = _MAX_PENDING
        self._next_write_s = 0.0
        self.statements = DeliveryTimeStatements(dialect)

    def record(self, finished: Iterable[Finish]) -> None:
        """Collect the deliveries among completions."""
        found = self._new.find(finished)
        if found:
            self._pending.update(dict.fromkeys(found, steady_s()))

    async def write_if_due(self) -> None:
        """Write what was collected, if the last write was some seconds ago or there is much."""
        if self._pending and (len(self._pending) >= self._max_pending or steady_s() >= self._next_write_s):
            await self.write()

    async def write(self) -> None:
        """Write what was collected. If that fails, it is tried again later."""
        left = self._pending
        self._pending = {}
        self._next_write_s = steady_s() + _INTERVAL_S
        self._max_pending = _MAX_PENDING
        for part in portions(sorted(left)):
            now_s = steady_s()
            lines = [(device_id, round(now_s - left[device_id], 3)) for device_id in part]
            try:
                # What a loss of power takes away is some seconds of a report.
                await self._database.rows(
                    self.statements.write,
                    {**self._tenant, "batch": to_json(lines)},
                    within=PROMPT,
                    outlives_power=False,
                )
            except OutboxError:
                self._pending = left | self._pending
                self._max_pending = len(self._pending) + _MAX_PENDING
                return
            for device_id in part:
                del left[device_id]

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

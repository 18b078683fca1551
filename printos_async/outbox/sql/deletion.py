"""Deletes rows that hold nothing any more, so that the table is as large as what waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from printos_async.outbox.postgresql.limits import LONG

from .batches import portions, to_json
from .statements.deletion import DeletionStatements

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import Row

    from printos_async.outbox.protocol import Finish

    from .database import Database
    from .statements.dialect import Dialect

# Between two portions other statements get their turn.
_ROWS_AT_ONCE = 5000


class Deletion:
    """Deletes rows of one tenant. The floor is raised before: see ``statements.deletion``."""

    def __init__(self, database: Database, dialect: Dialect, tenant: str) -> None:
        self._database = database
        self._tenant = tenant
        self._statements = DeletionStatements(dialect)

    async def delete_delivered(self, owner: int, finished: Collection[Finish]) -> list[Finish]:
        """Delete rows whose newest status was delivered; return the outcomes that still have to be recorded."""
        lines = [(one.device_id, one.seq) for one in finished if one.may_forget]
        if not lines:
            return [*finished]
        # Neither has to be synced: what is written later is never there without what was written before.
        await self._database.rows(
            self._statements.raise_floor, {"floor": max(seq for _, seq in lines)}, outlives_power=False
        )
        parameters = {"this_tenant": self._tenant, "this_worker": owner, "batch": to_json(sorted(lines))}
        rows = await self._database.rows(self._statements.delete_owned, parameters, outlives_power=False)
        deleted = {row[0] for row in rows}
        return [one for one in finished if one.device_id not in deleted]

    async def delete_idle(self) -> None:
        """Delete a portion of the rows that only stayed for a hold which has passed."""
        parameters = {"this_tenant": self._tenant, "limit": _ROWS_AT_ONCE}
        await self._delete(await self._database.rows(self._statements.idle, parameters))

    async def purge(self, *, failed: bool, older_than_s: float) -> int:
        """As ``OutboxAdministration.purge``."""
        statement = self._statements.given_up if failed else self._statements.delivered
        count, after = 0, ""
        while True:
            parameters = {
                "this_tenant": self._tenant,
                "older_than_s": older_than_s,
                "after": after,
                "limit": _ROWS_AT_ONCE,
            }
            rows = await self._database.rows(statement, parameters, within=LONG)
            count += await self._delete(rows)
            if len(rows) < _ROWS_AT_ONCE:
                return count
            after = rows[-1].device_id

    async def _delete(self, rows: Sequence[Row[Any]]) -> int:
        count = 0
        for part in portions(rows):
            await self._database.rows(self._statements.raise_floor, {"floor": max(row.seq for row in part)})
            lines = sorted((row.device_id, row.seq) for row in part)
            parameters = {"this_tenant": self._tenant, "batch": to_json(lines)}
            count += len(await self._database.rows(self._statements.delete_free, parameters))
        return count

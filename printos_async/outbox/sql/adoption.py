"""Hands the rows of another tenant to the tenant of a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from printos_async.outbox.postgresql.limits import LONG
from printos_async.outbox.tenants import refuse_live_workers

from .batches import portions, to_json
from .repair import Repair
from .statements.adoption import AdoptionStatements
from .statements.deletion import DeletionStatements
from .statements.deliveries import DeliveryTimeStatements
from .take_over import TakeOver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from .database import Database
    from .statements.dialect import Dialect

# Between two portions other statements get their turn.
_ROWS_AT_ONCE = 5000


class Adoption:
    """Hands one tenant's rows to another, in portions: what an error leaves behind is adopted by the next call.

    Each portion is one transaction, so that a row is always with one of the two. In one for all rows, a file would be
    locked for longer than others wait for it.

    Args:
        database: The database of both.
        dialect: Its dialect.
        ours: The tenant that gets the rows.
        theirs: The tenant that has them.
    """

    def __init__(self, database: Database, dialect: Dialect, *, ours: str, theirs: str) -> None:
        self._database = database
        self._ours = {"this_tenant": ours, "other_tenant": theirs}
        self._theirs = {"this_tenant": theirs}
        self._statements = AdoptionStatements(dialect)
        self._deliveries = DeliveryTimeStatements(dialect)
        self._raise_floor = DeletionStatements(dialect).raise_floor
        self._take_over = TakeOver(database, dialect, theirs)
        self._repair = Repair(database, theirs) if dialect.is_sqlite else None

    async def run(self) -> int:
        """Hand over all rows that nobody owns; return how many of them had a status that waits or is a dead letter.

        Raises:
            OutboxError: Workers of the other tenant run.
        """
        [[workers]] = await self._database.rows(self._statements.live_workers, self._theirs, within=LONG)
        refuse_live_workers(workers)
        if self._repair is not None:
            await self._repair.run_if_needed()
        # Of workers that have died.
        await self._take_over.run(delete_until=0.0)
        count, after = 0, ""
        while True:
            page = {**self._theirs, "after": after, "limit": _ROWS_AT_ONCE}
            rows = await self._database.rows(self._statements.page, page, within=LONG)
            for part in portions(rows):
                count += await self._hand_over(part)
            if len(rows) < _ROWS_AT_ONCE:
                break
            after = rows[-1].device_id
        await self._hand_deliveries_over()
        return count

    async def _hand_deliveries_over(self) -> None:
        while True:
            page = {**self._ours, "after": "", "limit": _ROWS_AT_ONCE}
            rows = await self._database.rows(self._deliveries.lines, page, within=LONG)
            for part in portions(rows):
                parameters = {**self._ours, "batch": to_json((row.device_id,) for row in part)}

                async def merge(connection: AsyncConnection, parameters: dict[str, str] = parameters) -> None:
                    if self._statements.lock is not None:
                        await connection.execute(self._statements.lock)
                    await connection.execute(self._deliveries.merge, parameters)
                    await connection.execute(self._deliveries.delete, parameters)

                await self._database.transaction(merge, within=LONG)
            if len(rows) < _ROWS_AT_ONCE:
                return

    async def _hand_over(self, rows: Sequence[Row[Any]]) -> int:
        # Before the rows are deleted: see ``statements.deletion``.
        await self._database.rows(self._raise_floor, {"floor": max(row.seq for row in rows)})
        statements = self._statements
        batch = to_json((row.device_id, row.seq) for row in rows)

        async def merge(connection: AsyncConnection) -> set[str]:
            if statements.lock is not None:
                await connection.execute(statements.lock)
            workers = (await connection.execute(statements.live_workers, self._theirs)).scalar_one()
            refuse_live_workers(workers)
            found = await connection.execute(statements.merge, {**self._ours, "batch": batch})
            merged = {row[0] for row in found}
            lines = to_json((row.device_id, row.seq) for row in rows if row.device_id in merged)
            await connection.execute(statements.delete, {**self._theirs, "batch": lines})
            return merged

        merged = await self._database.transaction(merge, within=LONG)
        return sum(row.is_status for row in rows if row.device_id in merged)

"""Deletes rows that hold nothing any more, so that the table is as large as what waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from .batches import portions, to_json
from .statements.deletion import delete_rows, raise_floor
from .statements.dialect import LIMIT, NOW, OURS, ROW, WORKER, page
from .tables import idle
from .tenant_database import PAGE_ROWS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from printos_async.outbox.protocol import Finish

    from .statements.dialect import Dialect
    from .tenant_database import TenantDatabase


class Deletion:
    """Deletes rows of one tenant. The floor is raised before: see ``statements.deletion``."""

    def __init__(self, database: TenantDatabase) -> None:
        self._database = database
        dialect = database.dialect
        self._raise_floor = raise_floor(dialect)
        self._delete_owned = delete_rows(dialect, ROW.owner == WORKER)
        self._delete_free = delete_rows(dialect, ROW.owner.is_(None) & (ROW.seq == ROW.done_seq))
        self._idle = (
            sa.select(ROW.device_id, ROW.seq)
            .where(OURS, idle, ROW.due_at <= NOW, dialect.is_sound)
            .order_by(ROW.due_at)
            .limit(LIMIT)
        )
        self._delivered = _done(dialect, ROW.error.is_(None))
        self._given_up = _done(dialect, ROW.error.is_not(None))

    async def delete_delivered(self, owner: int, finished: Collection[Finish]) -> list[Finish]:
        """Delete rows whose newest status was delivered; return the outcomes that may have to be recorded."""
        delivered: list[Finish] = []
        others: list[Finish] = []
        for one in finished:
            (delivered if one.may_forget else others).append(one)
        if not delivered:
            return others
        # Need not be synced: what is written later is never there without what was written before.
        deleted = await self._delete(self._delete_owned, delivered, this_worker=owner, outlives_power=False)
        # Where newer statuses have come, ``finish`` finds the rows that are left.
        return others if deleted == len(delivered) else [*finished]

    async def delete_idle(self) -> None:
        """Delete a portion of the rows that only stayed for a hold which has passed."""
        await self._delete_all(await self._database.rows(self._idle, limit=PAGE_ROWS))

    async def purge(self, *, failed: bool, older_than_s: float) -> int:
        """As ``OutboxAdministration.purge``."""
        statement = self._given_up if failed else self._delivered
        count = 0
        async for rows in self._database.pages(statement, older_than_s=older_than_s):
            count += await self._delete_all(rows)
        return count

    async def _delete_all(self, rows: Sequence[sa.Row[Any]]) -> int:
        return sum([await self._delete(self._delete_free, part) for part in portions(rows)])

    async def _delete(
        self,
        statement: sa.Executable,
        rows: Sequence[Finish | sa.Row[Any]],
        *,
        outlives_power: bool = True,
        **parameters: Any,
    ) -> int:
        """Raise the floor, and then delete the rows that have not changed; return their number."""
        lines = sorted((row.device_id, row.seq) for row in rows)
        parameters |= {
            "this_tenant": self._database.tenant,
            "batch": to_json(lines),
            "floor": max(seq for _, seq in lines),
        }

        def delete(connection: sa.Connection) -> int:
            connection.execute(self._raise_floor, parameters)
            return connection.execute(statement, parameters).rowcount

        return await self._database.database.with_connection(delete, outlives_power=outlives_power)


def _done(dialect: Dialect, kind: sa.ColumnElement[bool]) -> sa.Executable:
    """Return the query for a page of rows that nobody owns and that have no waiting status."""
    return page(
        sa.select(ROW.device_id, ROW.seq).where(
            OURS,
            kind,
            ROW.seq == ROW.done_seq,
            ROW.owner.is_(None),
            ROW.done_at <= NOW - sa.bindparam("older_than_s", type_=sa.Double),
            dialect.is_sound,
        )
    )

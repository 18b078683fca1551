"""Hands the rows of another tenant to the tenant of a session, device by device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from printos_async.outbox.tenants import refuse_live_workers

from .batches import portions, to_json
from .deliveries import OUR_DELIVERIES, are_sound
from .limits import LONG
from .repair import repair_if_needed
from .statements.deletion import current_floor, delete_rows, raise_floor
from .statements.dialect import (
    IS_DEAD,
    IS_WAITING,
    LIVE_WORKERS,
    OURS,
    ROW,
    TENANT,
    later,
    later_if_any,
    locked,
    page,
)
from .tables import delivery, outbox, transaction
from .workers import TakeOver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from .statements.dialect import Dialect
    from .tenant_database import TenantDatabase

    Answer = TypeVar("Answer")

# Any number but those of ``prepare`` and of the floor.
_LOCK_KEY: sa.ColumnElement[int] = sa.literal_column("7205731106", sa.BigInteger)
_OTHER: sa.ColumnElement[str] = sa.bindparam("other_tenant", type_=sa.Text)


class Adoption:
    """Hands one tenant's rows to another, in portions: what an error leaves behind is adopted by the next call.

    Each portion is one transaction, so that a row is always with one of the two. In one for all rows, a file would be
    locked for longer than others wait for it.

    Args:
        ours: The database of the tenant that gets the rows.
        theirs: That of the tenant that has them.
    """

    def __init__(self, ours: TenantDatabase, theirs: TenantDatabase) -> None:
        self._theirs = theirs
        self._of_theirs = {"this_tenant": theirs.tenant}
        self._of_both = {"this_tenant": ours.tenant, "other_tenant": theirs.tenant}
        dialect = ours.dialect
        # SQLite has one writer at a time.
        self._lock = None if dialect.is_sqlite else sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY))
        self._page = page(
            sa.select(ROW.device_id, ROW.seq, (IS_WAITING | IS_DEAD).label("is_status")).where(
                OURS, ROW.owner.is_(None)
            )
        )
        self._raise_floor = raise_floor(dialect)
        self._merge = _merge(dialect)
        self._delete = delete_rows(dialect, ROW.owner.is_(None))
        self._page_of_deliveries = page(
            sa.select(delivery.c.device_id).where(OUR_DELIVERIES, *are_sound(dialect)), delivery.c.device_id
        )
        self._merge_deliveries = _merge_deliveries(dialect)
        chosen = dialect.batch(device_id=sa.Text)
        self._delete_deliveries = sa.delete(delivery).where(
            OUR_DELIVERIES, delivery.c.device_id.in_(sa.select(chosen.c.device_id))
        )

    async def run(self) -> int:
        """Hand over all rows that nobody owns; return how many of them had a status that waits or is a dead letter.

        Raises:
            OutboxError: Workers of the other tenant run.
        """
        [[workers]] = await self._theirs.rows(LIVE_WORKERS, within=LONG)
        refuse_live_workers(workers)
        await repair_if_needed(self._theirs)
        # Of workers that have died.
        await TakeOver(self._theirs).run(delete_until=0.0)
        count = 0
        async for rows in self._theirs.pages(self._page):
            for part in portions(rows):
                count += await self._hand_over(part)
        async for rows in self._theirs.pages(self._page_of_deliveries):
            for part in portions(rows):
                await self._hand_deliveries_over(part)
        return count

    async def _hand_over(self, rows: Sequence[sa.Row[Any]]) -> int:
        # Before the rows are deleted: see ``statements.deletion``.
        await self._theirs.rows(self._raise_floor, floor=max(row.seq for row in rows))
        batch = to_json((row.device_id, row.seq) for row in rows)

        def move(connection: sa.Connection) -> set[str]:
            refuse_live_workers(connection.execute(LIVE_WORKERS, self._of_theirs).scalar_one())
            merged = {row[0] for row in connection.execute(self._merge, {**self._of_both, "batch": batch})}
            lines = to_json((row.device_id, row.seq) for row in rows if row.device_id in merged)
            connection.execute(self._delete, {**self._of_theirs, "batch": lines})
            return merged

        merged = await self._after_others(move)
        return sum(row.is_status for row in rows if row.device_id in merged)

    async def _hand_deliveries_over(self, rows: Sequence[sa.Row[Any]]) -> None:
        batch = to_json((row.device_id,) for row in rows)

        def move(connection: sa.Connection) -> None:
            connection.execute(self._merge_deliveries, {**self._of_both, "batch": batch})
            connection.execute(self._delete_deliveries, {**self._of_theirs, "batch": batch})

        await self._after_others(move)

    async def _after_others(self, move: Callable[[sa.Connection], Answer]) -> Answer:
        """Return the result of a transaction that waits for those of other adoptions, which may lock in another order."""

        def locked_move(connection: sa.Connection) -> Answer:
            with transaction(connection):
                if self._lock is not None:
                    connection.execute(self._lock)
                return move(connection)

        return await self._theirs.database.with_connection(locked_move, within=LONG)


def _merge(dialect: Dialect) -> sa.Executable:
    """Return the statement that merges rows of ``other_tenant`` that are still those of a batch, and have no owner."""
    batch = dialect.batch(device_id=sa.Text, seq=sa.BigInteger)
    theirs = locked(
        batch,
        *(column for column in outbox.c if column is not ROW.account),
        where=(ROW.seq == batch.c.seq) & ROW.owner.is_(None),
        tenant=ROW.account == _OTHER,
    )
    # The floor is above the numbers of the deleted rows of both tenants, and of the batch.
    floor = current_floor(dialect)
    ours = {"account", "seq", "done_seq", "owner", "unseen_by"}
    kept = (column for column in outbox.c if column.key not in ours)
    columns = {
        ROW.account: TENANT,
        ROW.seq: floor + 1,
        ROW.done_seq: floor + sa.case((theirs.c.seq > theirs.c.done_seq, 0), else_=1),
        **{column: theirs.c[column.key] for column in kept},
    }
    statement = dialect.insert_rows(outbox, columns, of=theirs)
    new = statement.excluded
    waits, fails = new.seq > new.done_seq, (new.seq == new.done_seq) & new.error.is_not(None)
    is_newer = new.put_at > ROW.put_at
    sends = waits & is_newer
    gives_up = fails & is_newer

    def replaced(name: str, by: sa.ColumnElement[bool]) -> sa.ColumnElement[Any]:
        return sa.case((by, new[name]), else_=ROW[name])

    first, others_first = (
        sa.func.coalesce(ROW.waiting_since, ROW.put_at),
        sa.func.coalesce(new.waiting_since, new.put_at),
    )
    return statement.on_conflict_do_update(
        index_elements=[ROW.account, ROW.device_id],
        set_={
            "seq": ROW.seq + sa.case((sends | gives_up, 1), else_=0),
            # As in a put, the one before is neither delivered nor given up: newest wins.
            "done_seq": sa.case((gives_up, ROW.seq + 1), else_=ROW.done_seq),
            **{name: replaced(name, sends | gives_up) for name in ("body", "crc", "put_at", "attempts")},
            **{name: replaced(name, gives_up) for name in ("done_at", "done_attempts", "error")},
            "due_at": later(ROW.due_at, new.due_at),
            "uncertain_since": later_if_any(ROW.uncertain_since, new.uncertain_since),
            # Its owner has not received it.
            "unseen_by": sa.case((sends, ROW.owner), else_=ROW.unseen_by),
            "waiting_since": sa.case(
                (waits & IS_WAITING & (first <= others_first), first),
                (waits & (IS_WAITING | is_newer), others_first),
                else_=ROW.waiting_since,
            ),
        },
        # A dead letter does not take the place of a status that will be sent. It can be adopted later.
        where=~(gives_up & (IS_WAITING | ROW.owner.is_not(None))),
    ).returning(ROW.device_id)


def _merge_deliveries(dialect: Dialect) -> sa.Executable:
    batch = dialect.batch(device_id=sa.Text)
    rows = (
        sa.select(TENANT, delivery.c.device_id, delivery.c.delivered_at)
        .where(delivery.c.account == _OTHER, delivery.c.device_id.in_(sa.select(batch.c.device_id)))
        .order_by(delivery.c.device_id)
    )
    statement = dialect.insert(delivery).from_select(["account", "device_id", "delivered_at"], rows)
    return statement.on_conflict_do_update(
        index_elements=[delivery.c.account, delivery.c.device_id],
        set_={"delivered_at": later(delivery.c.delivered_at, statement.excluded.delivered_at)},
    )

"""Statements that delete rows, and the floor that keeps sequence numbers from going back.

A delivered row is deleted, and with it the sequence number of its device. A worker that still knows this number must
not take a newer status for an older one. So the database has a floor: no number of a deleted row is above it, and a
new row counts on from it. The floor is raised before rows are deleted, by a statement of its own: a floor that is too
high does no harm, whatever happens between the two.

SQLite has one writer at a time. In PostgreSQL a put may begin before the floor is raised, and insert after the row was
deleted. A lock keeps the two apart: puts share it, and raising the floor waits for those that have begun. So a put
before it still finds the row, and one after it reads the new floor. It is an advisory lock, because transactions that
share a row's lock may overtake a waiting writer again and again.

Keeping delivered rows would need none of this, but was measured to cost too much in SQLite: a status (put, claim,
finish) took 1.3 to 1.9 times as much CPU with 100,000 devices, and 1.4 to 2.5 times with a million, depending on the
size of the batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from printos_async.outbox.sql.tables import meta, outbox

from .dialect import OURS, ROW, locked

if TYPE_CHECKING:
    from .dialect import Dialect

# Any number but that of ``prepare``.
_LOCK_KEY: sa.ColumnElement[int] = sa.literal_column("7205731105", sa.BigInteger)


def current_floor(dialect: Dialect) -> sa.ColumnElement[Any]:
    """Return the floor as an expression for a put."""
    if dialect.is_sqlite:
        return sa.select(meta.c.floor).scalar_subquery()
    gate = (
        sa.select(sa.func.pg_advisory_xact_lock_shared(_LOCK_KEY).label("passed"))
        .cte("gate")
        .prefix_with("MATERIALIZED")
    )
    # A row lock, which blocks nobody here, reads the row's latest state and not that of the statement's snapshot.
    floor = (
        sa.select(meta.c.floor)
        .join_from(gate, meta, sa.true())
        .with_for_update(read=True, key_share=True, of=meta)
        .cte("floor")
        .prefix_with("MATERIALIZED")
    )
    return sa.select(floor.c.floor).scalar_subquery()


def raise_floor(dialect: Dialect) -> sa.Executable:
    """Return the statement that raises the floor to the parameter ``floor``, if it is below."""
    wanted: sa.ColumnElement[int] = sa.bindparam("floor", type_=sa.BigInteger)
    if dialect.is_sqlite:
        return sa.update(meta).where(meta.c.floor < wanted).values(floor=wanted)
    gate = (
        sa.select(
            sa.func.pg_advisory_xact_lock(_LOCK_KEY).label("passed"),
            # Puts wait for this commit. It need not be synced: what relies on it comes later in the same log.
            sa.func.set_config("synchronous_commit", "off", sa.literal_column("true")).label("commits_early"),
            wanted.label("floor"),
        )
        .where(meta.c.floor < wanted)  # where it is high enough already, nobody waits
        .cte("gate")
        .prefix_with("MATERIALIZED")
    )
    return sa.update(meta).where(meta.c.floor < gate.c.floor).values(floor=gate.c.floor)


def delete_rows(dialect: Dialect, condition: sa.ColumnElement[bool]) -> sa.Executable:
    """Return the statement that deletes rows whose numbers are still those of the batch.

    It returns no rows: their number tells whether all were deleted.
    """
    batch = dialect.batch(device_id=sa.Text, seq=sa.BigInteger)
    gone = locked(batch, ROW.device_id, where=(ROW.seq == batch.c.seq) & condition)
    return sa.delete(outbox).where(OURS, ROW.device_id.in_(sa.select(gone.c.device_id)), condition)

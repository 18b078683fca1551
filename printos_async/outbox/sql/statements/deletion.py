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

from sqlalchemy import (
    BigInteger,
    Text,
    bindparam,
    delete,
    func,
    literal_column,
    select,
    true,
    update,
)

from printos_async.outbox.sql.tables import meta, outbox

from .dialect import OURS, ROW, locked

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Executable

    from .dialect import Dialect

# Any number but that of ``prepare``.
_LOCK_KEY: ColumnElement[int] = literal_column("7205731105", BigInteger)


def current_floor(dialect: Dialect) -> ColumnElement[Any]:
    """Return the floor as an expression for a put."""
    if dialect.is_sqlite:
        return select(meta.c.floor).scalar_subquery()
    gate = (
        select(func.pg_advisory_xact_lock_shared(_LOCK_KEY).label("passed"))
        .cte("gate")
        .prefix_with("MATERIALIZED")
    )
    # A row lock, which blocks nobody here, reads the row's latest state and not that of the statement's snapshot.
    floor = (
        select(meta.c.floor)
        .join_from(gate, meta, true())
        .with_for_update(read=True, key_share=True, of=meta)
        .cte("floor")
        .prefix_with("MATERIALIZED")
    )
    return select(floor.c.floor).scalar_subquery()


def raise_floor(dialect: Dialect) -> Executable:
    """Return the statement that raises the floor to the parameter ``floor``, if it is below."""
    wanted: ColumnElement[int] = bindparam("floor", type_=BigInteger)
    if dialect.is_sqlite:
        return update(meta).where(meta.c.floor < wanted).values(floor=wanted)
    gate = (
        select(
            func.pg_advisory_xact_lock(_LOCK_KEY).label("passed"),
            # Puts wait for this commit. It need not be synced: what relies on it comes later in the same log.
            func.set_config("synchronous_commit", "off", literal_column("true")).label("commits_early"),
            wanted.label("floor"),
        )
        .where(meta.c.floor < wanted)  # where it is high enough already, nobody waits
        .cte("gate")
        .prefix_with("MATERIALIZED")
    )
    return update(meta).where(meta.c.floor < gate.c.floor).values(floor=gate.c.floor)


def delete_rows(dialect: Dialect, condition: ColumnElement[bool]) -> Executable:
    """Return the statement that deletes rows whose numbers are still those of the batch."""
    batch = dialect.batch(device_id=Text, seq=BigInteger)
    gone = locked(batch, ROW.device_id, where=(ROW.seq == batch.c.seq) & condition)
    return (
        delete(outbox)
        .where(OURS, ROW.device_id.in_(select(gone.c.device_id)), condition)
        .returning(ROW.device_id)
    )

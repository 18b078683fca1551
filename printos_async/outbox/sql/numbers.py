"""From which number a device counts on whose row is gone: the floor.

A delivered status' row is deleted, and with it the number that its device had. A worker that still knows that number
must not take a newer status for an older one. So the database has a floor: no number of a deleted row is above it, and
a new row counts on from it. It is raised before rows are deleted, by a statement of its own: whatever happens between
the two, a floor that is too high does no harm.

In SQLite there is one writer at a time. In PostgreSQL a put may have begun before the floor was raised, and insert
after the row was deleted. A lock keeps the two apart: puts share it, and who raises the floor waits for those that have
begun. So a put before it still finds the row, and one after it reads the new floor. It is an advisory lock: those who
share a lock on a row may overtake a writer that waits for it, again and again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, bindparam, func, literal_column, select, true, update

from .tables import meta

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Executable

# Any number does that is not that of ``prepare``.
_LOCK_KEY: ColumnElement[int] = literal_column("7205731105", BigInteger)


def current_floor(*, is_sqlite: bool) -> ColumnElement[Any]:
    """Give the floor as an expression for a put."""
    if is_sqlite:
        return select(meta.c.floor).scalar_subquery()
    gate = (
        select(func.pg_advisory_xact_lock_shared(_LOCK_KEY).label("passed"))
        .cte("gate")
        .prefix_with("MATERIALIZED")
    )
    # A lock on the row, which hinders nobody, gives its last state rather than that of the statement's beginning.
    floor = (
        select(meta.c.floor)
        .join_from(gate, meta, true())
        .with_for_update(read=True, key_share=True, of=meta)
        .cte("floor")
        .prefix_with("MATERIALIZED")
    )
    return select(floor.c.floor).scalar_subquery()


def raise_floor(*, is_sqlite: bool) -> Executable:
    """Give the statement that raises the floor to the parameter ``floor``, if it is below."""
    wanted: ColumnElement[int] = bindparam("floor", type_=BigInteger)
    if is_sqlite:
        return update(meta).where(meta.c.floor < wanted).values(floor=wanted)
    gate = (
        select(
            func.pg_advisory_xact_lock(_LOCK_KEY).label("passed"),
            # Puts wait for it. Whatever makes use of it comes later in the log, which is safe up to there by then.
            func.set_config("synchronous_commit", "off", literal_column("true")).label("hurried"),
            wanted.label("floor"),
        )
        .where(meta.c.floor < wanted)  # where others have raised it, nobody has to wait
        .cte("gate")
        .prefix_with("MATERIALIZED")
    )
    return update(meta).where(meta.c.floor < gate.c.floor).values(floor=gate.c.floor)

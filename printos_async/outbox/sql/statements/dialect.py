"""Expressions that the statements share, and where the two dialects differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.types import NullType

from printos_async.outbox.sql.tables import DatabaseTime, RowTime, outbox, worker

from .soundness import is_sound, is_sound_to_claim

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.types import TypeEngine

ROW = outbox.c
NOW = DatabaseTime()
TENANT: sa.ColumnElement[str] = sa.bindparam("this_tenant", type_=sa.Text)
WORKER: sa.ColumnElement[int] = sa.bindparam("this_worker", type_=sa.BigInteger)
LIMIT: sa.ColumnElement[int] = sa.bindparam("limit", type_=sa.Integer)

OURS = ROW.account == TENANT
IS_WAITING = ROW.seq > ROW.done_seq
IS_DEAD = (ROW.seq == ROW.done_seq) & ROW.error.is_not(None)
_THIS = (worker.c.id == WORKER) & (worker.c.account == TENANT)
# The statement's worker, if its lease runs. An update that had to wait for its row reads the clock again.
LIVE = _THIS & (worker.c.lease_until > RowTime())
# The number of the tenant's workers whose lease runs.
LIVE_WORKERS = (
    sa.select(sa.func.count())
    .select_from(worker)
    .where(worker.c.account == TENANT, worker.c.lease_until > NOW)
)


def later(at: sa.ColumnElement[Any], other: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return the later one of two times."""
    return sa.case((at > other, at), else_=other)


def later_if_any(at: sa.ColumnElement[Any], other: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return the later one of two times that may be null."""
    return sa.case((other.is_(None), at), (at > other, at), else_=other)


def page(query: sa.Select[Any], device_id: sa.ColumnElement[str] = ROW.device_id) -> sa.Select[Any]:
    """Return a query's rows of up to ``limit`` devices that come after the device ``after``, in their order."""
    return query.where(device_id > sa.bindparam("after", type_=sa.Text)).order_by(device_id).limit(LIMIT)


def locked(
    batch: sa.CTE,
    *columns: sa.ColumnElement[Any],
    where: sa.ColumnElement[bool],
    tenant: sa.ColumnElement[bool] = OURS,
) -> sa.CTE:
    """Return columns of a batch's rows that fulfil a condition, and lock the rows.

    In the order of their devices, so that two batches cannot deadlock.
    """
    return (
        sa.select(*columns)
        .join_from(batch, outbox, tenant & (ROW.device_id == batch.c.device_id))
        .where(where)
        .order_by(batch.c.device_id)
        .with_for_update(of=outbox)
        .cte("locked", nesting=True)
        .prefix_with("MATERIALIZED")
    )


class Dialect:
    """Expressions that differ between SQLite and PostgreSQL.

    Args:
        name: ``"sqlite"`` or ``"postgresql"``.
    """

    def __init__(self, name: str) -> None:
        self.is_sqlite = name == "sqlite"
        self.insert: Callable[[sa.Table], sqlite.Insert | postgresql.Insert] = (
            sqlite.insert if self.is_sqlite else postgresql.insert
        )
        # PostgreSQL enforces the types of its columns.
        self.is_sound = is_sound() if self.is_sqlite else sa.true()
        self.claim = (
            ROW.device_id,
            ROW.seq,
            self.bytes(ROW.body).label("body"),
            # Null where a value of the row is unsound. No column of its own: each costs time.
            (sa.case((is_sound_to_claim(), ROW.crc)) if self.is_sqlite else ROW.crc).label("crc"),
            ROW.attempts,
            (NOW - ROW.put_at).label("waited_s"),
            (NOW - ROW.uncertain_since).label("uncertain_age_s"),
        )

    def insert_rows(
        self, table: sa.Table, values: Mapping[Any, sa.ColumnElement[Any]], *, of: sa.FromClause
    ) -> sqlite.Insert | postgresql.Insert:
        """Return the statement that inserts rows of values, one for each device of a source, in their order."""
        # Without WHERE, SQLite's parser would take ON CONFLICT for the ON of a join.
        rows = sa.select(*values.values()).where(sa.true()).order_by(of.c.device_id)
        return self.insert(table).from_select(list(values), rows)

    def live_worker(self) -> sa.Select[int]:
        """Return the query for the number of the statement's worker, if its lease runs: the statement may claim for it.

        In PostgreSQL the statement may have to wait for rows before it claims, and commit after the lease's end. So it
        holds a lock of its worker from before it reads the clock. If this lock is free after the lease's end, no
        statement claims for the worker any more. Nobody waits for the lock, and nothing is written for it.
        """
        if self.is_sqlite:
            return sa.select(worker.c.id).where(LIVE)
        begun = (
            sa.select(
                sa.func.pg_advisory_xact_lock_shared(WORKER).label("is_claiming"), RowTime().label("now")
            )
            .cte("begun")
            .prefix_with("MATERIALIZED")
        )
        return (
            sa.select(worker.c.id).join_from(begun, worker, _THIS).where(worker.c.lease_until > begun.c.now)
        )

    def claims_no_more(self) -> sa.ColumnElement[bool]:
        """Return whether no statement claims any more for a worker whose lease has ended: see ``live_worker``."""
        return sa.true() if self.is_sqlite else sa.func.pg_try_advisory_xact_lock(worker.c.id)

    def soundness(self, condition: sa.ColumnElement[bool]) -> sa.ColumnElement[Any]:
        """Return the column that says whether a row is sound. It is the last one of its statement."""
        # Left as SQLite's integer: SQLAlchemy would convert each to a bool.
        return sa.type_coerce(condition if self.is_sqlite else sa.true(), NullType).label("is_sound")

    def batch(self, **columns: type[TypeEngine[Any]]) -> sa.CTE:
        """Return the parameter ``batch``, a JSON array of arrays, as rows with these columns."""
        batch: sa.ColumnElement[Any] = sa.bindparam("batch", type_=sa.Text)
        if self.is_sqlite:
            values = sa.func.json_each(batch).table_valued("value", name="entry")
            fields: list[sa.ColumnElement[Any]] = [
                sa.type_coerce(sa.func.json_extract(values.c.value, sa.literal_column(f"'$[{index}]'")), kind)
                for index, kind in enumerate(columns.values())
            ]
        else:
            values = sa.func.json_array_elements(sa.cast(batch, JSON)).table_valued(
                sa.column("value", JSON), name="entry"
            )
            fields = [
                sa.cast(values.c.value.op("->>")(sa.literal_column(str(index), sa.Integer)), kind)
                for index, kind in enumerate(columns.values())
            ]
        rows = sa.select(*(field.label(name) for name, field in zip(columns, fields, strict=True)))
        # Nested, so that the statement begins with its verb: sqlite3 counts the rows of no other. Materialized, because
        # SQLite would otherwise scan the whole table, and the batch for each of its rows.
        return rows.cte("batch", nesting=True).prefix_with("MATERIALIZED")

    def bytes(self, text: sa.ColumnElement[str]) -> sa.ColumnElement[Any]:
        """Return text as UTF-8 bytes in SQLite, and as text in PostgreSQL."""
        # A disk may have changed the bytes so that they are no UTF-8. PostgreSQL checks that itself.
        return sa.cast(text, sa.LargeBinary) if self.is_sqlite else text

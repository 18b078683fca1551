"""Statements that hand the rows of one tenant to another, device by device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, ColumnElement, Text, bindparam, case, func, literal_column, select

from printos_async.outbox.sql.tables import outbox, worker

from .deletion import current_floor, delete_rows
from .dialect import IS_DEAD, IS_WAITING, NOW, OURS, ROW, TENANT, Dialect, later, later_if_any, locked, page

if TYPE_CHECKING:
    from sqlalchemy import Executable

# Any number but those of ``prepare`` and of the floor.
_LOCK_KEY: ColumnElement[int] = literal_column("7205731106", BigInteger)


class AdoptionStatements:
    """The statements in one dialect. ``this_tenant`` is the other tenant, except in ``merge``.

    Attributes:
        lock: Wait for other adoptions until the end of the transaction; they could lock rows in another order. In
            PostgreSQL; SQLite has one writer at a time.
        live_workers: Count the other tenant's workers whose lease runs.
        page: Return a page of its rows that nobody owns, in the order of the devices, and which hold a status.
        merge: Merge the rows of a batch that are still the same into those of ``this_tenant``; return their devices.
        delete: Delete the rows of a batch that are still the same.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.lock = None if dialect.is_sqlite else select(func.pg_advisory_xact_lock(_LOCK_KEY))
        self.live_workers = (
            select(func.count())
            .select_from(worker)
            .where(worker.c.account == TENANT, worker.c.lease_until > NOW)
        )
        self.page = page(
            select(ROW.device_id, ROW.seq, (IS_WAITING | IS_DEAD).label("is_status")).where(
                OURS, ROW.owner.is_(None)
            )
        )
        self.merge = _merge(dialect)
        self.delete = delete_rows(dialect, ROW.owner.is_(None))


def _merge(dialect: Dialect) -> Executable:
    batch = dialect.batch(device_id=Text, seq=BigInteger)
    theirs = locked(
        batch,
        *(column for column in outbox.c if column is not ROW.account),
        where=(ROW.seq == batch.c.seq) & ROW.owner.is_(None),
        tenant=ROW.account == bindparam("other_tenant", type_=Text),
    )
    # The floor is above the numbers of the deleted rows of both tenants, and of the batch.
    floor = current_floor(is_sqlite=dialect.is_sqlite)
    kept = (
        ROW.device_id,
        ROW.body,
        ROW.crc,
        ROW.put_at,
        ROW.due_at,
        ROW.attempts,
        ROW.uncertain_since,
        ROW.done_at,
        ROW.done_attempts,
        ROW.error,
        ROW.waiting_since,
    )
    columns = {
        ROW.account: TENANT,
        ROW.seq: floor + 1,
        ROW.done_seq: floor + case((theirs.c.seq > theirs.c.done_seq, 0), else_=1),
        **{column: theirs.c[column.key] for column in kept},
    }
    statement = dialect.insert_rows(outbox, columns, of=theirs)
    new = statement.excluded
    waits, fails = new.seq > new.done_seq, (new.seq == new.done_seq) & new.error.is_not(None)
    is_newer = new.put_at > ROW.put_at
    sends = waits & is_newer
    gives_up = fails & is_newer

    def replaced(name: str, by: ColumnElement[bool]) -> ColumnElement[Any]:
        return case((by, new[name]), else_=ROW[name])

    first, others_first = (
        func.coalesce(ROW.waiting_since, ROW.put_at),
        func.coalesce(new.waiting_since, new.put_at),
    )
    merged: Executable = statement.on_conflict_do_update(
        index_elements=[ROW.account, ROW.device_id],
        set_={
            "seq": ROW.seq + case((sends | gives_up, 1), else_=0),
            # As in a put, the one before is neither delivered nor given up: newest wins.
            "done_seq": case((gives_up, ROW.seq + 1), else_=ROW.done_seq),
            **{name: replaced(name, sends | gives_up) for name in ("body", "crc", "put_at", "attempts")},
            **{name: replaced(name, gives_up) for name in ("done_at", "done_attempts", "error")},
            "due_at": later(ROW.due_at, new.due_at),
            "uncertain_since": later_if_any(ROW.uncertain_since, new.uncertain_since),
            # Its owner has not received it.
            "unseen_by": case((sends, ROW.owner), else_=ROW.unseen_by),
            "waiting_since": case(
                (waits & IS_WAITING & (first <= others_first), first),
                (waits & (IS_WAITING | is_newer), others_first),
                else_=ROW.waiting_since,
            ),
        },
        # A dead letter does not take the place of a status that will be sent. It can be adopted later.
        where=~(gives_up & (IS_WAITING | ROW.owner.is_not(None))),
    ).returning(ROW.device_id)
    return merged

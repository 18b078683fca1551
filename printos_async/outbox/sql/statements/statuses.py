"""Statements that move statuses: put, claim, finish, release, and what a worker asks for. One for each operation.

A batch is one parameter, a JSON array that the database takes apart, so that the text of a statement is always the
same. Rows are locked in the order of their devices, so that two batches cannot deadlock.

An UPDATE finds its rows by both columns of the key from a CTE, and not by a parameter for the tenant. PostgreSQL often
has statistics of an almost empty table, by which reading all rows of the tenant for each device seems to be as cheap as
a search with the whole key.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from printos_async.outbox.sql.tables import outbox, unowned_and_waiting

from .deletion import current_floor
from .dialect import IS_WAITING, LIMIT, NOW, OURS, ROW, TENANT, WORKER, Dialect, later, later_if_any, locked
from .soundness import is_sound_after_put


class StatusStatements:
    """The statements in one dialect. ``this_tenant`` is a parameter of all, ``this_worker`` and others of some.

    Attributes:
        put: Insert or replace the newest status of each device of a batch.
        claim: Take unowned devices whose waiting status is due, oldest first.
        finish: Record outcomes, and free the devices for which nothing newer waits.
        release: Free devices with their statuses unsent.
        newer: Return statuses that others have put for devices of the worker, and clear their marks.
        owned: Return everything that waits and is the worker's. No index leads to it: all rows are read.
        progress: Return how far devices have come.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.put = _put(dialect)
        self.claim = _take(dialect, unowned_and_waiting, dialect.live_worker().exists(), owner=WORKER)
        self.finish = _finish(dialect)
        self.release = _release(dialect)
        self.newer = _take(dialect, ROW.unseen_by == WORKER, ROW.owner == WORKER, unseen_by=sa.null())
        self.owned = sa.select(*dialect.claim).where(OURS, ROW.owner == WORKER, IS_WAITING)
        self.progress = _progress(dialect)


def _put(dialect: Dialect) -> sa.Executable:
    batch = dialect.batch(device_id=sa.Text, count=sa.BigInteger, body=sa.Text, crc=sa.BigInteger)
    floor = current_floor(dialect)
    live = dialect.live_worker().scalar_subquery()
    columns = {
        ROW.account: TENANT,
        ROW.device_id: batch.c.device_id,
        ROW.seq: floor + batch.c.count,
        ROW.body: batch.c.body,
        ROW.crc: batch.c.crc,
        ROW.put_at: NOW,
        ROW.due_at: NOW,
        ROW.attempts: sa.literal(0),
        ROW.owner: live,
        # Numbers up to the floor may have been those of a row that was deleted.
        ROW.done_seq: floor,
        ROW.done_attempts: sa.literal(0),
    }
    statement = dialect.insert_rows(outbox, columns, of=batch)
    return statement.on_conflict_do_update(
        index_elements=[ROW.account, ROW.device_id],
        set_={
            "seq": ROW.seq + statement.excluded.seq - statement.excluded.done_seq,
            "body": statement.excluded.body,
            "crc": statement.excluded.crc,
            "put_at": statement.excluded.put_at,
            # A device that waits already keeps its place in the queue.
            "due_at": sa.case((IS_WAITING, ROW.due_at), else_=later(ROW.due_at, statement.excluded.put_at)),
            "attempts": 0,
            "owner": sa.case(
                (ROW.owner.is_(None) & (ROW.due_at <= statement.excluded.put_at), statement.excluded.owner),
                else_=ROW.owner,
            ),
            # Null if the owner itself puts the status.
            "unseen_by": sa.func.nullif(ROW.owner, statement.excluded.owner),
            "waiting_since": sa.case((IS_WAITING, sa.func.coalesce(ROW.waiting_since, ROW.put_at))),
        },
    ).returning(
        ROW.device_id,
        ROW.seq,
        ROW.owner,
        (NOW - ROW.uncertain_since).label("uncertain_age_s"),
        dialect.soundness(is_sound_after_put()),
    )


def _take(
    dialect: Dialect, *conditions: sa.ColumnElement[bool], **changes: sa.ColumnElement[Any]
) -> sa.Executable:
    """Return the statement that changes the oldest of the tenant's rows that are due, and returns them as claims.

    They are ``limit`` at most. Rows that another statement has locked are skipped.
    """
    picked = (
        sa.select(ROW.account, ROW.device_id)
        .where(OURS, *conditions, ROW.due_at <= NOW)
        .order_by(ROW.due_at)
        .limit(LIMIT)
        .with_for_update(skip_locked=True)
        .cte("picked")
        .prefix_with("MATERIALIZED")
    )
    return (
        sa.update(outbox)
        .where(ROW.account == picked.c.account, ROW.device_id == picked.c.device_id)
        .values(**changes)
        .returning(*dialect.claim, ROW.due_at)
    )


def _mine(batch: sa.CTE) -> sa.CTE:
    """Return the batch's rows whose devices the worker owns, and lock them."""
    return locked(batch, ROW.account, *batch.c, where=ROW.owner == WORKER)


def _finish(dialect: Dialect) -> sa.Executable:
    mine = _mine(
        dialect.batch(
            device_id=sa.Text,
            seq=sa.BigInteger,
            hold_s=sa.Double,
            attempts=sa.Integer,
            error=sa.Text,
            keep=sa.Integer,
        )
    )
    return (
        sa.update(outbox)
        .where(
            ROW.account == mine.c.account,
            ROW.device_id == mine.c.device_id,
            ROW.owner == WORKER,
            mine.c.seq.between(ROW.done_seq, ROW.seq),
        )
        .values(
            done_seq=mine.c.seq,
            done_at=NOW,
            done_attempts=mine.c.attempts,
            error=mine.c.error,
            due_at=NOW + mine.c.hold_s,
            uncertain_since=sa.null(),
            owner=sa.case(((ROW.seq > mine.c.seq) | (mine.c.keep == 1), ROW.owner)),
            unseen_by=sa.null(),
            waiting_since=sa.null(),
        )
        .returning(*dialect.claim, ROW.done_seq)
    )


def _progress(dialect: Dialect) -> sa.Executable:
    asked = dialect.batch(device_id=sa.Text)
    free = IS_WAITING & ROW.owner.is_(None) & (ROW.due_at > NOW)
    return sa.select(
        ROW.device_id,
        ROW.seq,
        ROW.done_seq,
        ROW.done_attempts.label("attempts"),
        ROW.error,
        sa.case((free, ROW.due_at - NOW), else_=0.0).label("hold_s"),
        dialect.soundness(dialect.is_sound),
    ).join_from(asked, outbox, OURS & (ROW.device_id == asked.c.device_id))


def _release(dialect: Dialect) -> sa.Executable:
    mine = _mine(
        dialect.batch(device_id=sa.Text, hold_s=sa.Double, attempts=sa.Integer, uncertain_in_s=sa.Double)
    )
    return (
        sa.update(outbox)
        .where(ROW.account == mine.c.account, ROW.device_id == mine.c.device_id, ROW.owner == WORKER)
        .values(
            owner=sa.null(),
            unseen_by=sa.null(),
            # Those that were made are not of a status that the worker has not seen.
            attempts=sa.case((ROW.unseen_by.is_(None), mine.c.attempts), else_=0),
            uncertain_since=later_if_any(ROW.uncertain_since, NOW + mine.c.uncertain_in_s),
            due_at=NOW + later(mine.c.uncertain_in_s, mine.c.hold_s),
        )
    )

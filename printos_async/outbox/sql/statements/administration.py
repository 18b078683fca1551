"""Statements for operators: counts, dead letters, requeueing."""

from __future__ import annotations

import sqlalchemy as sa

from printos_async.outbox.sql.tables import outbox

from .dialect import IS_DEAD, IS_WAITING, LIVE_WORKERS, NOW, OURS, ROW, Dialect, later, page


class AdministrationStatements:
    """The statements in one dialect, with parameters as those of ``StatusStatements``.

    Attributes:
        stats: Count rows and workers.
        failed: Return a page of dead letters, in the order of the devices.
        requeue: Make the dead letters of a batch of devices wait again.
        requeue_all: Make all dead letters wait again.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.stats = _stats()
        self.failed = page(
            sa.select(
                ROW.device_id,
                ROW.seq,
                dialect.bytes(ROW.body).label("body"),
                ROW.done_attempts,
                ROW.error,
                (NOW - ROW.done_at).label("failed_age_s"),
                dialect.soundness(dialect.is_sound),
            ).where(OURS, IS_DEAD)
        )
        chosen = dialect.batch(device_id=sa.Text)
        self.requeue = _requeue(ROW.device_id.in_(sa.select(chosen.c.device_id)))
        self.requeue_all = _requeue(sa.true())


def _requeue(chosen: sa.ColumnElement[bool]) -> sa.Executable:
    # With the next number: done_seq never goes back.
    dead = (
        sa.select(ROW.device_id)
        .where(OURS, IS_DEAD, chosen)
        .order_by(ROW.device_id)
        .with_for_update()
        .cte("dead")
        .prefix_with("MATERIALIZED")
    )
    return (
        sa.update(outbox)
        .where(OURS, ROW.device_id == dead.c.device_id, IS_DEAD)
        .values(
            seq=ROW.seq + 1,
            put_at=NOW,
            due_at=later(ROW.due_at, NOW),
            attempts=0,
            unseen_by=ROW.owner,  # of a worker that owns the device still, see ``Finish.keep``
        )
        .returning(ROW.seq)
    )


def _stats() -> sa.Executable:
    return sa.select(
        sa.func.count().label("devices"),
        sa.func.count(sa.case((IS_WAITING, 1))).label("waiting"),
        sa.func.count(sa.case((IS_WAITING & ROW.owner.is_not(None), 1))).label("claimed"),
        sa.func.count(sa.case((IS_DEAD, 1))).label("failed"),
        LIVE_WORKERS.scalar_subquery().label("workers"),
        (NOW - sa.func.min(sa.case((IS_WAITING, sa.func.coalesce(ROW.waiting_since, ROW.put_at))))).label(
            "oldest_waiting_s"
        ),
    ).where(OURS)

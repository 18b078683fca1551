"""Statements about workers and their leases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, Double, bindparam, delete, false, func, null, select, update

from printos_async.outbox.sql.tables import idle, outbox, unowned_and_waiting, worker

from .dialect import LIVE, NOW, OURS, ROW, TENANT, WORKER, Dialect, later
from .soundness import LATEST_S

if TYPE_CHECKING:
    from sqlalchemy import CTE, Executable


class WorkerStatements:
    """The statements in one dialect, with parameters as those of ``DeliveryStatements``.

    Attributes:
        join: Insert a worker; its lease starts.
        renew: Renew a lease that still runs, and return which upkeep is due.
        expire: End a lease that still runs, now.
        end: Return workers whose lease has ended, and whether they claim no more. A renewal that is running fails if
            it has not changed its row yet, and otherwise the worker is left out.
        take_over: Free the devices of a batch of these workers, and of workers that were deleted. Their writes are
            uncertain from the lease's end, or from now if it is unknown.
        delete: Delete a batch of workers.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.join = (
            dialect.insert(worker)
            .values(
                id=WORKER,
                account=TENANT,
                lease_until=NOW + bindparam("lease_s", type_=Double),
                renewed_at=NOW,
            )
            # A retry may come after an attempt that took place.
            .on_conflict_do_nothing()
        )
        self.renew = _renew(dialect)
        self.expire = (
            update(worker).where(LIVE).values(lease_until=NOW, renewed_at=NOW).returning(worker.c.lease_until)
        )
        self.end = _end(dialect)
        batch = dialect.batch(id=BigInteger)
        self.take_over = _take_over(batch)
        self.delete = delete(worker).where(worker.c.account == TENANT, worker.c.id.in_(select(batch.c.id)))


def _renew(dialect: Dialect) -> Executable:
    others = worker.alias()
    expired = (
        select(func.count())
        .select_from(others)
        .where(others.c.account == TENANT, others.c.lease_until <= NOW)
        .scalar_subquery()
    )
    idle_rows = select(ROW.device_id).where(OURS, idle, ROW.due_at <= NOW).exists()
    # A due time out of range, which no claim would ever reach. An index finds it.
    never_due = select(ROW.device_id).where(OURS, unowned_and_waiting, ROW.due_at > LATEST_S).exists()
    return (
        update(worker)
        .where(LIVE)
        .values(lease_until=NOW + bindparam("lease_s", type_=Double), renewed_at=NOW)
        .returning(
            NOW.label("now"),
            expired.label("expired"),
            idle_rows.label("has_idle"),
            (never_due if dialect.is_sqlite else false()).label("never_due"),
        )
    )


def _end(dialect: Dialect) -> Executable:
    ended = (
        select(worker.c.id)
        .where(worker.c.account == TENANT, worker.c.lease_until <= NOW)
        .with_for_update(skip_locked=True)
        .cte("ended")
        .prefix_with("MATERIALIZED")
    )
    return (
        update(worker)
        .where(worker.c.id == ended.c.id)
        # Not changed, but written: a renewal that waits for the row, or has read it, looks at its lease again.
        .values(lease_until=worker.c.lease_until)
        .returning(worker.c.id, worker.c.lease_until, dialect.claims_no_more().label("claims_no_more"))
    )


def _take_over(batch: CTE) -> Executable:
    # Earlier versions deleted workers although a statement could still claim for them.
    abandoned = (
        select(ROW.device_id, ROW.owner, func.coalesce(worker.c.lease_until, NOW).label("ended_at"))
        .join_from(outbox, worker, worker.c.id == ROW.owner, isouter=True)
        .where(OURS, ROW.owner.is_not(None), worker.c.id.is_(None) | worker.c.id.in_(select(batch.c.id)))
        .cte("abandoned")
        .prefix_with("MATERIALIZED")
    )
    # Compared again once the row is locked: another worker may have taken the device over and claimed it.
    dead = (
        select(ROW.device_id, abandoned.c.ended_at)
        .join_from(abandoned, outbox, OURS & (ROW.device_id == abandoned.c.device_id))
        .where(ROW.owner == abandoned.c.owner)
        .order_by(ROW.device_id)
        .with_for_update(of=outbox)
        .cte("dead")
        .prefix_with("MATERIALIZED")
    )
    return (
        update(outbox)
        .where(OURS, ROW.device_id == dead.c.device_id)
        .values(
            owner=null(),
            unseen_by=null(),
            uncertain_since=dead.c.ended_at,
            due_at=later(ROW.due_at, dead.c.ended_at),
        )
    )

"""The statements about workers, and those that people ask for: counts, dead letters, forgetting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import (
    Double,
    Integer,
    Text,
    bindparam,
    case,
    delete,
    false,
    func,
    null,
    select,
    true,
    update,
)

from .dialect import ACCOUNT, IS_DEAD, IS_WAITING, LIVE, NOW, OURS, ROW, WORKER, Dialect, later
from .soundness import LATEST_S
from .tables import idle, outbox, unowned_and_waiting, worker

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Executable


class Upkeep:
    """The statements in one dialect, with parameters as those of ``Statements``."""

    def __init__(self, dialect: Dialect) -> None:
        self.join = (
            dialect.insert(worker)
            .values(
                id=WORKER,
                account=ACCOUNT,
                lease_until=NOW + bindparam("lease_s", type_=Double),
                renewed_at=NOW,
            )
            # Tried again after it took place.
            .on_conflict_do_nothing()
        )
        self.renew = _renew(dialect)
        self.expire = (
            update(worker).where(LIVE).values(lease_until=NOW, renewed_at=NOW).returning(worker.c.lease_until)
        )
        self.take_over = _take_over()
        self.forget_workers = delete(worker).where(
            worker.c.account == ACCOUNT, worker.c.lease_until <= bindparam("until", type_=Double)
        )
        asked = dialect.batch(device_id=Text)
        free = IS_WAITING & ROW.owner.is_(None) & (ROW.due_at > NOW)
        self.progress = select(
            ROW.device_id,
            ROW.seq,
            ROW.done_seq,
            ROW.done_attempts.label("attempts"),
            ROW.error,
            case((free, ROW.due_at - NOW), else_=0.0).label("hold_s"),
            dialect.telling(dialect.is_sound),
        ).join_from(asked, outbox, OURS & (ROW.device_id == asked.c.device_id))
        self.stats = _stats()
        self.failed = (
            select(
                ROW.device_id,
                ROW.seq,
                dialect.bytes(ROW.body).label("body"),
                ROW.done_attempts,
                ROW.error,
                (NOW - ROW.done_at).label("failed_age_s"),
                dialect.telling(dialect.is_sound),
            )
            .where(OURS, IS_DEAD, ROW.device_id > bindparam("after", type_=Text))
            .order_by(ROW.device_id)
            .limit(bindparam("limit", type_=Integer))
        )
        chosen = dialect.batch(device_id=Text)
        self.requeue = _requeue(ROW.device_id.in_(select(chosen.c.device_id)))
        self.requeue_all = _requeue(true())


def _renew(dialect: Dialect) -> Executable:
    others = worker.alias()
    expired = (
        select(func.count())
        .select_from(others)
        .where(others.c.account == ACCOUNT, others.c.lease_until <= NOW)
        .scalar_subquery()
    )
    rested = select(ROW.device_id).where(OURS, idle, ROW.due_at <= NOW).exists()
    # A status that no claim would find. An index leads to it.
    never_due = select(ROW.device_id).where(OURS, unowned_and_waiting, ROW.due_at > LATEST_S).exists()
    return (
        update(worker)
        .where(LIVE)
        .values(lease_until=NOW + bindparam("lease_s", type_=Double), renewed_at=NOW)
        .returning(
            NOW.label("now"),
            expired.label("expired"),
            rested.label("rested"),
            (never_due if dialect.is_sqlite else false()).label("never_due"),
        )
    )


def _take_over() -> Executable:
    dead = (
        select(ROW.device_id, worker.c.lease_until)
        .join_from(outbox, worker, worker.c.id == ROW.owner)
        .where(OURS, worker.c.account == ACCOUNT, worker.c.lease_until <= NOW)
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
            doubt_since=dead.c.lease_until,
            due_at=later(ROW.due_at, dead.c.lease_until),
        )
    )


def _requeue(chosen: ColumnElement[bool]) -> Executable:
    # A number of its own: done_seq never goes back.
    dead = (
        select(ROW.device_id)
        .where(OURS, IS_DEAD, ROW.owner.is_(None), chosen)
        .order_by(ROW.device_id)
        .with_for_update()
        .cte("dead")
        .prefix_with("MATERIALIZED")
    )
    return (
        update(outbox)
        .where(OURS, ROW.device_id == dead.c.device_id, IS_DEAD)
        .values(seq=ROW.seq + 1, put_at=NOW, due_at=later(ROW.due_at, NOW), attempts=0)
        .returning(ROW.seq)
    )


def _stats() -> Executable:
    live = (
        select(func.count())
        .select_from(worker)
        .where(worker.c.account == ACCOUNT, worker.c.lease_until > NOW)
        .scalar_subquery()
    )
    return select(
        func.count().label("devices"),
        func.count(case((IS_WAITING, 1))).label("waiting"),
        func.count(case((IS_WAITING & ROW.owner.is_not(None), 1))).label("claimed"),
        func.count(case((IS_DEAD, 1))).label("failed"),
        live.label("workers"),
        (NOW - func.min(case((IS_WAITING, func.coalesce(ROW.waiting_since, ROW.put_at))))).label(
            "oldest_waiting_s"
        ),
    ).where(OURS)

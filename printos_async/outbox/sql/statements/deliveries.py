"""Statements on the last deliveries of devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import (
    ColumnElement,
    Double,
    Text,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    or_,
    select,
    true,
    union,
)

from printos_async.outbox.sql.tables import delivery, outbox

from .dialect import IS_DEAD, IS_WAITING, LIMIT, NOW, OURS, ROW, TENANT, Dialect, later, page
from .soundness import is_text, is_time

if TYPE_CHECKING:
    from sqlalchemy import Executable

_LAST = delivery.c
_OURS = _LAST.account == TENANT
_OTHER: ColumnElement[str] = bindparam("other_tenant", type_=Text)
_waiting_since = func.coalesce(ROW.waiting_since, ROW.put_at)


class DeliveryTimeStatements:
    """The statements in one dialect, with parameters as those of ``DeliveryStatements``.

    Attributes:
        write: Insert or replace the last delivery of each device of a batch, given by its age.
        page: Return a page of devices that were delivered, wait or have failed, in the order of the devices.
        purge: Delete a portion of old deliveries of devices without a row.
        lines: Return a page of the devices of ``other_tenant``, in their order.
        merge: Hand the deliveries of a batch of devices from ``other_tenant`` to ``this_tenant``.
        delete: Delete the deliveries of a batch of devices of ``other_tenant``.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.write = _write(dialect)
        self.page = _page(dialect)
        self.purge = _purge()
        self.lines = page(
            select(_LAST.device_id).where(_LAST.account == _OTHER, *_sound(dialect)), _LAST.device_id
        )
        self.merge = _merge(dialect)
        chosen = dialect.batch(device_id=Text)
        self.delete = delete(delivery).where(
            _LAST.account == _OTHER, _LAST.device_id.in_(select(chosen.c.device_id))
        )


def _sound(dialect: Dialect) -> list[ColumnElement[bool]]:
    # A SQLite file may hold values of any type. The next delivery replaces them.
    return [is_text(_LAST.device_id), is_time(_LAST.delivered_at)] if dialect.is_sqlite else []


def _write(dialect: Dialect) -> Executable:
    batch = dialect.batch(device_id=Text, age_s=Double)
    values = {
        _LAST.account: TENANT,
        _LAST.device_id: batch.c.device_id,
        _LAST.delivered_at: NOW - batch.c.age_s,
    }
    statement = dialect.insert_rows(delivery, values, of=batch)
    # Even if the one before is later: then the database's clock was set back, or the value is damaged.
    written: Executable = statement.on_conflict_do_update(
        index_elements=[_LAST.account, _LAST.device_id],
        set_={"delivered_at": statement.excluded.delivered_at},
    )
    return written


def _page(dialect: Dialect) -> Executable:
    silent_since = NOW - bindparam("silent_for_s", type_=Double)
    delivered = page(
        select(_LAST.device_id).where(_OURS, _LAST.delivered_at <= silent_since, *_sound(dialect)),
        _LAST.device_id,
    )
    same = (_LAST.account == ROW.account) & (_LAST.device_id == ROW.device_id)
    never_delivered = page(
        select(ROW.device_id).where(
            OURS,
            IS_DEAD | (IS_WAITING & (ROW.error.is_not(None) | (_waiting_since <= silent_since))),
            ~exists().where(same, *_sound(dialect)),
        )
    )
    # In SQLite a member of a UNION cannot have an order and a limit itself.
    both = union(*(select(each.subquery().c.device_id) for each in (delivered, never_delivered))).subquery()
    chosen = select(both.c.device_id).order_by(both.c.device_id).limit(LIMIT).cte("page")
    return (
        select(
            chosen.c.device_id,
            (NOW - _LAST.delivered_at).label("delivered_age_s"),
            case((IS_WAITING, NOW - _waiting_since)).label("waiting_s"),
            case((ROW.error.is_not(None), NOW - ROW.done_at)).label("failed_age_s"),
            ROW.error,
            dialect.soundness(or_(ROW.device_id.is_(None), dialect.is_sound)),
        )
        .select_from(chosen)
        .outerjoin(delivery, and_(_OURS, _LAST.device_id == chosen.c.device_id, *_sound(dialect)))
        .outerjoin(outbox, OURS & (ROW.device_id == chosen.c.device_id))
        .order_by(chosen.c.device_id)
    )


def _purge() -> Executable:
    gone = (
        select(_LAST.device_id)
        .where(
            _OURS,
            _LAST.delivered_at <= NOW - bindparam("older_than_s", type_=Double),
            ~exists().where(OURS, ROW.device_id == _LAST.device_id),
        )
        .order_by(_LAST.device_id)
        .limit(LIMIT)
        .with_for_update(of=delivery)
        .cte("gone")
        .prefix_with("MATERIALIZED")
    )
    return (
        delete(delivery)
        .where(_OURS, _LAST.device_id.in_(select(gone.c.device_id)))
        .returning(_LAST.device_id)
    )


def _merge(dialect: Dialect) -> Executable:
    batch = dialect.batch(device_id=Text)
    rows = (
        select(TENANT, _LAST.device_id, _LAST.delivered_at)
        .join_from(batch, delivery, (_LAST.account == _OTHER) & (_LAST.device_id == batch.c.device_id))
        .where(true())
        .order_by(_LAST.device_id)
    )
    statement = dialect.insert(delivery).from_select(["account", "device_id", "delivered_at"], rows)
    merged: Executable = statement.on_conflict_do_update(
        index_elements=[_LAST.account, _LAST.device_id],
        set_={"delivered_at": later(_LAST.delivered_at, statement.excluded.delivered_at)},
    )
    return merged

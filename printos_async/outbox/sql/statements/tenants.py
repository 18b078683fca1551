"""Statements about tenants: their labels, and what is there of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, bindparam, case, func, select

from printos_async.outbox.sql.tables import outbox, tenant, worker

from .dialect import IS_DEAD, IS_WAITING, NOW, ROW, TENANT, Dialect

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement


class TenantStatements:
    """The statements in one dialect, with parameters as those of ``DeliveryStatements``.

    Attributes:
        known: Return the tenants that have opened the outbox.
        keep: Insert or replace the label of the tenant.
        waiting: Count what waits of each other tenant, and its workers.
        rows: Count the rows of each tenant.
        workers: Count the workers of each tenant.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.known = select(*_names(dialect))
        label, host = bindparam("label", type_=Text), bindparam("host", type_=Text)
        self.keep = (
            dialect.insert(tenant)
            .values(account=TENANT, label=label, host=host)
            .on_conflict_do_update(index_elements=[tenant.c.account], set_={"label": label, "host": host})
        )
        self.waiting = select(
            *_names(dialect),
            select(func.count())
            .select_from(outbox)
            .where(ROW.account == tenant.c.account, IS_WAITING)
            .scalar_subquery()
            .label("waiting"),
            select(func.count())
            .select_from(worker)
            .where(worker.c.account == tenant.c.account, worker.c.lease_until > NOW)
            .scalar_subquery()
            .label("workers"),
        ).where(tenant.c.account != TENANT)
        self.rows = select(
            dialect.bytes(ROW.account).label("account"),
            func.count(case((IS_WAITING, 1))).label("waiting"),
            func.count(case((IS_DEAD, 1))).label("failed"),
        ).group_by(ROW.account)
        self.workers = (
            select(dialect.bytes(worker.c.account).label("account"), func.count().label("workers"))
            .where(worker.c.lease_until > NOW)
            .group_by(worker.c.account)
        )


def _names(dialect: Dialect) -> list[ColumnElement[Any]]:
    return [dialect.bytes(column).label(column.name) for column in tenant.c]

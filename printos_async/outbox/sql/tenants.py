"""The tenants of a database: their labels, the warning at the opening, and their counts."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from attrs import evolve

from printos_async._errors import OutboxError
from printos_async.outbox.administration import TenantStats
from printos_async.outbox.tenants import find_tenant, warn_of_waiting

from .adoption import Adoption
from .limits import LONG, PROMPT
from .statements.dialect import IS_DEAD, IS_WAITING, NOW, TENANT
from .tables import outbox, tenant, worker

if TYPE_CHECKING:
    from .statements.dialect import Dialect
    from .tenant_database import TenantDatabase


class Tenants:
    """The tenants of a database, as one of them sees them.

    Args:
        database: The database, as the tenant sees it for which it is open.
    """

    def __init__(self, database: TenantDatabase) -> None:
        self._database = database
        self._account = database.tenant
        self._label = self._host = ""
        dialect = database.dialect
        own = tenant.c.account == TENANT
        self._known = sa.select(*_names(dialect)).where(own)
        label, host = sa.bindparam("label", type_=sa.Text), sa.bindparam("host", type_=sa.Text)
        self._keep = (
            dialect.insert(tenant)
            .values(account=TENANT, label=label, host=host)
            .on_conflict_do_update(index_elements=[tenant.c.account], set_={"label": label, "host": host})
        )
        self._others = _counts(dialect, tenant.c.account).where(~own)
        accounts = sa.union(
            sa.select(TENANT.label("account")),
            *(sa.select(table.c.account) for table in (tenant, outbox, worker)),
        ).subquery()
        self._all = _counts(dialect, accounts.c.account).outerjoin_from(
            accounts, tenant, tenant.c.account == accounts.c.account
        )

    async def enter(self, label: str, host: str) -> None:
        """Keep the tenant's label and host, and warn of what waits under others."""
        self._label, self._host = label, host
        # A database that cannot be written to can still be looked at.
        with suppress(OutboxError):
            rows = await self._database.rows(self._known, within=PROMPT)
            known = (_text(rows[0].label), _text(rows[0].host)) if rows else ("", "")
            self._label, self._host = label or known[0], host or known[1]
            if not rows or known != (self._label, self._host):
                await self._database.rows(self._keep, label=self._label, host=self._host, within=PROMPT)
            others = await self._database.rows(self._others, within=LONG)
            warn_of_waiting([self._stats(row) for row in others], self._host)

    async def stats(self) -> list[TenantStats]:
        """As ``OutboxAdministration.tenants``."""
        rows = await self._database.rows(self._all, within=LONG)
        return sorted(map(self._stats, rows), key=lambda one: (one.label, one.account))

    async def adopt(self, wanted: str) -> int:
        """As ``OutboxAdministration.adopt``."""
        other = find_tenant(await self.stats(), wanted)
        return await Adoption(self._database, evolve(self._database, tenant=other.account)).run()

    def _stats(self, row: sa.Row[Any]) -> TenantStats:
        account = _text(row.account)
        is_own = account == self._account
        label, host = _text(row.label), _text(row.host)
        if is_own and row.label is None:  # an empty file has taken the place of a damaged one
            label, host = self._label, self._host
        counts = {"waiting": row.waiting, "failed": row.failed, "workers": row.workers}
        return TenantStats(account=account, label=label, host=host, is_own=is_own, **counts)


def _counts(dialect: Dialect, account: sa.ColumnElement[str]) -> sa.Select[Any]:
    """Return the query for the names and counts of the tenants with these accounts."""

    def count(table: sa.Table, *conditions: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
        return (
            sa.select(sa.func.count())
            .select_from(table)
            .where(table.c.account == account, *conditions)
            .scalar_subquery()
        )

    return sa.select(
        dialect.bytes(account).label("account"),
        *_names(dialect),
        count(outbox, IS_WAITING).label("waiting"),
        count(outbox, IS_DEAD).label("failed"),
        count(worker, worker.c.lease_until > NOW).label("workers"),
    )


def _names(dialect: Dialect) -> list[sa.ColumnElement[Any]]:
    return [dialect.bytes(column).label(column.name) for column in (tenant.c.label, tenant.c.host)]


def _text(value: bytes | str | None) -> str:
    # A disk may have changed the bytes so that they are no UTF-8.
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""

"""The tenants of a database: their labels, the warning at the opening, and their counts."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from attrs import evolve

from printos_async._errors import OutboxError
from printos_async.outbox.administration import TenantStats
from printos_async.outbox.postgresql.limits import LONG, PROMPT
from printos_async.outbox.tenants import find_tenant, warn_of_waiting

from .adoption import Adoption
from .statements.dialect import IS_DEAD, IS_WAITING, NOW, ROW, TENANT
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
        self._known = sa.select(*_names(dialect))
        label, host = sa.bindparam("label", type_=sa.Text), sa.bindparam("host", type_=sa.Text)
        self._keep = (
            dialect.insert(tenant)
            .values(account=TENANT, label=label, host=host)
            .on_conflict_do_update(index_elements=[tenant.c.account], set_={"label": label, "host": host})
        )
        self._waiting = sa.select(
            *_names(dialect),
            sa.select(sa.func.count())
            .select_from(outbox)
            .where(ROW.account == tenant.c.account, IS_WAITING)
            .scalar_subquery()
            .label("waiting"),
            sa.select(sa.func.count())
            .select_from(worker)
            .where(worker.c.account == tenant.c.account, worker.c.lease_until > NOW)
            .scalar_subquery()
            .label("workers"),
        ).where(tenant.c.account != TENANT)
        self._counts = sa.select(
            dialect.bytes(ROW.account).label("account"),
            sa.func.count(sa.case((IS_WAITING, 1))).label("waiting"),
            sa.func.count(sa.case((IS_DEAD, 1))).label("failed"),
        ).group_by(ROW.account)
        self._workers = (
            sa.select(dialect.bytes(worker.c.account).label("account"), sa.func.count().label("workers"))
            .where(worker.c.lease_until > NOW)
            .group_by(worker.c.account)
        )

    async def enter(self, label: str, host: str) -> None:
        """Keep the tenant's label and host, and warn of what waits under others."""
        self._label, self._host = label, host
        # A database that cannot be written to can still be looked at.
        with suppress(OutboxError):
            kept = (await self._names()).get(self._account)
            known_label, known_host = kept or ("", "")
            self._label, self._host = label or known_label, host or known_host
            if kept != (self._label, self._host):
                await self._database.rows(self._keep, label=self._label, host=self._host, within=PROMPT)
            rows = await self._database.rows(self._waiting, within=LONG)
            warn_of_waiting([_waiting(row) for row in rows], self._host)

    async def stats(self) -> list[TenantStats]:
        """As ``OutboxAdministration.tenants``."""
        # Under its label even if an empty file has taken the place of a damaged one.
        names = {self._account: (self._label, self._host), **await self._names()}
        found_rows = await self._database.rows(self._counts, within=LONG)
        rows = {_text(row.account): (row.waiting, row.failed) for row in found_rows}
        worker_rows = await self._database.rows(self._workers, within=PROMPT)
        workers = {_text(row.account): row.workers for row in worker_rows}
        found = []
        for account in {*names, *rows, *workers}:
            label, host = names.get(account, ("", ""))
            waiting, failed = rows.get(account, (0, 0))
            found.append(
                TenantStats(
                    account=account,
                    label=label,
                    host=host,
                    waiting=waiting,
                    failed=failed,
                    workers=workers.get(account, 0),
                    is_own=account == self._account,
                )
            )
        return sorted(found, key=lambda one: (one.label, one.account))

    async def adopt(self, wanted: str) -> int:
        """As ``OutboxAdministration.adopt``."""
        other = find_tenant(await self.stats(), wanted)
        return await Adoption(self._database, evolve(self._database, tenant=other.account)).run()

    async def _names(self) -> dict[str, tuple[str, str]]:
        rows = await self._database.rows(self._known, within=PROMPT)
        return {_text(row.account): (_text(row.label), _text(row.host)) for row in rows}


def _waiting(row: sa.Row[Any]) -> TenantStats:
    account, label, host = _text(row.account), _text(row.label), _text(row.host)
    counts = {"waiting": row.waiting, "failed": 0, "workers": row.workers}
    return TenantStats(account=account, label=label, host=host, is_own=False, **counts)


def _text(value: bytes | str) -> str:
    # A disk may have changed the bytes so that they are no UTF-8.
    return value if isinstance(value, str) else value.decode(errors="replace")


def _names(dialect: Dialect) -> list[sa.ColumnElement[Any]]:
    return [dialect.bytes(column).label(column.name) for column in tenant.c]

"""A database as one of its tenants sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

from printos_async.outbox.postgresql.limits import LONG

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sqlalchemy import Executable, Row

    from .database import Database
    from .statements.dialect import Dialect

# Between two pages other statements get their turn.
PAGE_ROWS = 5000


@frozen
class TenantDatabase:
    """Runs statements on the rows of one tenant.

    Attributes:
        database: The database.
        dialect: That of its statements.
        tenant: The tenant, which is the parameter ``this_tenant`` of all statements.
    """

    database: Database
    dialect: Dialect
    tenant: str

    async def rows(self, statement: Executable, **options: Any) -> Sequence[Row[Any]]:
        """Run a statement as ``Database.rows``, with the same options, and return its rows."""
        return await self.database.rows(statement, this_tenant=self.tenant, **options)

    async def count(self, statement: Executable, **options: Any) -> int:
        """Run a statement as ``Database.count``, and return the number of rows that it has changed."""
        return await self.database.count(statement, this_tenant=self.tenant, **options)

    async def pages(self, statement: Executable, **parameters: Any) -> AsyncIterator[Sequence[Row[Any]]]:
        """Return all rows of a statement in the order of their devices, page by page: see ``dialect.page``."""
        after = ""
        while True:
            rows = await self.rows(statement, within=LONG, after=after, limit=PAGE_ROWS, **parameters)
            yield rows
            if len(rows) < PAGE_ROWS:
                return
            after = rows[-1].device_id

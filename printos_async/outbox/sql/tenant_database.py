"""A database as one of its tenants sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

from .limits import LONG, USUAL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from sqlalchemy import Connection, Executable, Row

    from .database import Database
    from .limits import Limit
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

    async def rows(
        self,
        statement: Executable,
        *,
        on_retry: Callable[[], None] | None = None,
        outlives_power: bool = True,
        within: Limit = USUAL,
        **parameters: Any,
    ) -> Sequence[Row[Any]]:
        """Run a statement in a transaction of its own, and return its rows; none if it returns no rows.

        Args:
            statement: The statement.
            on_retry: As in ``Database.with_connection``.
            outlives_power: As in ``Database.with_connection``.
            within: As in ``Database.with_connection``.
            parameters: Those of the statement, without ``this_tenant``.
        """
        parameters["this_tenant"] = self.tenant

        def execute(connection: Connection) -> Sequence[Row[Any]]:
            result = connection.execute(statement, parameters)
            return result.all() if result.returns_rows else ()

        return await self.database.with_connection(
            execute, on_retry=on_retry, outlives_power=outlives_power, within=within
        )

    async def pages(self, statement: Executable, **parameters: Any) -> AsyncIterator[Sequence[Row[Any]]]:
        """Return all rows of a statement in the order of their devices, page by page: see ``dialect.page``."""
        after = ""
        while True:
            rows = await self.rows(statement, within=LONG, after=after, limit=PAGE_ROWS, **parameters)
            yield rows
            if len(rows) < PAGE_ROWS:
                return
            after = rows[-1].device_id

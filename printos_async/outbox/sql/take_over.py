"""Frees the devices of workers whose lease has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from printos_async.outbox.postgresql.limits import LONG

from .batches import to_json
from .statements.workers import WorkerStatements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Executable, Row

    from .database import Database
    from .statements.dialect import Dialect


class TakeOver:
    """Takes the devices of one tenant's ended workers over, in statements of their own.

    The first one settles which leases have ended: later renewals of these fail, and a worker whose renewal is running is
    left to the next call. The second one sees everything that was claimed before. A statement that was running when the
    lease ended may claim even later, so the third one deletes only workers that are known to claim no more. Until then
    each call frees their devices again.
    """

    def __init__(self, database: Database, dialect: Dialect, tenant: str) -> None:
        self._database = database
        self._tenant = {"this_tenant": tenant}
        self._statements = WorkerStatements(dialect)

    async def run(self, *, delete_until: float) -> None:
        """Free the devices of all ended workers; delete those that claim no more and ended by ``delete_until``."""
        ended = await self._database.rows(self._statements.end, self._tenant, within=LONG)
        await self._run(self._statements.take_over, ended)
        await self._run(
            self._statements.delete,
            [row for row in ended if row.claims_no_more and row.lease_until <= delete_until],
        )

    async def _run(self, statement: Executable, workers: Sequence[Row[Any]]) -> None:
        if workers:
            batch = to_json((row.id,) for row in workers)
            await self._database.rows(statement, {**self._tenant, "batch": batch}, within=LONG)

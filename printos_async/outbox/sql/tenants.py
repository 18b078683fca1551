"""The tenants of a database: their labels, the warning at the opening, and their counts."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from printos_async._errors import OutboxError
from printos_async.outbox.administration import TenantStats
from printos_async.outbox.postgresql.limits import LONG, PROMPT
from printos_async.outbox.tenants import find_tenant, warn_of_waiting

from .adoption import Adoption
from .statements.tenants import TenantStatements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Executable, Row

    from printos_async.outbox.postgresql.limits import Limit

    from .database import Database
    from .statements.dialect import Dialect


class Tenants:
    """The tenants of a database, as one of them sees them.

    Args:
        database: The database.
        dialect: Its dialect.
        account: The tenant for which it is open.
    """

    def __init__(self, database: Database, dialect: Dialect, account: str) -> None:
        self._database = database
        self._dialect = dialect
        self._account = account
        self._label = self._host = ""
        self._statements = TenantStatements(dialect)

    async def enter(self, label: str, host: str) -> None:
        """Keep the tenant's label and host, and warn of what waits under others."""
        self._label, self._host = label, host
        # A database that cannot be written to can still be looked at.
        with suppress(OutboxError):
            await self._keep()
            rows = await self._rows(self._statements.waiting, within=LONG)
            warn_of_waiting([_waiting(row) for row in rows], self._host)

    async def stats(self) -> list[TenantStats]:
        """As ``OutboxAdministration.tenants``."""
        known = await self._known()
        # Under its label even if an empty file has taken the place of a damaged one.
        names = {self._account: (self._label, self._host), **known}
        found_rows = await self._rows(self._statements.rows, within=LONG)
        rows = {_text(row.account): (row.waiting, row.failed) for row in found_rows}
        workers = {_text(row.account): row.workers for row in await self._rows(self._statements.workers)}
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
        adoption = Adoption(self._database, self._dialect, ours=self._account, theirs=other.account)
        return await adoption.run()

    async def _keep(self) -> None:
        kept = (await self._known()).get(self._account)
        label, host = kept or ("", "")
        self._label, self._host = self._label or label, self._host or host
        if kept != (self._label, self._host):
            await self._rows(self._statements.keep, label=self._label, host=self._host)

    async def _known(self) -> dict[str, tuple[str, str]]:
        rows = await self._rows(self._statements.known)
        return {_text(row.account): (_text(row.label), _text(row.host)) for row in rows}

    async def _rows(
        self, statement: Executable, *, within: Limit = PROMPT, **parameters: str
    ) -> Sequence[Row[Any]]:
        return await self._database.rows(
            statement, {"this_tenant": self._account, **parameters}, within=within
        )


def _waiting(row: Row[Any]) -> TenantStats:
    account, label, host = _text(row.account), _text(row.label), _text(row.host)
    counts = {"waiting": row.waiting, "failed": 0, "workers": row.workers}
    return TenantStats(account=account, label=label, host=host, is_own=False, **counts)


def _text(value: bytes | str) -> str:
    # A disk may have changed the bytes so that they are no UTF-8.
    return value if isinstance(value, str) else value.decode(errors="replace")

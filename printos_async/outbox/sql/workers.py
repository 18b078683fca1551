"""Workers of one tenant: their leases, and the devices of those whose lease or process has ended."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

from printos_async.outbox.postgresql.limits import PROMPT, USUAL

from .statements.workers import WorkerStatements
from .take_over import TakeOver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Executable, Row

    from printos_async.outbox.postgresql.limits import Limit

    from .database import Database
    from .deletion import Deletion
    from .repair import Repair
    from .statements.dialect import Dialect

# A little less than the interval at which a worker looks for statuses that others have put.
_LOOK_S = 0.4


class Workers:
    """Adds, renews and removes workers, and frees the devices of those that have ended.

    Args:
        database: Runs the statements.
        dialect: That of the database.
        tenant: The tenant.
        lease_s: Lease of each worker.
        deletion: Deletes rows.
        repair: Repairs the rows of a file.
    """

    def __init__(
        self,
        database: Database,
        dialect: Dialect,
        tenant: str,
        *,
        lease_s: float,
        deletion: Deletion,
        repair: Repair,
    ) -> None:
        self._database = database
        self._statements = WorkerStatements(dialect)
        self._take_over = TakeOver(database, dialect, tenant)
        self._tenant = tenant
        self._lease_s = lease_s
        self._deletion = deletion
        self._repair = repair
        self._locks = database.worker_locks
        self._next_look_s = 0.0

    async def join(self) -> int:
        """As ``Outbox.join``; on SQLite also frees the devices of workers whose process has ended."""
        await self.take_over_dead()
        # Random, so that it is never used twice, and known before the statement runs: a statement of an earlier
        # worker that comes late finds nothing of its own.
        owner = secrets.randbits(62) + 1
        if self._locks is not None:
            # Before others can see the worker.
            self._locks.hold(owner, self._tenant)
        try:
            await self._rows(self._statements.join, within=PROMPT, this_worker=owner, lease_s=self._lease_s)
        except BaseException:
            self._drop_lock(owner)  # it may have joined: then its lease has to end
            raise
        return owner

    async def renew(self, owner: int) -> bool:
        """As ``Outbox.renew``."""
        await self._end_dead_leases()
        rows = await self._rows(
            self._statements.renew, within=PROMPT, this_worker=owner, lease_s=self._lease_s
        )
        if not rows:
            self._drop_lock(owner)
            return False
        if rows[0].expired:
            await self._take_over.run(delete_until=rows[0].now - self._lease_s)
        if rows[0].never_due:
            await self._repair.run()
        if rows[0].has_idle:
            await self._deletion.delete_idle()
        return True

    async def leave(self, owner: int) -> None:
        """As ``Outbox.leave``."""
        rows = await self._rows(self._statements.expire, this_worker=owner)
        if rows:
            await self._take_over.run(delete_until=rows[0].lease_until - self._lease_s)
        self._drop_lock(owner)

    @property
    def is_look_due(self) -> bool:
        """Whether ``take_over_dead`` has something to do."""
        return self._locks is not None and time.monotonic() >= self._next_look_s

    async def take_over_dead(self) -> None:
        """Free the devices of workers on this machine whose process has ended."""
        if await self._end_dead_leases():
            await self._take_over.run(delete_until=0.0)

    async def _end_dead_leases(self) -> bool:
        """End the leases of workers whose process has ended; return whether there are some."""
        if self._locks is None or not self.is_look_due:
            return False
        self._next_look_s = time.monotonic() + _LOOK_S
        dead = self._locks.lock_dead(self._tenant)
        ended = bool(dead)
        try:
            while dead:
                # Nothing but their own statements could own more: they are dead.
                await self._rows(self._statements.expire, this_worker=dead[-1].owner)
                dead.pop().remove()
        finally:
            for file in dead:
                file.close()
        return ended

    def _drop_lock(self, owner: int) -> None:
        if self._locks is not None:
            self._locks.drop(owner)

    async def _rows(
        self, statement: Executable, *, within: Limit = USUAL, **parameters: Any
    ) -> Sequence[Row[Any]]:
        parameters["this_tenant"] = self._tenant
        return await self._database.rows(statement, parameters, within=within)

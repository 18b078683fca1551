"""Workers of one tenant: their leases, and the devices of those whose lease or process has ended."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from .batches import to_json
from .limits import LONG, PROMPT
from .repair import repair
from .statements.dialect import LIVE, NOW, OURS, ROW, TENANT, WORKER, later
from .statements.soundness import LATEST_S
from .tables import idle, outbox, unowned_and_waiting, worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .deletion import Deletion
    from .statements.dialect import Dialect
    from .tenant_database import TenantDatabase

# A little less than the interval at which a worker looks for statuses that others have put.
_LOOK_S = 0.4


class Workers:
    """Adds, renews and removes workers, and frees the devices of those that have ended.

    Args:
        database: The database of the tenant.
        lease_s: Lease of each worker.
        deletion: Deletes rows.
    """

    def __init__(self, database: TenantDatabase, *, lease_s: float, deletion: Deletion) -> None:
        self._database = database
        self._lease_s = lease_s
        self._deletion = deletion
        self._take_over = TakeOver(database)
        self._locks = database.database.connector.worker_locks
        self._next_look_s = 0.0
        dialect = database.dialect
        self._join = (
            dialect.insert(worker)
            .values(
                id=WORKER,
                account=TENANT,
                lease_until=NOW + sa.bindparam("lease_s", type_=sa.Double),
                renewed_at=NOW,
            )
            # A retry may come after an attempt that took place.
            .on_conflict_do_nothing()
        )
        self._renew = _renew(dialect)
        self._expire = (
            sa.update(worker)
            .where(LIVE)
            .values(lease_until=NOW, renewed_at=NOW)
            .returning(worker.c.lease_until)
        )

    async def join(self) -> int:
        """As ``Outbox.join``; on SQLite also frees the devices of workers whose process has ended."""
        await self.take_over_dead()
        # Random, so that it is never used twice, and known before the statement runs: a statement of an earlier
        # worker that comes late finds nothing of its own.
        owner = secrets.randbits(62) + 1
        if self._locks is not None:
            # Before others can see the worker.
            self._locks.hold(owner, self._database.tenant)
        try:
            await self._database.rows(self._join, within=PROMPT, this_worker=owner, lease_s=self._lease_s)
        except BaseException:
            self._drop_lock(owner)  # it may have joined: then its lease has to end
            raise
        return owner

    async def renew(self, owner: int) -> bool:
        """As ``Outbox.renew``."""
        await self._end_dead_leases()
        rows = await self._database.rows(self._renew, within=PROMPT, this_worker=owner, lease_s=self._lease_s)
        if not rows:
            self._drop_lock(owner)
            return False
        if rows[0].expired:
            await self._take_over.run(delete_until=rows[0].now - self._lease_s)
        if rows[0].never_due:
            await repair(self._database)
        if rows[0].has_idle:
            await self._deletion.delete_idle()
        return True

    async def leave(self, owner: int) -> None:
        """As ``Outbox.leave``."""
        rows = await self._database.rows(self._expire, this_worker=owner)
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
        dead = self._locks.lock_dead(self._database.tenant)
        ended = bool(dead)
        try:
            while dead:
                # Nothing but their own statements could own more: they are dead.
                await self._database.rows(self._expire, this_worker=dead[-1].owner)
                dead.pop().remove()
        finally:
            for file in dead:
                file.close()
        return ended

    def _drop_lock(self, owner: int) -> None:
        if self._locks is not None:
            self._locks.drop(owner)


class TakeOver:
    """Takes the devices of one tenant's ended workers over, in statements of their own.

    The first one settles which leases have ended: later renewals of these fail, and a worker whose renewal is running is
    left to the next call. The second one sees everything that was claimed before. A statement that was running when the
    lease ended may claim even later, so the third one deletes only workers that are known to claim no more. Until then
    each call frees their devices again.
    """

    def __init__(self, database: TenantDatabase) -> None:
        self._database = database
        batch = database.dialect.batch(id=sa.BigInteger)
        self._end = _end(database.dialect)
        self._free = _free(batch)
        self._delete = sa.delete(worker).where(
            worker.c.account == TENANT, worker.c.id.in_(sa.select(batch.c.id))
        )

    async def run(self, *, delete_until: float) -> None:
        """Free the devices of all ended workers; delete those that claim no more and ended by ``delete_until``."""
        ended = await self._database.rows(self._end, within=LONG)
        await self._run(self._free, ended)
        await self._run(
            self._delete,
            [row for row in ended if row.claims_no_more and row.lease_until <= delete_until],
        )

    async def _run(self, statement: sa.Executable, workers: Sequence[sa.Row[Any]]) -> None:
        if workers:
            batch = to_json((row.id,) for row in workers)
            await self._database.rows(statement, batch=batch, within=LONG)


def _renew(dialect: Dialect) -> sa.Executable:
    """Return the statement that renews a lease that still runs, and returns which upkeep is due."""
    others = worker.alias()
    expired = (
        sa.select(sa.func.count())
        .select_from(others)
        .where(others.c.account == TENANT, others.c.lease_until <= NOW)
        .scalar_subquery()
    )
    idle_rows = sa.select(ROW.device_id).where(OURS, idle, ROW.due_at <= NOW).exists()
    # A due time out of range, which no claim would ever reach. An index finds it.
    never_due = sa.select(ROW.device_id).where(OURS, unowned_and_waiting, ROW.due_at > LATEST_S).exists()
    return (
        sa.update(worker)
        .where(LIVE)
        .values(lease_until=NOW + sa.bindparam("lease_s", type_=sa.Double), renewed_at=NOW)
        .returning(
            NOW.label("now"),
            expired.label("expired"),
            idle_rows.label("has_idle"),
            (never_due if dialect.is_sqlite else sa.false()).label("never_due"),
        )
    )


def _end(dialect: Dialect) -> sa.Executable:
    """Return the statement that returns workers whose lease has ended, and whether they claim no more.

    A renewal that is running fails if it has not changed its row yet, and otherwise the worker is left out.
    """
    ended = (
        sa.select(worker.c.id)
        .where(worker.c.account == TENANT, worker.c.lease_until <= NOW)
        .with_for_update(skip_locked=True)
        .cte("ended")
        .prefix_with("MATERIALIZED")
    )
    return (
        sa.update(worker)
        .where(worker.c.id == ended.c.id)
        # Not changed, but written: a renewal that waits for the row, or has read it, looks at its lease again.
        .values(lease_until=worker.c.lease_until)
        .returning(worker.c.id, worker.c.lease_until, dialect.claims_no_more().label("claims_no_more"))
    )


def _free(batch: sa.CTE) -> sa.Executable:
    """Return the statement that frees the devices of a batch of ended workers, and of workers that were deleted.

    Their writes are uncertain from the lease's end, or from now if it is unknown.
    """
    # Earlier versions deleted workers although a statement could still claim for them.
    abandoned = (
        sa.select(ROW.device_id, ROW.owner, sa.func.coalesce(worker.c.lease_until, NOW).label("ended_at"))
        .join_from(outbox, worker, worker.c.id == ROW.owner, isouter=True)
        .where(OURS, ROW.owner.is_not(None), worker.c.id.is_(None) | worker.c.id.in_(sa.select(batch.c.id)))
        .cte("abandoned")
        .prefix_with("MATERIALIZED")
    )
    # Compared again once the row is locked: another worker may have taken the device over and claimed it.
    dead = (
        sa.select(ROW.device_id, abandoned.c.ended_at)
        .join_from(abandoned, outbox, OURS & (ROW.device_id == abandoned.c.device_id))
        .where(ROW.owner == abandoned.c.owner)
        .order_by(ROW.device_id)
        .with_for_update(of=outbox)
        .cte("dead")
        .prefix_with("MATERIALIZED")
    )
    return (
        sa.update(outbox)
        .where(OURS, ROW.device_id == dead.c.device_id)
        .values(
            owner=sa.null(),
            unseen_by=sa.null(),
            uncertain_since=dead.c.ended_at,
            due_at=later(ROW.due_at, dead.c.ended_at),
        )
    )

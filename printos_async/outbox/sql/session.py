"""An open database of one tenant: checked rows, and what survives a cancelled call."""

from __future__ import annotations

import asyncio
import time
from operator import itemgetter
from typing import TYPE_CHECKING, Any, cast

from printos_async._errors import OutboxError
from printos_async.outbox.protocol import Claim, Kept

from .background import Background
from .batches import age, as_bytes, crc, merge, portions, to_json
from .deletion import Deletion
from .deliveries import Deliveries
from .limits import LONG, PROMPT
from .repair import repair, repair_if_needed
from .statements.administration import AdministrationStatements
from .statements.dialect import Dialect
from .statements.statuses import StatusStatements
from .tables import is_current, prepare
from .tenant_database import TenantDatabase
from .tenants import Tenants
from .workers import Workers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Executable, Row

    from printos_async.outbox.protocol import Draft, Finish

    from .database import Database

_MAX_REPAIRS = 3
_IS_SOUND = itemgetter(-1)
_DAMAGED = "damaged: the stored status does not match its checksum"
# Where calls fail again and again, reading all rows takes 1/31 of the time at most.
_PAUSE_PER_SCAN = 30


class Session:
    """State of an open ``SqlOutbox``.

    Attributes:
        tenant: The tenant, as in ``Outbox.open``.
        database: Runs the statements.
        rows: Runs a statement on the tenant's rows: see ``TenantDatabase.rows``.
        missing_claims: Workers that may own statuses which they never received.
        background: Operations that run to their end even if their caller is cancelled.
        statuses: Statements on statuses.
        administration: Statements for operators.
        deletion: Deletes rows.
        deliveries: The last deliveries of devices.
        tenants: The tenants of the database.
        workers: The tenant's workers.
    """

    def __init__(self, database: Database, tenant: str, *, lease_s: float) -> None:
        self.tenant = tenant
        self.database = database
        self.background = Background()
        own = self._own = TenantDatabase(database, Dialect(database.connector.dialect), tenant)
        self.rows = own.rows
        self.statuses = StatusStatements(own.dialect)
        self.administration = AdministrationStatements(own.dialect)
        self.deletion = Deletion(own)
        self.deliveries = Deliveries(own)
        self.tenants = Tenants(own)
        self.workers = Workers(own, lease_s=lease_s, deletion=self.deletion)
        self.missing_claims: set[int | None] = set()
        # Puts are numbered in the order of their calls, also on several connections.
        self._putting = asyncio.Lock()
        self._failures = 0
        self._next_scan_s = 0.0

    async def open(self, label: str, host: str) -> None:
        """Create or migrate the tables, repair a file, and enter the tenant. Close the session if that fails."""
        try:
            await self.background.run(_prepare(self.database))
            await self.background.run(repair_if_needed(self._own))
            await self.background.run(self.tenants.enter(label, host))
        except asyncio.CancelledError:
            self.database.abort()
            raise

    async def aclose(self) -> None:
        """Wait for running statements, within a limit, and close the database."""
        try:
            async with asyncio.timeout(self.database.connector.patience_s):
                await self.background.settle()
        except TimeoutError:
            self.database.abort()
            await self.background.settle()
        finally:
            await self.database.aclose()

    async def fetch(self, statement: Executable, **options: Any) -> Sequence[Row[Any]]:
        """Run a statement as ``rows``, to its end even if the caller is cancelled; return its rows."""
        return await self.background.run(self.rows(statement, **options))

    async def fetch_sound(self, statement: Executable, **options: Any) -> Sequence[Row[Any]]:
        """Run a statement as ``fetch`` does, with the rows of ``_sound_rows``."""
        return await self.background.run(self._sound_rows(statement, **options))

    async def take(
        self, statement: Executable, owner: int, limit: int, *, outlives_power: bool = True
    ) -> list[Claim]:
        """Return what a statement claims for a worker, oldest first. What gets lost is found by ``take_newer``."""

        def note_loss() -> None:
            self.missing_claims.add(owner)

        taking = self.rows(
            statement, this_worker=owner, limit=limit, on_retry=note_loss, outlives_power=outlives_power
        )
        rows = await self.background.run(taking, on_loss=note_loss)
        return await self._claims(owner, sorted(rows, key=lambda row: float(row.due_at)))

    async def take_newer(self, owner: int, limit: int) -> list[Claim]:
        """Return newer statuses of the worker's devices, and once, after a loss, everything that waits for it."""
        if self._failures != self.database.connector.failures:
            self._failures = self.database.connector.failures
            self.missing_claims.add(owner)
        if owner in self.missing_claims and time.monotonic() >= self._next_scan_s:
            return await self._claims(owner, await self._owned(owner))
        # A mark that a loss of power brings back is read again.
        return await self.take(self.statuses.newer, owner, limit, outlives_power=False)

    async def _owned(self, owner: int) -> Sequence[Row[Any]]:
        """Return everything that waits and is the worker's. No index leads to it: all rows are read."""
        begun_s = time.monotonic()
        self.missing_claims.discard(owner)  # before: a loss during the scan needs another one
        try:
            rows = await self.fetch(self.statuses.owned, within=LONG, this_worker=owner)
        except BaseException:
            self.missing_claims.add(owner)
            raise
        # Only a scan that took place counts: the time of a vain wait for the server would hold back the next one.
        ended_s = time.monotonic()
        self._next_scan_s = ended_s + _PAUSE_PER_SCAN * (ended_s - begun_s)
        return rows

    async def put(self, drafts: Sequence[Draft], owner: int | None) -> list[Kept]:
        """Store statuses, after those of earlier calls."""
        kept: list[Kept] = []
        async with self._putting:
            for part in portions(drafts):
                kept += await self._put(part, owner)
        return kept

    async def finish(self, finished: Iterable[Finish], owner: int) -> list[Claim]:
        """Record completions, and return the newer statuses of their devices."""
        # Of two completions for one device the later one counts.
        latest = {one.device_id: one for one in sorted(finished, key=lambda one: one.seq)}
        newer: list[Claim] = []
        for part in portions(latest.values()):
            newer += await self._finish(part, owner)
        self.deliveries.record(latest.values())
        self.write_deliveries_if_due()
        return newer

    def write_deliveries_if_due(self) -> None:
        """Start to write the last deliveries if it is time. Nobody waits for it."""
        if self.deliveries.is_due:
            self.background.start(self.deliveries.write())

    async def _put(self, drafts: list[Draft], owner: int | None) -> list[Kept]:
        merged = merge(drafts)
        rows = await self._sound_rows(
            self.statuses.put, within=PROMPT, this_worker=owner, batch=to_json(merged)
        )
        # As tuples, which they are: reading a row's attributes takes longer.
        lines = cast("Sequence[tuple[str, int, int | None, float | None, bool]]", rows)
        newest = {
            device_id: (seq, owner is not None and its_owner == owner, age(uncertain_age_s))
            for device_id, seq, its_owner, uncertain_age_s, _ in lines
        }
        # The statement counted the drafts of each device; the last one has the number that it returned.
        left = {device_id: count for device_id, count, *_ in merged}
        kept = []
        for draft in drafts:
            left[draft.device_id] -= 1
            seq, claimed, uncertain_age_s = newest[draft.device_id]
            kept.append(Kept(seq - left[draft.device_id], claimed, uncertain_age_s if claimed else None))
        return kept

    async def _finish(self, finished: list[Finish], owner: int) -> list[Claim]:
        left = await self.deletion.delete_delivered(owner, finished)
        if not left:
            return []
        lines = [
            (one.device_id, one.seq, one.hold_s, one.attempts, one.error, int(one.keep))
            for one in sorted(left, key=lambda one: one.device_id)
        ]
        # If power is lost before the file is synced, the devices are still owned, and taken over as uncertain.
        # PostgreSQL always syncs: it may lose power while the worker goes on.
        rows = await self.rows(
            self.statuses.finish, this_worker=owner, batch=to_json(lines), outlives_power=False
        )
        return await self._claims(owner, _waiting(rows))

    async def _claims(self, owner: int, rows: Iterable[Row[Any]]) -> list[Claim]:
        """Return the rows as claims. Damaged ones become dead letters instead."""
        claims, damaged, is_sound = [], [], True
        for row in rows:
            checksum = row.crc
            if checksum is None:
                is_sound = False
                continue
            body = as_bytes(row.body)
            if crc(row.device_id, body) != checksum:
                damaged.append((row.device_id, row.seq, 0.0, row.attempts, _DAMAGED, 0))
                continue
            waited_s = max(row.waited_s, 0.0)
            claims.append(
                Claim(row.device_id, row.seq, body, row.attempts, waited_s, age(row.uncertain_age_s))
            )
        if damaged:
            found = await self.rows(self.statuses.finish, this_worker=owner, batch=to_json(sorted(damaged)))
            # A newer status may have come in the meantime.
            claims += await self._claims(owner, _waiting(found))
        if not is_sound:
            await repair(self._own)
        return claims

    async def _sound_rows(self, statement: Executable, **options: Any) -> Sequence[Row[Any]]:
        """Return the rows of a statement that may be repeated. It is, after a repair, if one of them is unsound."""
        for _ in range(_MAX_REPAIRS):
            rows = await self.rows(statement, **options)
            if all(map(_IS_SOUND, rows)):
                return rows
            await repair(self._own)
        raise OutboxError(f"rows of the outbox are still damaged after {_MAX_REPAIRS} repairs")


def _waiting(rows: Iterable[Row[Any]]) -> list[Row[Any]]:
    """Choose the rows of a ``finish`` that have a newer status, or are unsound."""
    return [row for row in rows if row.crc is None or row.seq > row.done_seq]


async def _prepare(database: Database) -> None:
    # Only a migration may take long: a server that is silent at the opening is noticed sooner.
    if not await database.with_connection(is_current, within=PROMPT):
        await database.with_connection(prepare, within=LONG)

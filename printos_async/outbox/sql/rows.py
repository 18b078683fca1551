"""The operations of an outbox on one account's rows, each as a statement or a few."""

from __future__ import annotations

import asyncio
import secrets
import time
from operator import itemgetter
from typing import TYPE_CHECKING, Any, cast

from printos_async._errors import OutboxError
from printos_async.outbox.batching import Background, Grouping
from printos_async.outbox.postgresql.sessions import LONG, PROMPT, USUAL
from printos_async.outbox.protocol import Claim, DeadLetter, Finish, Kept, OutboxStats, Progress

from .batches import age, as_bytes, crc, merge, portions, to_json
from .dialect import Dialect
from .forgetting import Forgetting
from .repair import Repair
from .statements import Statements
from .tables import is_current, prepare
from .upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Executable, Row

    from printos_async.outbox.postgresql.sessions import Limit
    from printos_async.outbox.protocol import Draft, Release

    from .database import Database

_REPAIRS = 3
_IS_SOUND = itemgetter(-1)
_DAMAGED = "damaged: the bytes that the outbox gave back are not those that it was given"
# Where puts fail again and again, so may walks: their share of the time is bounded.
_PAUSE_PER_WALK = 30


class AccountRows:
    """What ``SqlOutbox`` does once it is open; the methods are those of ``Outbox``."""

    def __init__(self, database: Database, *, account: str, lease_s: float) -> None:
        self.account = account
        self._database = database
        self._lease_s = lease_s
        dialect = Dialect(database.dialect)
        self._statements = Statements(dialect)
        self._upkeep = Upkeep(dialect)
        self._forgetting = Forgetting(database, dialect, account)
        self._repair = Repair(database, account)
        self._background = Background()
        self._puts: Grouping[Draft, Kept] = Grouping(self._put)
        self._finishes: Grouping[Finish, Claim | None] = Grouping(self._finish)
        # Workers for which something may have been claimed that they were not told of.
        self._untold: set[int] = set()
        self._server_failures = 0
        self._next_walk_s = 0.0

    @classmethod
    async def open(cls, database: Database, *, account: str, lease_s: float) -> AccountRows:
        """Make the tables if they are missing, and dead letters of rows that cannot be read."""
        background = Background()
        rows = cls(database, account=account, lease_s=lease_s)
        try:
            await background.run(_prepare(database))
            if database.dialect == "sqlite":
                await background.run(rows._repair.run_if_needed())
        except BaseException:
            await background.settle()
            await database.aclose()
            raise
        return rows

    async def aclose(self) -> None:
        try:
            async with asyncio.timeout(self._database.patience_s):
                await self._settle()
        except TimeoutError:
            self._database.abort()
            await self._settle()
        await self._database.aclose()

    async def put(self, drafts: Sequence[Draft], *, owner: int | None) -> list[Kept]:
        return await self._puts.submit(drafts, key=owner)

    async def join(self) -> int:
        # Never used twice, and known before the statement is: whoever comes late with an old one owns nothing.
        owner = secrets.randbits(62) + 1
        await self._execute(self._upkeep.join, within=PROMPT, this_worker=owner, lease_s=self._lease_s)
        return owner

    async def renew(self, owner: int) -> bool:
        return await self._background.run(self._renew(owner))

    async def claim(self, owner: int, limit: int) -> list[Claim]:
        return await self._sound(owner, await self._take(self._statements.claim, owner, limit))

    async def finish(self, owner: int, finished: Sequence[Finish]) -> list[Claim]:
        newer = await self._finishes.submit(finished, key=owner)
        return [claim for claim in newer if claim is not None]

    async def release(self, owner: int, released: Sequence[Release]) -> None:
        for part in portions(released):
            lines = [(one.device_id, one.hold_s, one.attempts, one.doubt_in_s) for one in part]
            await self._execute(self._statements.release, this_worker=owner, batch=to_json(lines))

    async def leave(self, owner: int) -> None:
        await self._background.run(self._leave(owner))

    async def newer(self, owner: int, limit: int) -> list[Claim]:
        if self._server_failures != self._database.server_failures:
            self._server_failures = self._database.server_failures
            self._untold.add(owner)
        if owner in self._untold and time.monotonic() >= self._next_walk_s:
            rows = await self._walk(owner)
        else:
            # A mark that a loss of power brings back is told again.
            rows = await self._take(self._statements.newer, owner, limit, outlives_power=False)
        return await self._sound(owner, rows)

    async def progress(self, device_ids: Iterable[str]) -> list[Progress]:
        found: list[Progress] = []
        for part in portions(dict.fromkeys(device_ids)):
            rows = await self._fetch_sound(self._upkeep.progress, batch=to_json((name,) for name in part))
            found += [
                Progress(row.device_id, row.seq, row.done_seq, row.attempts, row.error, row.hold_s)
                for row in rows
            ]
        return found

    async def stats(self) -> OutboxStats:
        [row] = await self._fetch(self._upkeep.stats, within=LONG)
        return OutboxStats(**row._mapping)  # noqa: SLF001 - public in spite of its name

    async def failed(self, *, limit: int, after: str) -> list[DeadLetter]:
        rows = await self._fetch_sound(self._upkeep.failed, limit=limit, after=after)
        return [
            DeadLetter(
                row.device_id,
                row.seq,
                as_bytes(row.body),
                row.done_attempts,
                row.error,
                max(row.failed_age_s, 0.0),
            )
            for row in rows
        ]

    async def requeue(self, device_ids: Iterable[str] | None) -> int:
        if device_ids is None:
            return len(await self._fetch(self._upkeep.requeue_all, within=LONG))
        count = 0
        for part in portions(dict.fromkeys(device_ids)):
            count += len(await self._fetch(self._upkeep.requeue, batch=to_json((name,) for name in part)))
        return count

    async def purge(self, *, failed: bool, older_than_s: float) -> int:
        return await self._background.run(self._forgetting.purge(failed=failed, older_than_s=older_than_s))

    async def _take(
        self, statement: Executable, owner: int, limit: int, *, outlives_power: bool = True
    ) -> Sequence[Row[Any]]:
        def may_lose() -> None:
            self._untold.add(owner)

        parameters = self._parameters(this_worker=owner, limit=limit)
        taking = self._database.rows(statement, parameters, on_retry=may_lose, outlives_power=outlives_power)
        rows = await self._background.run(taking, on_loss=may_lose)
        return sorted(rows, key=lambda row: float(row.due_at))

    async def _walk(self, owner: int) -> Sequence[Row[Any]]:
        """Give all that waits and is the worker's: a walk through all rows, for no index leads from it to them."""
        begun_s = time.monotonic()
        self._untold.discard(owner)  # before: whatever is lost meanwhile takes another walk
        try:
            return await self._fetch(self._statements.owned, within=LONG, this_worker=owner)
        except BaseException:
            self._untold.add(owner)
            raise
        finally:
            ended_s = time.monotonic()
            self._next_walk_s = ended_s + _PAUSE_PER_WALK * (ended_s - begun_s)

    async def _settle(self) -> None:
        await self._puts.settle()
        await self._finishes.settle()
        await self._background.settle()

    async def _put(self, owner: Any, drafts: list[Draft]) -> list[Kept]:
        merged = merge(drafts)
        parameters = self._parameters(this_worker=owner, batch=to_json(merged))
        try:
            rows = await self._repaired(self._statements.put, parameters, within=PROMPT)
        except OutboxError:
            # It may have taken place, and made the worker the owner of what it was never told of.
            if owner is not None:
                self._untold.add(owner)
            raise
        # As tuples, which they are: a row's attributes take their time.
        lines = cast("Sequence[tuple[str, int, int | None, float | None, bool]]", rows)
        newest = {
            device_id: (seq, owner is not None and its_owner == owner, age(doubt_age_s))
            for device_id, seq, its_owner, doubt_age_s, _ in lines
        }
        left = {device_id: count for device_id, count, *_ in merged}
        kept = []
        for draft in drafts:
            left[draft.device_id] -= 1
            seq, claimed, doubt_age_s = newest[draft.device_id]
            kept.append(Kept(seq - left[draft.device_id], claimed, doubt_age_s if claimed else None))
        return kept

    async def _finish(self, owner: Any, finished: list[Finish]) -> list[Claim | None]:
        # Of two for one device the later one tells more.
        latest = {one.device_id: one for one in sorted(finished, key=lambda one: one.seq)}
        left = await self._forgetting.delivered(owner, latest.values())
        if not left:
            return [None] * len(finished)
        lines = [
            (one.device_id, one.seq, one.hold_s, one.attempts, one.error, int(one.keep))
            for one in sorted(left, key=lambda one: one.device_id)
        ]
        # Should power be lost before the disk has it, the devices are still owned, and taken over in doubt. (Not so
        # in PostgreSQL, which may lose power while the worker goes on: there everything is safe at once.)
        rows = await self._database.rows(
            self._statements.finish,
            self._parameters(this_worker=owner, batch=to_json(lines)),
            outlives_power=False,
        )
        waiting = [row for row in rows if row.crc is None or row.seq > row.done_seq]
        newer = {claim.device_id: claim for claim in await self._sound(owner, waiting)}
        return [newer.get(one.device_id) if latest[one.device_id] is one else None for one in finished]

    async def _renew(self, owner: int) -> bool:
        rows = await self._database.rows(
            self._upkeep.renew, self._parameters(this_worker=owner, lease_s=self._lease_s), within=PROMPT
        )
        if not rows:
            return False
        if rows[0].expired:
            await self._take_over(rows[0].now)
        if rows[0].never_due:
            await self._repair.run()
        if rows[0].rested:
            await self._forgetting.rested()
        return True

    async def _leave(self, owner: int) -> None:
        rows = await self._database.rows(self._upkeep.expire, self._parameters(this_worker=owner))
        if rows:
            await self._take_over(rows[0].lease_until)

    async def _take_over(self, now: float) -> None:
        """Free the devices of all workers whose lease has ended, and forget workers that ended long before."""
        await self._database.execute(self._upkeep.take_over, self._parameters(), within=LONG)
        # A statement that was under way when the lease ended may still bring rows; later ones cannot.
        await self._database.execute(self._upkeep.forget_workers, self._parameters(until=now - self._lease_s))

    async def _sound(self, owner: int, rows: Iterable[Row[Any]]) -> list[Claim]:
        """Give the rows as claims; those that are damaged become dead letters."""
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
            claims.append(Claim(row.device_id, row.seq, body, row.attempts, waited_s, age(row.doubt_age_s)))
        if damaged:
            parameters = self._parameters(this_worker=owner, batch=to_json(sorted(damaged)))
            found = await self._database.rows(self._statements.finish, parameters)
            # A newer one that came at this moment.
            claims += await self._sound(
                owner, [row for row in found if row.crc is None or row.seq > row.done_seq]
            )
        if not is_sound:
            await self._repair.run()
        return claims

    async def _repaired(
        self, statement: Executable, parameters: Mapping[str, Any], *, within: Limit = USUAL
    ) -> Sequence[Row[Any]]:
        """Return the rows of a statement that can be repeated, none of which is damaged."""
        for _ in range(_REPAIRS):
            rows = await self._database.rows(statement, parameters, within=within)
            if all(map(_IS_SOUND, rows)):
                return rows
            await self._repair.run()
        raise OutboxError("the outbox's rows are damaged again and again")

    async def _fetch(
        self, statement: Executable, *, within: Limit = USUAL, **parameters: Any
    ) -> Sequence[Row[Any]]:
        return await self._background.run(
            self._database.rows(statement, self._parameters(**parameters), within=within)
        )

    async def _fetch_sound(self, statement: Executable, **parameters: Any) -> Sequence[Row[Any]]:
        return await self._background.run(self._repaired(statement, self._parameters(**parameters)))

    async def _execute(self, statement: Executable, *, within: Limit = USUAL, **parameters: Any) -> None:
        await self._background.run(
            self._database.execute(statement, self._parameters(**parameters), within=within)
        )

    def _parameters(self, **parameters: Any) -> dict[str, Any]:
        return {"this_account": self.account, **parameters}


async def _prepare(database: Database) -> None:
    # Only a migration may take its time: a server that is silent at an opening is noticed sooner.
    if not await database.with_connection(lambda connection: connection.run_sync(is_current), within=PROMPT):
        await database.with_connection(lambda connection: connection.run_sync(prepare), within=LONG)

"""Rows of which nothing is left to tell are deleted, so that the table is as large as what waits.

The floor is raised before, for the number of a device goes with its row: see ``_numbers``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Double, Integer, Text, bindparam, delete, select

from printos_async.outbox.postgresql.sessions import LONG

from .batches import portions, to_json
from .dialect import NOW, OURS, ROW, WORKER
from .numbers import raise_floor
from .tables import idle, outbox

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import ColumnElement, Executable, Row

    from printos_async.outbox.protocol import Finish

    from .database import Database
    from .dialect import Dialect

_PURGED_AT_ONCE = 5000
_RESTED_AT_ONCE = 5000


class Forgetting:
    """Deletes one account's rows."""

    def __init__(self, database: Database, dialect: Dialect, account: str) -> None:
        self._database = database
        self._account = account
        self._raise_floor = raise_floor(is_sqlite=dialect.is_sqlite)
        self._forget_owned = _forget(dialect, ROW.owner == WORKER)
        self._forget_free = _forget(dialect, ROW.owner.is_(None) & (ROW.seq == ROW.done_seq))
        self._rested = (
            select(ROW.device_id, ROW.seq)
            .where(OURS, idle, ROW.due_at <= NOW, dialect.is_sound)
            .order_by(ROW.due_at)
            .limit(bindparam("limit", type_=Integer))
        )
        self._delivered = _done(dialect, ROW.error.is_(None))
        self._given_up = _done(dialect, ROW.error.is_not(None))

    async def delivered(self, owner: int, finished: Collection[Finish]) -> list[Finish]:
        """Forget devices that were delivered, where no newer status has come; gives what is still to be noted."""
        lines = [(one.device_id, one.seq) for one in finished if one.may_forget]
        if not lines:
            return [*finished]
        # Should power be lost before the disk has it: of what is written, the later is never there without the earlier.
        await self._database.execute(
            self._raise_floor, {"floor": max(seq for _, seq in lines)}, outlives_power=False
        )
        parameters = {"this_account": self._account, "this_worker": owner, "batch": to_json(sorted(lines))}
        rows = await self._database.rows(self._forget_owned, parameters, outlives_power=False)
        gone = {row[0] for row in rows}
        return [one for one in finished if one.device_id not in gone]

    async def rested(self) -> None:
        """Forget a portion of the devices that only stayed for a hold which has passed."""
        parameters = {"this_account": self._account, "limit": _RESTED_AT_ONCE}
        await self._forget_chosen(await self._database.rows(self._rested, parameters))

    async def purge(self, *, failed: bool, older_than_s: float) -> int:
        """Do as ``Outbox.purge``."""
        count, after = 0, ""
        while True:  # in portions, between which others get their turn
            chosen = await self._database.rows(
                self._given_up if failed else self._delivered,
                {
                    "this_account": self._account,
                    "older_than_s": older_than_s,
                    "after": after,
                    "limit": _PURGED_AT_ONCE,
                },
                within=LONG,
            )
            count += await self._forget_chosen(chosen)
            if len(chosen) < _PURGED_AT_ONCE:
                return count
            after = chosen[-1].device_id

    async def _forget_chosen(self, chosen: Sequence[Row[Any]]) -> int:
        count = 0
        for part in portions(chosen):
            await self._database.execute(self._raise_floor, {"floor": max(row.seq for row in part)})
            lines = sorted((row.device_id, row.seq) for row in part)
            parameters = {"this_account": self._account, "batch": to_json(lines)}
            count += len(await self._database.rows(self._forget_free, parameters))
        return count


def _forget(dialect: Dialect, condition: ColumnElement[bool]) -> Executable:
    """Delete rows whose numbers are still those of the batch."""
    batch = dialect.batch(device_id=Text, seq=BigInteger)
    gone = (
        select(ROW.device_id)
        .join_from(batch, outbox, OURS & (ROW.device_id == batch.c.device_id))
        .where(ROW.seq == batch.c.seq, condition)
        .order_by(batch.c.device_id)
        .with_for_update(of=outbox)
        .cte("gone")
        .prefix_with("MATERIALIZED")
    )
    return (
        delete(outbox)
        .where(OURS, ROW.device_id.in_(select(gone.c.device_id)), condition)
        .returning(ROW.device_id)
    )


def _done(dialect: Dialect, kind: ColumnElement[bool]) -> Executable:
    """Choose devices with nothing left to do, in the order of their identifiers."""
    return (
        select(ROW.device_id, ROW.seq)
        .where(
            OURS,
            kind,
            ROW.seq == ROW.done_seq,
            ROW.owner.is_(None),
            ROW.done_at <= NOW - bindparam("older_than_s", type_=Double),
            ROW.device_id > bindparam("after", type_=Text),
            dialect.is_sound,
        )
        .order_by(ROW.device_id)
        .limit(bindparam("limit", type_=Integer))
    )

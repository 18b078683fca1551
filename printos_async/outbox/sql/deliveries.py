"""The last deliveries of a tenant's devices: collected in memory, and written in batches."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import sqlalchemy as sa

from printos_async._common.clock import steady_s
from printos_async._errors import OutboxError
from printos_async.outbox.deliveries import NewDeliveries

from .batches import portions, to_json
from .limits import PROMPT
from .statements.dialect import IS_DEAD, IS_WAITING, LIMIT, NOW, OURS, ROW, TENANT, page
from .statements.soundness import is_text, is_time
from .tables import delivery, outbox

if TYPE_CHECKING:
    from collections.abc import Iterable

    from printos_async.outbox.protocol import Finish

    from .statements.dialect import Dialect
    from .tenant_database import TenantDatabase

_LAST = delivery.c
OUR_DELIVERIES = _LAST.account == TENANT
_waiting_since = sa.func.coalesce(ROW.waiting_since, ROW.put_at)

# A device is written once in this time at most, and later where writing takes long: 1/61 of the time at most.
_INTERVAL_S = 10.0
_PAUSE_PER_WRITE = 60
# Written at once, so that memory is bounded.
_MAX_PENDING = 250_000


class Deliveries:
    """Deliveries of one tenant, written a little later than they took place: a report, not a promise.

    A write for each completion would cost as much as keeping delivered rows, which was measured and refused: see
    ``statements.deletion``.

    Attributes:
        page: The query for a page of devices that were delivered, wait or have failed.
    """

    def __init__(self, database: TenantDatabase) -> None:
        self._database = database
        self.page = _page(database.dialect)
        self._insert = _insert(database.dialect)
        self._purge = _purge()
        self._new = NewDeliveries()
        self._pending: dict[str, float] = {}
        self._next_write_s = 0.0
        self._writing = asyncio.Lock()

    def record(self, finished: Iterable[Finish]) -> None:
        """Collect the deliveries among completions."""
        found = self._new.find(finished)
        if found:
            self._pending.update(dict.fromkeys(found, steady_s()))

    @property
    def is_due(self) -> bool:
        """Whether ``write`` should be called: the last one was some time ago, or there is much."""
        if not self._pending or self._writing.locked():
            return False
        return steady_s() >= self._next_write_s or len(self._pending) >= _MAX_PENDING

    async def write(self) -> None:
        """Write what was collected. If that fails, it is tried again later."""
        async with self._writing:
            begun_s = steady_s()
            left, self._pending = self._pending, {}
            # Neighbours share pages: in the order of the devices each page is written once.
            parts = portions(sorted(left.items()))
            try:
                for part in parts:
                    now_s = steady_s()
                    lines = [(device_id, round(now_s - delivered_s, 3)) for device_id, delivered_s in part]
                    # What a loss of power takes away is some seconds of a report.
                    await self._database.rows(
                        self._insert, batch=to_json(lines), within=PROMPT, outlives_power=False
                    )
                    for device_id, _ in part:
                        del left[device_id]
            except OutboxError:
                self._pending = left | self._pending
            ended_s = steady_s()
            self._next_write_s = ended_s + max(_INTERVAL_S, _PAUSE_PER_WRITE * (ended_s - begun_s))

    async def leave(self) -> None:
        """Write what was collected by a worker that has ended."""
        self._new.clear()
        await self.write()

    async def purge(self, *, older_than_s: float) -> int:
        """As ``OutboxAdministration.purge_deliveries``."""
        pages = self._database.pages(self._purge, older_than_s=older_than_s)
        return sum([len(rows) async for rows in pages])


def are_sound(dialect: Dialect) -> list[sa.ColumnElement[bool]]:
    """Return the conditions that the values of a delivery have the types that this package writes."""
    # A SQLite file may hold values of any type. The next delivery replaces them.
    return [is_text(_LAST.device_id), is_time(_LAST.delivered_at)] if dialect.is_sqlite else []


def _insert(dialect: Dialect) -> sa.Executable:
    batch = dialect.batch(device_id=sa.Text, age_s=sa.Double)
    values = {
        _LAST.account: TENANT,
        _LAST.device_id: batch.c.device_id,
        _LAST.delivered_at: NOW - batch.c.age_s,
    }
    statement = dialect.insert_rows(delivery, values, of=batch)
    # Even if the one before is later: then the database's clock was set back, or the value is damaged.
    return statement.on_conflict_do_update(
        index_elements=[_LAST.account, _LAST.device_id],
        set_={"delivered_at": statement.excluded.delivered_at},
    )


def _page(dialect: Dialect) -> sa.Executable:
    silent_since = NOW - sa.bindparam("silent_for_s", type_=sa.Double)
    delivered = page(
        sa.select(_LAST.device_id).where(
            OUR_DELIVERIES, _LAST.delivered_at <= silent_since, *are_sound(dialect)
        ),
        _LAST.device_id,
    )
    same = (_LAST.account == ROW.account) & (_LAST.device_id == ROW.device_id)
    never_delivered = page(
        sa.select(ROW.device_id).where(
            OURS,
            IS_DEAD | (IS_WAITING & (ROW.error.is_not(None) | (_waiting_since <= silent_since))),
            ~sa.exists().where(same, *are_sound(dialect)),
        )
    )
    # In SQLite a member of a UNION cannot have an order and a limit itself.
    both = sa.union(
        *(sa.select(each.subquery().c.device_id) for each in (delivered, never_delivered))
    ).subquery()
    chosen = sa.select(both.c.device_id).order_by(both.c.device_id).limit(LIMIT).cte("page")
    return (
        sa.select(
            chosen.c.device_id,
            (NOW - _LAST.delivered_at).label("delivered_age_s"),
            sa.case((IS_WAITING, NOW - _waiting_since)).label("waiting_s"),
            sa.case((ROW.error.is_not(None), NOW - ROW.done_at)).label("failed_age_s"),
            ROW.error,
            dialect.soundness(sa.or_(ROW.device_id.is_(None), dialect.is_sound)),
        )
        .select_from(chosen)
        .outerjoin(
            delivery, sa.and_(OUR_DELIVERIES, _LAST.device_id == chosen.c.device_id, *are_sound(dialect))
        )
        .outerjoin(outbox, OURS & (ROW.device_id == chosen.c.device_id))
        .order_by(chosen.c.device_id)
    )


def _purge() -> sa.Executable:
    gone = (
        sa.select(_LAST.device_id)
        .where(
            OUR_DELIVERIES,
            _LAST.delivered_at <= NOW - sa.bindparam("older_than_s", type_=sa.Double),
            ~sa.exists().where(OURS, ROW.device_id == _LAST.device_id),
        )
        .order_by(_LAST.device_id)
        .limit(LIMIT)
        .with_for_update(of=delivery)
        .cte("gone")
        .prefix_with("MATERIALIZED")
    )
    return (
        sa.delete(delivery)
        .where(OUR_DELIVERIES, _LAST.device_id.in_(sa.select(gone.c.device_id)))
        .returning(_LAST.device_id)
    )

"""Turns rows of a SQLite file that hold values which this package never writes into dead letters."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from .statements.dialect import NOW, OURS, ROW, TENANT
from .statements.soundness import ZERO, is_number, is_sound, is_text, is_time, is_worker_id
from .tables import meta, outbox, worker

if TYPE_CHECKING:
    from .tenant_database import TenantDatabase

_log = logging.getLogger("printos_async.outbox")

_ERROR: sa.ColumnElement[str] = sa.literal_column(
    "'damaged: the row had a value of a wrong type or out of range'", sa.Text
)
_IS_UNSOUND = is_sound().is_not(sa.true())
_HAS_NO_LEASE = (worker.c.account == TENANT) & is_time(worker.c.lease_until).is_not(sa.true())
_HAS_NO_ID = (worker.c.account == TENANT) & is_worker_id(worker.c.id).is_not(sa.true())
_HAS_NO_FLOOR = is_number(meta.c.floor).is_not(sa.true())
_FIND = sa.select(
    sa.select(worker.c.id).where(_HAS_NO_ID | _HAS_NO_LEASE).exists()
    | sa.select(meta.c.version).where(_HAS_NO_FLOOR).exists()
    | sa.select(ROW.seq).where(OURS, _IS_UNSOUND).exists()
)


def _or_zero(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.case((is_number(column), column), else_=ZERO)


def _repair_rows() -> sa.Executable:
    any_row = outbox.alias()
    largest = sa.select(sa.func.max(any_row.c.seq)).where(is_number(any_row.c.seq)).scalar_subquery()
    # An unreadable number may have been the highest: the device's next one must be above it.
    unknown = sa.func.max(sa.func.coalesce(largest, ZERO), sa.select(meta.c.floor).scalar_subquery())
    seq = sa.func.max(sa.case((is_number(ROW.seq), ROW.seq), else_=unknown), _or_zero(ROW.done_seq))
    # A blob cannot be named in a command or a request.
    name = "x'" + sa.func.hex(ROW.device_id, type_=sa.Text) + "'"
    # Its worker may be sending right now.
    may_be_uncertain = ROW.owner.is_not(None) | ROW.uncertain_since.is_not(None)
    return (
        sa.update(outbox)
        .prefix_with("OR REPLACE")
        .where(OURS, _IS_UNSOUND)
        .values(
            device_id=sa.case((is_text(ROW.device_id), ROW.device_id), else_=name),
            seq=seq,
            done_seq=seq,
            put_at=NOW,
            due_at=NOW,
            attempts=0,
            owner=sa.null(),
            unseen_by=sa.null(),
            waiting_since=sa.null(),
            uncertain_since=sa.case((may_be_uncertain, NOW)),
            done_at=NOW,
            done_attempts=0,
            error=_ERROR,
        )
        .returning(ROW.device_id)
    )


_REPAIR_FLOOR_AND_WORKERS = (
    sa.update(meta)
    .where(_HAS_NO_FLOOR)
    .values(floor=sa.func.coalesce(sa.select(sa.func.max(_or_zero(ROW.seq))).scalar_subquery(), ZERO)),
    # A worker without a valid number cannot own anything.
    sa.delete(worker).where(_HAS_NO_ID),
    sa.update(worker).where(_HAS_NO_LEASE).values(lease_until=NOW),
)
_REPAIR_ROWS = _repair_rows()


async def repair_if_needed(database: TenantDatabase) -> None:
    """Check every row of one tenant in a file, and repair what is unsound."""
    if database.dialect.is_sqlite:
        [[found]] = await database.rows(_FIND)
        if found:
            await repair(database)


async def repair(database: TenantDatabase) -> None:
    """Turn every unsound row of one tenant into a dead letter, and make the floor of the file sound."""
    for statement in _REPAIR_FLOOR_AND_WORKERS:
        await database.rows(statement)
    repaired = await database.rows(_REPAIR_ROWS)
    if repaired:
        _log.warning(
            "%(rows)d damaged rows of the outbox became dead letters",
            {"rows": len(repaired)},
            extra={"event": "OutboxRowsDamaged", "rows": len(repaired)},
        )

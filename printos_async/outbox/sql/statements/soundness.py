"""Conditions that a row of a SQLite file holds values of the types that this package writes.

SQLite stores values of any type in any column, whatever its declaration says. STRICT tables would refuse them, but not
those that are there already, and SQLite's check at the opening would then call the whole file damaged.

Every row that is put or claimed is checked, so types are told by comparison, which costs a fifth of ``typeof()``: in
SQLite any text is greater than any number, and any blob is greater than any text.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from printos_async.outbox.sql.tables import outbox

ZERO: sa.ColumnElement[int] = sa.literal_column("0", sa.Integer)
_SMALLEST: sa.ColumnElement[int] = sa.literal_column(str(-(1 << 62)), sa.BigInteger)
_LARGEST: sa.ColumnElement[int] = sa.literal_column(str(1 << 62), sa.BigInteger)
_EARLIEST_S: sa.ColumnElement[float] = sa.literal_column("-1e11", sa.Double)
LATEST_S: sa.ColumnElement[float] = sa.literal_column("1e11", sa.Double)
_NO_TEXT: sa.ColumnElement[str] = sa.literal_column("''", sa.Text)
_NO_BYTES: sa.ColumnElement[bytes] = sa.literal_column("x''", sa.LargeBinary)


def is_number(value: sa.ColumnElement[Any], smallest: sa.ColumnElement[int] = ZERO) -> sa.ColumnElement[bool]:
    """Return the condition that a value is an integer, small enough to count on."""
    return value.between(smallest, _LARGEST) & (value == sa.cast(value, sa.Integer))


def is_worker_id(value: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Return the condition that a value can be the number of a worker."""
    return is_number(value, _SMALLEST)


def is_text(value: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Return the condition that a value is text, in a column that makes text of numbers."""
    return value < _NO_BYTES


def is_time(value: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Return the condition that a value can be a time."""
    return value.between(_EARLIEST_S, LATEST_S)


def is_sound_after_put() -> sa.ColumnElement[bool]:
    """Return the condition for the columns that a put keeps and a claim relies on."""
    return sa.and_(outbox.c.done_seq < outbox.c.seq, *_needed_to_claim())


def is_sound_to_claim() -> sa.ColumnElement[bool]:
    """Return the condition for the columns that a claim relies on. The body has a checksum of its own."""
    row = outbox.c
    return sa.and_(
        *_needed_to_claim(),
        is_text(row.device_id),
        row.done_seq <= row.seq,
        is_time(row.put_at),
        is_number(row.attempts),
    )


def is_sound() -> sa.ColumnElement[bool]:
    """Return the condition for all columns but the body."""
    row = outbox.c
    return sa.and_(
        is_sound_to_claim(),
        is_number(row.done_attempts),
        is_time(sa.func.coalesce(row.done_at, ZERO)),
        is_text(sa.func.coalesce(row.error, _NO_TEXT)),
        is_worker_id(sa.func.coalesce(row.unseen_by, ZERO)),
        is_time(sa.func.coalesce(row.waiting_since, ZERO)),
    )


def _needed_to_claim() -> tuple[sa.ColumnElement[bool], ...]:
    row = outbox.c
    return (
        is_number(row.seq),
        is_number(row.done_seq),
        is_time(row.due_at),
        # IS NULL is false of a NULL in the RETURNING of SQLite 3.40.
        is_worker_id(sa.func.coalesce(row.owner, ZERO)),
        is_time(sa.func.coalesce(row.uncertain_since, ZERO)),
    )

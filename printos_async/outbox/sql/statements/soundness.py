"""Conditions that a row of a SQLite file holds values of the types that this package writes.

SQLite stores values of any type in any column, whatever its declaration says. STRICT tables would refuse them, but not
those that are there already, and SQLite's check at the opening would then call the whole file damaged.

Every row that is put or claimed is checked, so types are told by comparison, which costs a fifth of ``typeof()``: in
SQLite any text is greater than any number, and any blob is greater than any text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Double, Integer, LargeBinary, Text, and_, cast, func, literal_column

from printos_async.outbox.sql.tables import outbox

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

ZERO: ColumnElement[int] = literal_column("0", Integer)
_SMALLEST: ColumnElement[int] = literal_column(str(-(1 << 62)), BigInteger)
_LARGEST: ColumnElement[int] = literal_column(str(1 << 62), BigInteger)
_EARLIEST_S: ColumnElement[float] = literal_column("-1e11", Double)
LATEST_S: ColumnElement[float] = literal_column("1e11", Double)
_NO_TEXT: ColumnElement[str] = literal_column("''", Text)
_NO_BYTES: ColumnElement[bytes] = literal_column("x''", LargeBinary)


def is_number(value: ColumnElement[Any], smallest: ColumnElement[int] = ZERO) -> ColumnElement[bool]:
    """Return the condition that a value is an integer, small enough to count on."""
    return value.between(smallest, _LARGEST) & (value == cast(value, Integer))


def is_identity(value: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that a value can be the number of a worker."""
    return is_number(value, _SMALLEST)


def is_text(value: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that a value is text, in a column that makes text of numbers."""
    return value < _NO_BYTES


def is_time(value: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that a value can be a time."""
    return value.between(_EARLIEST_S, LATEST_S)


def is_sound_after_put() -> ColumnElement[bool]:
    """Return the condition for the columns that a put keeps and a claim relies on."""
    return and_(outbox.c.done_seq < outbox.c.seq, *_needed_to_claim())


def is_sound_to_claim() -> ColumnElement[bool]:
    """Return the condition for the columns that a claim relies on. The body has a checksum of its own."""
    row = outbox.c
    return and_(
        *_needed_to_claim(),
        is_text(row.device_id),
        row.done_seq <= row.seq,
        is_time(row.put_at),
        is_number(row.attempts),
    )


def is_sound() -> ColumnElement[bool]:
    """Return the condition for all columns but the body."""
    row = outbox.c
    return and_(
        is_sound_to_claim(),
        is_number(row.done_attempts),
        is_time(func.coalesce(row.done_at, ZERO)),
        is_text(func.coalesce(row.error, _NO_TEXT)),
        is_identity(func.coalesce(row.unseen_by, ZERO)),
        is_time(func.coalesce(row.waiting_since, ZERO)),
    )


def _needed_to_claim() -> tuple[ColumnElement[bool], ...]:
    row = outbox.c
    return (
        is_number(row.seq),
        is_number(row.done_seq),
        is_time(row.due_at),
        # IS NULL is false of a NULL in the RETURNING of SQLite 3.40.
        is_identity(func.coalesce(row.owner, ZERO)),
        is_time(func.coalesce(row.uncertain_since, ZERO)),
    )

"""The condition that a row of a SQLite file holds values of the kinds that this package writes.

A column of a SQLite table takes values of any type, whatever its declaration says. STRICT tables would refuse them, but
not those that are there already, and SQLite's check at the opening would then call the whole file damaged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Double, Integer, Text, and_, func, literal_column

from ._schema import outbox

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

_TEXT, _INTEGER, _NULL = (literal_column(f"'{name}'", Text) for name in ("text", "integer", "null"))
ZERO: ColumnElement[int] = literal_column("0", Integer)
_LARGEST: ColumnElement[int] = literal_column(str(1 << 62), BigInteger)
# To SQLite, text and bytes are greater than any number.
_EARLIEST_S: ColumnElement[float] = literal_column("-1e11", Double)
LATEST_S: ColumnElement[float] = literal_column("1e11", Double)


def is_number(column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that a value can be the number of a status."""
    return (func.typeof(column) == _INTEGER) & column.between(ZERO, _LARGEST)


def is_integer(column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that a value is an integer."""
    return func.typeof(column) == _INTEGER


def is_text(column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that a value is text."""
    return func.typeof(column) == _TEXT


def is_time(column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that a value can be a time."""
    return column.between(_EARLIEST_S, LATEST_S)


def has_sound_values() -> ColumnElement[bool]:
    """Return the condition for a whole row, but for its body: that is read as bytes, and its checksum tells."""
    row = outbox.c
    return and_(
        is_text(row.device_id),
        is_number(row.seq),
        is_number(row.done_seq),
        row.done_seq <= row.seq,
        is_time(row.put_at),
        is_time(row.due_at),
        is_integer(row.attempts),
        is_integer(row.done_attempts),
        func.typeof(row.owner).in_((_INTEGER, _NULL)),
        # IS NULL is false of a NULL in the RETURNING of SQLite 3.40.
        is_time(func.coalesce(row.doubt_since, ZERO)),
        is_time(func.coalesce(row.done_at, ZERO)),
        func.typeof(row.error).in_((_TEXT, _NULL)),
    )

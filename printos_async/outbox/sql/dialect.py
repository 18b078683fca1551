"""What statements are made of, and where the two dialects differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Integer,
    LargeBinary,
    Text,
    bindparam,
    case,
    cast,
    column,
    func,
    literal_column,
    select,
    true,
    type_coerce,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.types import NullType

from .soundness import is_sound, is_sound_to_claim
from .tables import DatabaseTime, outbox, worker

if TYPE_CHECKING:
    from sqlalchemy import CTE, ColumnElement
    from sqlalchemy.types import TypeEngine

ROW = outbox.c
NOW = DatabaseTime()
ACCOUNT: ColumnElement[str] = bindparam("this_account", type_=Text)
WORKER: ColumnElement[int] = bindparam("this_worker", type_=BigInteger)

OURS = ROW.account == ACCOUNT
IS_WAITING = ROW.seq > ROW.done_seq
IS_DEAD = (ROW.seq == ROW.done_seq) & ROW.error.is_not(None)
# This worker, if its lease runs.
LIVE = (worker.c.id == WORKER) & (worker.c.account == ACCOUNT) & (worker.c.lease_until > NOW)


def later(at: ColumnElement[Any], other: ColumnElement[Any]) -> ColumnElement[Any]:
    """Give the later one of two times."""
    return case((at > other, at), else_=other)


class Dialect:
    """``"sqlite"`` or ``"postgresql"``."""

    def __init__(self, name: str) -> None:
        self.is_sqlite = name == "sqlite"
        self.insert = sqlite.insert if self.is_sqlite else postgresql.insert
        # PostgreSQL's columns have their types.
        self.is_sound = is_sound() if self.is_sqlite else true()
        self.claim = (
            ROW.device_id,
            ROW.seq,
            self.bytes(ROW.body).label("body"),
            # None where a value of the row is unsound. Not a column of its own: each costs its time.
            (case((is_sound_to_claim(), ROW.crc)) if self.is_sqlite else ROW.crc).label("crc"),
            ROW.attempts,
            (NOW - ROW.put_at).label("waited_s"),
            (NOW - ROW.doubt_since).label("doubt_age_s"),
        )

    def telling(self, condition: ColumnElement[bool]) -> ColumnElement[Any]:
        """Return a column, the last of its statement, that says whether a row is sound."""
        # As SQLite has it: SQLAlchemy would make a bool of each.
        return type_coerce(condition if self.is_sqlite else true(), NullType).label("is_sound")

    def batch(self, **columns: type[TypeEngine[Any]]) -> CTE:
        """Give a JSON array of arrays, the parameter ``batch``, as rows with these columns."""
        batch: ColumnElement[Any] = bindparam("batch", type_=Text)
        if self.is_sqlite:
            values = func.json_each(batch).table_valued("value", name="entry")
            fields: list[ColumnElement[Any]] = [
                type_coerce(func.json_extract(values.c.value, literal_column(f"'$[{index}]'")), kind)
                for index, kind in enumerate(columns.values())
            ]
        else:
            values = func.json_array_elements(cast(batch, JSON)).table_valued(
                column("value", JSON), name="entry"
            )
            fields = [
                cast(values.c.value.op("->>")(literal_column(str(index), Integer)), kind)
                for index, kind in enumerate(columns.values())
            ]
        rows = select(*(field.label(name) for name, field in zip(columns, fields, strict=True)))
        # Otherwise SQLite goes through the whole table, and through the batch for each of its rows.
        return rows.cte("batch").prefix_with("MATERIALIZED")

    def bytes(self, text: ColumnElement[str]) -> ColumnElement[Any]:
        """Give a text in UTF-8, or as it is where that cannot fail."""
        # Where a disk has changed them, they may not be text any more. PostgreSQL looks at that itself.
        return cast(text, LargeBinary) if self.is_sqlite else text

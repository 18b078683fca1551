"""Log filter: keeps statuses out of the DEBUG log of the database libraries."""

from __future__ import annotations

import logging
from functools import partial


def withhold_values(logger: str) -> None:
    """Remove rows, and the values of statements, from the records of a logger."""
    logging.getLogger(logger).addFilter(_withhold_values)  # idempotent


def _withhold_values(record: logging.LogRecord) -> bool:
    if record.msg == "Row %r":  # SQLAlchemy's
        record.args = ("[withheld]",)
    elif isinstance(record.args, tuple):  # aiosqlite's: what it calls, with the arguments
        names = (
            getattr(each.func, "__name__", "") if isinstance(each, partial) else each for each in record.args
        )
        record.args = tuple(names)
    return True

"""Options of all engines: each statement commits by itself, and no status gets into SQLAlchemy's DEBUG log."""

from __future__ import annotations

import logging

_LOGGING_NAME = "printos_async"

ENGINE_OPTIONS = {
    "hide_parameters": True,
    "logging_name": _LOGGING_NAME,
    "isolation_level": "AUTOCOMMIT",
    # With autocommit there is never a transaction to roll back.
    "pool_reset_on_return": None,
    "max_overflow": 0,
    "pool_timeout": 3600.0,
}


def withhold_rows() -> None:
    """Remove the rows from what the engines log."""
    logging.getLogger(f"sqlalchemy.engine.Engine.{_LOGGING_NAME}").addFilter(_withhold_rows)  # idempotent


def _withhold_rows(record: logging.LogRecord) -> bool:
    if record.msg == "Row %r":
        record.args = ("[withheld]",)
    return True

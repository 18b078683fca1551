"""SQLite's errors as ``OutboxError``, and the signs that a file is damaged."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from printos_async._errors import OutboxCorruptError, OutboxError

if TYPE_CHECKING:
    from pathlib import Path

# Checks the whole file at every opening: 1 to 2 s for 1,000,000 devices (185 MiB), 3 to 6 s if it has to be read from the
# disk. quick_check saves a third of the first, nothing of the second, and does not notice that an index lacks a row:
# a status that is missing there would never be sent.
INTEGRITY_CHECK = "PRAGMA integrity_check(1)"
INTACT = "ok"

_ADVICE = {
    sqlite3.SQLITE_FULL: "the disk is full; nothing of this call was kept, and it works again once there is room",
    sqlite3.SQLITE_IOERR: "reading or writing failed; see the system's log for the disk's state",
    sqlite3.SQLITE_READONLY: "it cannot be written to; see its permissions, and whether its file system is read-only",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; see its permissions, and whether too many files are open",
    sqlite3.SQLITE_BUSY: "another process held its lock for too long",
    sqlite3.SQLITE_LOCKED: "another connection held its lock for too long",
    sqlite3.SQLITE_PERM: "access was refused; see its permissions",
    sqlite3.SQLITE_NOMEM: "there was no memory left",
}
_CONTENT = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_FORMAT}


def outbox_error(error: BaseException, path: Path) -> OutboxError:
    """Return the ``OutboxError`` for an error of SQLite, an ``OutboxCorruptError`` if the file is damaged.

    The text names the file, the reason and SQLite's name of the error, and no value of the statement.
    """
    if isinstance(error, OSError):
        return OutboxError(f"outbox {path} cannot be used: {error.strerror or type(error).__name__}")
    if is_damage(error):
        return OutboxCorruptError(f"outbox {path} is damaged ({name_of(error)})")
    advice = _ADVICE.get(_kind(error), "SQLite refused the statement")
    return OutboxError(f"outbox {path}: {advice} ({name_of(error)})")


def name_of(error: BaseException) -> str:
    """Return SQLite's name of an error, such as ``SQLITE_IOERR_WRITE``."""
    return str(getattr(error, "sqlite_errorname", type(error).__name__))


def is_about_content(error: sqlite3.Error) -> bool:
    """Return whether a correct statement failed because of the file's content, such as a changed column name."""
    return is_damage(error) or _kind(error) in _CONTENT


def is_damage(error: BaseException) -> bool:
    """Return whether the error says that the file's content is not what SQLite wrote."""
    # SQLite does not notice text that is no UTF-8; Python does.
    return _kind(error) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB} or (
        isinstance(error, sqlite3.OperationalError) and str(error).startswith("Could not decode")
    )


def _kind(error: BaseException) -> int:
    # The low byte is the kind of error, the rest says which operation failed.
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF

"""Life cycle of a SQLite outbox's file: opening and checking it, and replacing it when it is damaged.

Everything here blocks: run it in a thread.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
import threading
import urllib.parse
from typing import TYPE_CHECKING

from attrs import frozen

from printos_async._errors import OutboxCorruptError, OutboxError

from .damage import INTACT, INTEGRITY_CHECK, is_about_content, name_of, outbox_error
from .files import identity, is_text, locked, move_aside, prepare_directory, prepare_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .files import FileIdentity

_log = logging.getLogger("printos_async.outbox")

# Limited, so that a failing disk is not filled with damaged files.
FILES_TRIED = 2
# For which SQLite waits for another process's lock.
_BUSY_TIMEOUT_S = 10.0


@frozen
class SetAside:
    """A damaged outbox was renamed; a new file takes its place.

    Attributes:
        path: Path of the outbox.
        kept_as: New path of the damaged file, beside its WAL; ``sqlite3`` may be able to read the rest of it.
        reason: The damage that was found.
    """

    path: str
    kept_as: str
    reason: str


class ReplaceableFile:
    """Opens connections to the file of an outbox, which is checked once, and replaced when it is damaged.

    Attributes:
        path: The file; without symlinks in its directories, once a connection was made.
    """

    def __init__(
        self,
        path: Path,
        *,
        initialise: Callable[[sqlite3.Connection], None],
        on_set_aside: Callable[[SetAside], object],
    ) -> None:
        """Set up without touching the file.

        Args:
            path: Path of the file, which need not exist.
            initialise: Sets up each connection, and creates the tables if they are missing.
            on_set_aside: Called in the thread that found the damage, after the log was written.
        """
        self.path = path
        self._initialise = initialise
        self._on_set_aside = on_set_aside
        self._file: FileIdentity | None = None
        self._stop = threading.Event()

    def stop_waiting(self) -> None:
        """End all waiting for other processes that open the file, now and later. Does not block."""
        self._stop.set()

    def connect(self) -> sqlite3.Connection:
        """Return a new connection to an undamaged file, which is created if there is none.

        Do not use earlier connections to another file: they commit into the file that was renamed.

        Raises:
            OutboxError: The file or its directory is not safe, or cannot be created or opened, or the file is another
                program's.
            OutboxCorruptError: A new file is damaged as well.
        """
        self.path = prepare_directory(self.path)
        # All of it under the lock: SQLite opens the WAL by its name, after the database, and must not find the WAL of
        # another database.
        with locked(self.path, stop=self._stop):
            for _ in range(FILES_TRIED):
                found = prepare_file(self.path)
                connection = self._open()
                try:
                    self._make_ready(connection, found)
                except OutboxCorruptError as error:
                    self._replace(connection, str(error))
                except BaseException:
                    connection.close()
                    raise
                else:
                    self._file = found
                    return connection
        raise OutboxCorruptError(f"outbox {self.path}: a new file was damaged at once; see the disk's state")

    def is_replaced(self) -> bool:
        """Return whether the path leads to another file than the last connection's, or to none.

        Ask after every commit, before a status counts as accepted. It takes one ``lstat``.
        """
        return self._file is None or identity(self.path) != self._file

    def set_aside(self, reason: str) -> None:
        """Rename a file in which damage was found after it was opened, unless another process has done so.

        Raises:
            OutboxError: It cannot be renamed; on Windows, as long as any process has it open.
        """
        with locked(self.path, stop=self._stop):
            if not self.is_replaced():
                self._set_aside(reason)

    def _open(self) -> sqlite3.Connection:
        # Not created here: SQLite would create it with the umask's mode.
        uri = f"file:{urllib.parse.quote(os.fsencode(self.path))}?mode=rw"
        try:
            return sqlite3.connect(
                uri,
                uri=True,
                timeout=_BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise outbox_error(error, self.path) from error

    def _make_ready(self, connection: sqlite3.Connection, found: FileIdentity) -> None:
        try:
            if found != self._file:
                [[answer]] = connection.execute(INTEGRITY_CHECK)
                if answer != INTACT:
                    raise OutboxCorruptError(f"outbox {self.path} is damaged (integrity_check: {answer})")
            self._initialise(connection)
            # Opens the WAL if it is not open yet.
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except UnicodeDecodeError:
            # Raised by Python for an error message of SQLite that quotes garbled names.
            raise OutboxCorruptError(f"outbox {self.path} is damaged (garbled names)") from None
        except sqlite3.Error as error:
            if is_about_content(error):
                # The statements of an opening are correct, so the tables are not those that were created.
                raise OutboxCorruptError(f"outbox {self.path} is damaged ({name_of(error)})") from None
            raise outbox_error(error, self.path) from error

    def _replace(self, connection: sqlite3.Connection, reason: str) -> None:
        if is_text(self.path):
            connection.close()
            raise OutboxError(f"{self.path} is a text file and no outbox; choose another path")
        if sys.platform == "win32":
            connection.close()  # an open file cannot be renamed
            self._set_aside(reason)
            return
        try:
            self._set_aside(reason)
        finally:
            # After the rename, so that closing leaves the WAL as it is for a later analysis.
            connection.close()

    def _set_aside(self, reason: str) -> None:
        kept_as = move_aside(self.path)
        self._file = None
        what = SetAside(path=str(self.path), kept_as=str(kept_as), reason=reason)
        _log.warning(
            "%(reason)s: renamed to %(kept_as)s, and replaced by a new file",
            {"reason": reason, "kept_as": what.kept_as},
            extra={"event": "OutboxSetAside", "outbox": what.path, "kept_as": what.kept_as, "reason": reason},
        )
        self._on_set_aside(what)

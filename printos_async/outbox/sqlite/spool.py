"""The SQLite file of an outbox through its life: opened, found damaged and replaced, or replaced by another process.

Everything here blocks, and belongs into a thread.
"""

from __future__ import annotations

import logging
import sqlite3
import sys
import urllib.parse
from typing import TYPE_CHECKING

from attrs import frozen

from printos_async._errors import OutboxCorruptError

from .damage import INTACT, INTEGRITY_CHECK, is_about_content, name_of, outbox_error
from .files import identity, locked, move_aside, prepare_directory, prepare_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .files import FileIdentity

_log = logging.getLogger("printos_async.outbox")

# A disk that garbles what was just written is not to be filled with damaged files.
FILES_TRIED = 2


@frozen
class SetAside:
    """A damaged outbox was renamed, and a new one takes its place.

    Attributes:
        path: The outbox.
        kept_as: Where the damaged file is now, with its WAL; ``sqlite3`` can try to read what is left of it.
        reason: What was found.
    """

    path: str
    kept_as: str
    reason: str


class Spool:
    """Connects to the file of an outbox, which is checked once, and replaced when it is damaged.

    Attributes:
        path: The file; without symlinks in its directories, once a connection was made.
    """

    def __init__(
        self,
        path: Path,
        *,
        initialise: Callable[[sqlite3.Connection], None],
        on_set_aside: Callable[[SetAside], None] | None = None,
        busy_timeout_s: float = 10.0,
    ) -> None:
        """Touch nothing yet.

        Args:
            path: Where the file is, or will be.
            initialise: Sets up a connection, and makes the tables where they are missing; called for each one.
            on_set_aside: Called in the thread that found the damage, after the log was written.
            busy_timeout_s: Seconds for which SQLite waits for another process's lock.
        """
        self.path = path
        self._initialise = initialise
        self._on_set_aside = on_set_aside
        self._busy_timeout_s = busy_timeout_s
        self._file: FileIdentity | None = None

    def connect(self) -> sqlite3.Connection:
        """Give a new connection to an undamaged file, made if there is none.

        Connections of before to another file are of no use any more: what they commit is in the file set aside.

        Raises:
            OutboxError: The file or its directory is not safe, or cannot be made or opened.
            OutboxCorruptError: A new file is damaged as well.
        """
        self.path = prepare_directory(self.path)
        # Under the lock from first to last: SQLite opens the WAL by its name, after the database, and must not
        # find the one of another database.
        with locked(self.path):
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
        """Whether the path leads to another file than the last connection's, or to none.

        To be asked after every commit, before anything is called accepted; it takes one ``lstat``.
        """
        return self._file is None or identity(self.path) != self._file

    def set_aside(self, reason: str) -> None:
        """Rename the file in which damage was found after it was opened, unless another process did so already.

        Raises:
            OutboxError: It cannot be renamed; on Windows, as long as any process has it open.
        """
        with locked(self.path):
            if not self.is_replaced():
                self._set_aside(reason)

    def _open(self) -> sqlite3.Connection:
        # Never created here: SQLite would give it whatever mode the umask leaves.
        uri = f"file:{urllib.parse.quote(str(self.path))}?mode=rw"
        try:
            return sqlite3.connect(
                uri,
                uri=True,
                timeout=self._busy_timeout_s,
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
            # Opens the WAL, if nothing before did.
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except UnicodeDecodeError:
            # Python's, of the text of an error that names what it found.
            raise OutboxCorruptError(f"outbox {self.path} is damaged (garbled names)") from None
        except sqlite3.Error as error:
            if is_about_content(error):
                # No statement of an opening is wrong in itself: the tables are not those that were made.
                raise OutboxCorruptError(f"outbox {self.path} is damaged ({name_of(error)})") from None
            raise outbox_error(error, self.path) from error

    def _replace(self, connection: sqlite3.Connection, reason: str) -> None:
        if sys.platform == "win32":
            connection.close()  # what is open cannot be renamed
            self._set_aside(reason)
            return
        try:
            self._set_aside(reason)
        finally:
            # Only now: a connection whose file was moved leaves the WAL as it is, for whoever wants to read it.
            connection.close()

    def _set_aside(self, reason: str) -> None:
        kept_as = move_aside(self.path)
        self._file = None
        what = SetAside(path=str(self.path), kept_as=str(kept_as), reason=reason)
        _log.warning(
            "%(reason)s: kept as %(kept_as)s, and a new one is begun",
            {"reason": reason, "kept_as": what.kept_as},
            extra={"event": "OutboxSetAside", "outbox": what.path, "kept_as": what.kept_as, "reason": reason},
        )
        if self._on_set_aside is not None:
            self._on_set_aside(what)

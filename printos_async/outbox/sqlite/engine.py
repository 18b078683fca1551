"""A SQLite file below an SQLAlchemy engine: its connection, and replacement of a damaged file while it is in use.

All that blocks runs in one thread, to which a statement goes once: with the setting before it, its rows and the check
after it. An asyncio driver (aiosqlite) goes to its thread for each call of a cursor: docs/dependencies.md has the price.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import QueuePool, StaticPool, create_engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from printos_async._errors import OutboxCorruptError, OutboxError
from printos_async.outbox.sql.engine_options import ENGINE_OPTIONS
from printos_async.outbox.sql.tables import metadata, prepare

from .damage import is_damage, outbox_error
from .replaceable_file import ReplaceableFile
from .time import FileTime
from .worker_locks import WorkerLocks

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from sqlalchemy import Connection

    from printos_async._common.clock import MachineClock

    from .replaceable_file import SetAside

    Answer = TypeVar("Answer")

_SETTINGS = ("journal_mode = WAL", "synchronous = FULL", "cache_size = -32768")
_TABLES = "printos_"  # with which the names of all tables begin


class FileReplacedError(OSError):
    """A statement went into a file that is no longer the outbox's: run it again."""


class SqliteFile:
    """The file of an outbox. Create it in the event loop.

    Args:
        path: Path of the file, which need not exist.
        clock: The machine's clocks.
        on_set_aside: Called in the event loop after a damaged file was renamed; a new one takes its place.
        on_replaced: Called in the event loop after the file was replaced, by this process or another one.
    """

    dialect = "sqlite"
    failures = 0
    # Statements end by themselves, after SQLite's busy timeout at the latest, and cannot be stopped before.
    patience_s = 10.0

    def __init__(
        self,
        path: str,
        *,
        clock: MachineClock,
        on_set_aside: Callable[[SetAside], None],
        on_replaced: Callable[[], None],
    ) -> None:
        self._on_replaced = on_replaced
        self.time = FileTime(clock)
        loop = asyncio.get_running_loop()
        self._file = ReplaceableFile(
            Path(path),
            initialise=self._initialise,
            on_set_aside=lambda what: loop.call_soon_threadsafe(on_set_aside, what),
        )
        self.worker_locks = WorkerLocks(lambda: self._file.path, clock.boot_id)
        self._engine = create_engine(
            "sqlite://", creator=self._open, poolclass=QueuePool, pool_size=1, **ENGINE_OPTIONS
        )
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="printos-outbox")
        self._turn = asyncio.Lock()

    def stop(self) -> None:
        """End all waiting for other processes that open the file: calls that need it fail."""
        self._file.stop_waiting()

    async def aclose(self) -> None:
        """Let others take over the devices of workers that have not left, and close the file."""
        self.worker_locks.release_all()
        await self._in_thread(self._engine.dispose)
        self._thread.shutdown(wait=False)

    def _open(self) -> sqlite3.Connection:
        # A feature that this SQLite lacks fails here, in memory, and is not mistaken for damage of the file.
        _expected()
        return self._file.connect()

    def _initialise(self, connection: sqlite3.Connection) -> None:
        names = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        if names and not any(str(name).startswith(_TABLES) for name in names):
            raise OutboxError(
                f"{self._file.path} is a database of another program and no outbox; choose another path"
            )
        for setting in _SETTINGS:
            connection.execute(f"PRAGMA {setting}").close()
        _make_tables(connection)
        if _structure(connection) != _expected():
            raise OutboxCorruptError("the outbox's file is damaged (tables)")
        self.time.adopt(connection)
        self.time.register(connection)

    def _begin(self, connection: Connection, level: str) -> None:
        """Set whether the connection syncs its next commits to the disk, and discard the last statement's time."""
        known = connection.info
        if known.get("synchronous") != level:
            # Unknown until the PRAGMA has succeeded.
            known["synchronous"] = None
            connection.exec_driver_sql(f"PRAGMA synchronous = {level}")
            known["synchronous"] = level
        self.time.begin_statement()

    async def run(self, work: Callable[[Connection], Answer], *, outlives_power: bool, **_: object) -> Answer:
        """Return the result of ``work`` on a connection, if the file is still the outbox's afterwards.

        Args:
            work: The operation, in one attempt.
            outlives_power: As in ``Database.with_connection``.

        Raises:
            FileReplacedError: Damage was found and the file set aside, by this process or another one.
        """
        level = "FULL" if outlives_power else "NORMAL"
        async with self._turn:
            try:
                return await self._in_thread(self._attempt, work, level)
            except FileReplacedError:
                # Before the next statement gets a connection: these workers were in the old file.
                self.worker_locks.drop_all()
                self._on_replaced()
                raise

    async def _in_thread(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def _attempt(self, work: Callable[[Connection], Answer], level: str) -> Answer:
        with self._engine.connect() as connection:
            try:
                self._begin(connection, level)
                answer = work(connection)
            except DBAPIError as error:
                if not isinstance(error.orig, sqlite3.Error):
                    raise
                if is_damage(error.orig):
                    self._file.set_aside(str(self.translated(error.orig)))
                if not self._file.is_replaced():
                    raise
            else:
                if not self._file.is_replaced():
                    return answer
            connection.invalidate()
            raise FileReplacedError(errno.ESTALE, "its file was replaced again and again")

    def is_temporary(self, error: Exception) -> bool:
        """Return whether an error may be temporary."""
        if isinstance(error, DBAPIError):
            return error.connection_invalidated or "locked" in str(error.orig)
        return isinstance(error, OSError)

    def translated(self, error: BaseException) -> OutboxError:
        """Return the ``OutboxError`` for an error of the driver or the system."""
        return outbox_error(error, self._file.path)


def _make_tables(connection: sqlite3.Connection) -> None:
    engine = create_engine(
        "sqlite://",
        creator=lambda: connection,
        poolclass=StaticPool,
        isolation_level="AUTOCOMMIT",
        pool_reset_on_return=None,
        hide_parameters=True,
    )
    try:
        with engine.connect() as adapted:
            prepare(adapted)
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.Error):
            raise error.orig from None
        raise
    except SQLAlchemyError as error:
        raise OutboxCorruptError(f"the outbox's file is damaged ({type(error).__name__})") from None


@cache
def _expected() -> list[object]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        _make_tables(connection)
        return _structure(connection)


def _structure(connection: sqlite3.Connection) -> list[object]:
    """Return the columns of the outbox's tables and indexes, as SQLite reads them.

    With a flipped bit in a column's name the database passes its own check, but no statement works.
    """
    found: list[object] = []
    for table in metadata.sorted_tables:
        found += connection.execute("SELECT * FROM pragma_table_xinfo(?)", (table.name,)).fetchall()
        indexes = connection.execute(
            "SELECT name, [unique], origin, partial FROM pragma_index_list(?) ORDER BY name", (table.name,)
        ).fetchall()
        for index in indexes:
            columns = connection.execute("SELECT * FROM pragma_index_xinfo(?)", (index[0],)).fetchall()
            found += [index, columns]
    return found

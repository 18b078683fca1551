"""One database: its engine, what is tried again, and its errors as errors of the tree."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from printos_async._clock import machine_clock
from printos_async._errors import OutboxError
from printos_async._redact import redact

from ._sqlite import SqliteFile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from typing import TypeVar

    from sqlalchemy import URL, Executable, Row

    from printos_async._clock import MachineClock

    from ._spool import SetAside

    Answer = TypeVar("Answer")

_PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.6, 0.6)
_PATIENCE_S = sum(_PAUSES_S)
_BUSY_S = 10.0
_POSTGRESQL_CONNECTIONS = 3
_PATIENCE_AT_END_S = 1.0
_FAREWELL_S = 0.5
_ABORTED = "the outbox was closed while its database did not answer"

# Deadlock, serialization failure, a server that stops or starts, too many connections; and all of class 08.
_PASSING_STATES = {"40P01", "40001", "57P01", "57P02", "57P03", "53300"}
# Values that the statement was given may stand in these texts.
_TELLING_CLASSES = ("22", "23")


class Database:
    """Runs statements, each in a transaction of its own.

    Args:
        url: ``sqlite+aiosqlite`` with a file, or ``postgresql+asyncpg``.
        clock: As in ``SqliteFile``; None for this machine's.
        on_set_aside: As in ``SqliteFile``.
        on_replaced: As in ``SqliteFile``.
    """

    def __init__(
        self,
        url: URL,
        *,
        clock: MachineClock | None = None,
        on_set_aside: Callable[[SetAside], None] | None = None,
        on_replaced: Callable[[], None] | None = None,
    ) -> None:
        self.dialect = url.get_backend_name()
        self._is_sqlite = self.dialect == "sqlite"
        self._secrets = [str(url.password)] if url.password else []
        options: dict[str, Any] = {
            "hide_parameters": True,
            "isolation_level": "AUTOCOMMIT",
            # Nothing is ever open that a rollback would end.
            "pool_reset_on_return": None,
            "max_overflow": 0,
            "pool_timeout": 3600.0,
        }
        self._file: SqliteFile | None = None
        if self._is_sqlite:
            self._file = SqliteFile(
                str(url.database),
                clock=clock or machine_clock(),
                on_set_aside=on_set_aside,
                on_replaced=on_replaced,
            )
            options |= {"pool_size": 1, "async_creator": self._file.connect}
        else:
            settings = {"application_name": "printos-async", "lock_timeout": f"{_BUSY_S:.0f}s"}
            options |= {
                "pool_size": _POSTGRESQL_CONNECTIONS,
                "connect_args": {"server_settings": settings, "timeout": _BUSY_S},
            }
        self._engine = create_async_engine(url, **options)
        self._running: set[asyncio.Task[Any]] = set()
        self._aborted = False
        # SQLite ends what it does by itself, after its busy timeout at the latest, and cannot be stopped before.
        self.patience_s: float | None = None if self._is_sqlite else _PATIENCE_AT_END_S

    async def rows(
        self,
        statement: Executable,
        parameters: Mapping[str, Any],
        *,
        on_retry: Callable[[], None] | None = None,
        outlives_power: bool = True,
    ) -> Sequence[Row[Any]]:
        """Give the rows of a statement.

        Args:
            statement: What is to be done.
            parameters: Its parameters.
            on_retry: Called where an attempt before may have taken place.
            outlives_power: Whether a file has to hold it safe against a loss of power when this returns. Whatever
                came before it in the file is there as well, if anything after it is.
        """

        async def execute(connection: AsyncConnection) -> Sequence[Row[Any]]:
            if self._file is not None:
                await _synchronise(connection, outlives_power)
                self._file.time.begin_statement()
            return (await connection.execute(statement, dict(parameters))).all()

        return await self.with_connection(execute, on_retry)

    async def execute(
        self, statement: Executable, parameters: Mapping[str, Any], *, outlives_power: bool = True
    ) -> None:
        """Run a statement that gives no rows; ``outlives_power`` as with ``rows``."""

        async def execute(connection: AsyncConnection) -> None:
            if self._file is not None:
                await _synchronise(connection, outlives_power)
                self._file.time.begin_statement()
            await connection.execute(statement, dict(parameters))

        await self.with_connection(execute)

    async def with_connection(
        self,
        use: Callable[[AsyncConnection], Awaitable[Answer]],
        on_retry: Callable[[], None] | None = None,
    ) -> Answer:
        """Give what ``use`` makes of a connection. It is tried again after errors that pass.

        Raises:
            OutboxError: The database cannot be reached or used.
            OutboxCorruptError: The file is damaged.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # there is none in callbacks only
        if self._is_aborted():
            raise OutboxError(_ABORTED)
        self._running.add(task)
        try:
            return await self._try_again(use, on_retry)
        except asyncio.CancelledError:
            if not self._is_aborted():
                raise
            task.uncancel()
            raise OutboxError(_ABORTED) from None
        finally:
            self._running.discard(task)

    def _is_aborted(self) -> bool:
        return self._aborted

    def abort(self) -> None:
        """End what is under way, and what is still to come, with an ``OutboxError``."""
        self._aborted = True
        for task in self._running:
            task.cancel()

    async def aclose(self) -> None:
        """Close the connections, politely to a server that answers."""
        # A connection that does not close in time is dropped, and the next one of the pool has its turn.
        for _ in range(_POSTGRESQL_CONNECTIONS):
            with contextlib.suppress(SQLAlchemyError, OSError, TimeoutError):
                async with asyncio.timeout(None if self._is_sqlite else _FAREWELL_S):
                    await self._engine.dispose()
                return

    async def _try_again(
        self, use: Callable[[AsyncConnection], Awaitable[Answer]], on_retry: Callable[[], None] | None
    ) -> Answer:
        begun = asyncio.get_running_loop().time()
        for pause_s in (*_PAUSES_S, None):
            try:
                async with self._engine.connect() as connection:
                    if self._file is not None:
                        return await self._file.use(connection, use)
                    return await use(connection)
            except Exception as error:
                if not _is_of_the_database(error):
                    raise
                waited_s = asyncio.get_running_loop().time() - begun
                if pause_s is None or waited_s > _PATIENCE_S or not _passes(error):
                    raise self._translated(error) from None
            if on_retry is not None:
                on_retry()
            await asyncio.sleep(pause_s)
        raise AssertionError  # the last round returns or raises

    def _translated(self, error: Exception) -> OutboxError:
        origin = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        if self._file is not None:
            return self._file.translated(origin)
        state = _state(origin)
        text = "" if state.startswith(_TELLING_CLASSES) else redact(_first_line(origin), self._secrets)
        named = f"PostgreSQL error {state}" if state else type(origin).__name__
        return OutboxError(f"the outbox's database cannot be used: {named}{text and ': '}{text}")


async def _synchronise(connection: AsyncConnection, outlives_power: bool) -> None:  # noqa: FBT001
    """Let the connection's next commits wait for the disk, or not."""
    level = "FULL" if outlives_power else "NORMAL"
    known = (await connection.get_raw_connection()).info
    if known.get("synchronous") != level:
        # What fails half-way is asked for again.
        known["synchronous"] = None
        await connection.exec_driver_sql(f"PRAGMA synchronous = {level}")
        known["synchronous"] = level


def _is_of_the_database(error: Exception) -> bool:
    # While it connects, SQLAlchemy lets errors of system and driver through as they are.
    module = type(error).__module__.partition(".")[0]
    return isinstance(error, (DBAPIError, OSError)) or module in {"asyncpg", "sqlite3"}


def _passes(error: Exception) -> bool:
    """Tell whether an error may be gone in a moment."""
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return True
        origin = error.orig
        state = _state(origin)
        return state in _PASSING_STATES or state.startswith("08") or "locked" in str(origin)
    # Connecting to a server raises what the system and the driver raise.
    return isinstance(error, OSError) or _state(error) in _PASSING_STATES


def _state(error: BaseException | None) -> str:
    return str(getattr(error, "sqlstate", None) or "")


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    # SQLAlchemy puts the driver's class before its text.
    return text.rpartition(">: ")[2].split("\n", 1)[0]

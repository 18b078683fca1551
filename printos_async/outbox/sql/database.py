"""One database: its engine, retries, and errors as ``OutboxError``."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from printos_async._common.clock import machine_clock
from printos_async._common.redaction import redact
from printos_async._errors import OutboxError
from printos_async.outbox.postgresql.errors import advice, passes, state_of
from printos_async.outbox.postgresql.limits import LONG, USUAL
from printos_async.outbox.postgresql.sessions import NoAnswerError, Sessions
from printos_async.outbox.sqlite.engine import SqliteFile

from .log_filter import withhold_values
from .tables import transaction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import TypeVar

    from sqlalchemy import URL, Connection, Executable, Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from printos_async._common.clock import MachineClock
    from printos_async.outbox.postgresql.limits import Limit
    from printos_async.outbox.postgresql.url import Server
    from printos_async.outbox.sqlite.spool import SetAside
    from printos_async.outbox.sqlite.worker_locks import WorkerLocks

    Answer = TypeVar("Answer")

_PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.6, 0.6)
_PATIENCE_S = sum(_PAUSES_S)
_PATIENCE_AT_END_S = 1.0
# SQLite's statements end by themselves, after its busy timeout at the latest, and cannot be stopped before.
_FILE_PATIENCE_AT_END_S = 10.0
_ABORTED = "the outbox was closed while its database did not answer"

# The texts of these errors may contain values of the statement.
_CLASSES_WITH_VALUES = ("22", "23")


class Database:
    """Runs statements, each in a transaction of its own.

    Args:
        url: ``sqlite+aiosqlite`` with a file, or ``postgresql+asyncpg``.
        server: What the URL says about a PostgreSQL server; None for a file.
        lease_s: Lease of the outbox.
        clock: As in ``SqliteFile``; None for this machine's.
        on_set_aside: As in ``SqliteFile``.
        on_replaced: As in ``SqliteFile``.
    """

    def __init__(
        self,
        url: URL,
        *,
        server: Server | None,
        lease_s: float,
        clock: MachineClock | None,
        on_set_aside: Callable[[SetAside], None],
        on_replaced: Callable[[], None],
    ) -> None:
        self.dialect = url.get_backend_name()
        self._secrets = server.secrets if server is not None else ()
        options: dict[str, Any] = {
            "hide_parameters": True,
            "logging_name": "printos_async",
            "isolation_level": "AUTOCOMMIT",
            # With autocommit there is never a transaction to roll back.
            "pool_reset_on_return": None,
            "max_overflow": 0,
            "pool_timeout": 3600.0,
        }
        withhold_values("sqlalchemy.engine.Engine.printos_async")
        self._file: SqliteFile | None = None
        self._sessions: Sessions | None = None
        if server is None:
            self._file = SqliteFile(
                str(url.database),
                clock=clock or machine_clock(),
                on_set_aside=on_set_aside,
                on_replaced=on_replaced,
            )
            self._engine = create_async_engine(url, pool_size=1, async_creator=self._file.connect, **options)
        else:
            self._sessions = Sessions(server, lease_s=lease_s)
            self._engine = self._sessions.engine(url, **options)
        self._running: set[asyncio.Task[Any]] = set()
        self._aborted = False
        self._failures = 0
        self.patience_s = _FILE_PATIENCE_AT_END_S if server is None else _PATIENCE_AT_END_S

    @property
    def worker_locks(self) -> WorkerLocks | None:
        """Locks of the workers of a file; None for a server, where a lost connection is no sign of a dead worker."""
        return None if self._file is None else self._file.worker_locks

    @property
    def server_failures(self) -> int:
        """Number of failures of a server. Another one may have taken its place, without the last commits."""
        return 0 if self._sessions is None else self._failures + self._sessions.found_closed

    async def rows(
        self,
        statement: Executable,
        *,
        on_retry: Callable[[], None] | None = None,
        outlives_power: bool = True,
        within: Limit = USUAL,
        **parameters: Any,
    ) -> Sequence[Row[Any]]:
        """Run a statement in a transaction of its own, and return its rows; none if it returns no rows.

        Args:
            statement: The statement.
            on_retry: Called before a retry: the attempt before may have taken place.
            outlives_power: Whether a file is synced before this returns. Without it a loss of power may undo the
                statement, but never without undoing everything that was written after it.
            within: Time limit for a server.
            parameters: Those of the statement.
        """

        async def execute(connection: AsyncConnection) -> Sequence[Row[Any]]:
            if self._file is not None:
                await _synchronise(connection, outlives_power=outlives_power)
                self._file.time.begin_statement()
            result = await connection.execute(statement, parameters)
            return result.all() if result.returns_rows else ()

        return await self.with_connection(execute, on_retry, within=within)

    async def transaction(self, work: Callable[[Connection], Answer]) -> Answer:
        """Return the result of ``work``, whose statements are one transaction. It may take long."""

        def run(connection: Connection) -> Answer:
            with transaction(connection):
                return work(connection)

        async def execute(connection: AsyncConnection) -> Answer:
            if self._file is not None:
                await _synchronise(connection, outlives_power=True)
                self._file.time.begin_statement()
            return await connection.run_sync(run)

        return await self.with_connection(execute, within=LONG)

    async def with_connection(
        self,
        use: Callable[[AsyncConnection], Awaitable[Answer]],
        on_retry: Callable[[], None] | None = None,
        *,
        within: Limit = USUAL,
    ) -> Answer:
        """Return the result of ``use`` on a connection. It is retried after temporary errors.

        ``on_retry`` and ``within`` are those of ``rows``.

        Raises:
            OutboxError: The database cannot be reached or used.
            OutboxCorruptError: The file is damaged.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # only callbacks have none
        if self._is_aborted():
            raise OutboxError(_ABORTED)
        self._running.add(task)
        try:
            return await self._try_again(use, on_retry, within)
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
        """End all running and later statements of a server with an ``OutboxError``.

        Those of a file end by themselves, and no longer wait for other processes that open it.
        """
        if self._file is not None:
            self._file.stop_waiting()
        if self._sessions is not None:
            self._aborted = True
            # Otherwise SQLAlchemy waits for each silent server to confirm the end of its session.
            self._sessions.terminate()
            for task in self._running:
                task.cancel()

    async def aclose(self) -> None:
        """Close the connections, with a farewell to a server that answers."""
        try:
            if self._sessions is not None:
                await self._sessions.aclose()
            with contextlib.suppress(SQLAlchemyError, OSError):
                await self._engine.dispose()
        finally:
            if self._file is not None:
                self._file.worker_locks.release_all()

    async def _try_again(
        self,
        use: Callable[[AsyncConnection], Awaitable[Answer]],
        on_retry: Callable[[], None] | None,
        within: Limit,
    ) -> Answer:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        deadline_s = begun_s + within.total_s
        for pause_s in (*_PAUSES_S, None):
            try:
                if self._sessions is not None:
                    return await self._sessions.use(self._engine, use, within=within, deadline_s=deadline_s)
                assert self._file is not None  # noqa: S101  # set if there are no sessions
                async with self._engine.connect() as connection:
                    return await self._file.use(connection, use)
            except Exception as error:
                if not _is_of_the_database(error):
                    raise
                now_s = loop.time()
                self._failures += 1
                if isinstance(error, NoAnswerError):
                    # The limit on retries is for servers that answer with an error; this one did not answer yet.
                    begun_s = now_s
                if (
                    pause_s is None
                    or now_s - begun_s > _PATIENCE_S
                    or (self._sessions is not None and now_s + pause_s >= deadline_s)
                    or not self._passes(error)
                ):
                    raise self._translated(error) from None
            if on_retry is not None:
                on_retry()
            await asyncio.sleep(pause_s)
        raise AssertionError  # the last attempt returns or raises

    def _passes(self, error: Exception) -> bool:
        """Return whether an error may be temporary."""
        if self._sessions is not None:
            return passes(error)
        if isinstance(error, DBAPIError):
            return error.connection_invalidated or "locked" in str(error.orig)
        return isinstance(error, OSError)

    def _translated(self, error: Exception) -> OutboxError:
        origin = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        if self._file is not None:
            return self._file.translated(origin)
        state = state_of(origin)
        text = "" if state.startswith(_CLASSES_WITH_VALUES) else redact(_first_line(origin), self._secrets)
        if isinstance(origin, TimeoutError):
            return OutboxError(f"the outbox's database does not answer: {text or 'no connection in time'}")
        named = f"PostgreSQL error {state}" if state else type(origin).__name__
        return OutboxError(
            f"the outbox's database cannot be used: {named}{text and ': '}{text}{advice(origin)}"
        )


async def _synchronise(connection: AsyncConnection, *, outlives_power: bool) -> None:
    """Make the connection sync its next commits to the disk, or not."""
    level = "FULL" if outlives_power else "NORMAL"
    known = (await connection.get_raw_connection()).info
    if known.get("synchronous") != level:
        # Unknown until the PRAGMA has succeeded.
        known["synchronous"] = None
        await connection.exec_driver_sql(f"PRAGMA synchronous = {level}")
        known["synchronous"] = level


def _is_of_the_database(error: Exception) -> bool:
    # SQLAlchemy does not wrap errors of the driver and the system while it connects.
    module = type(error).__module__.partition(".")[0]
    return isinstance(error, (DBAPIError, OSError)) or module in {"asyncpg", "sqlite3"}


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    # SQLAlchemy writes the driver's class before the text.
    return text.rpartition(">: ")[2].split("\n", 1)[0]

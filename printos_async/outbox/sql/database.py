"""One database: its engine, retries, and errors as ``OutboxError``."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from printos_async._errors import OutboxError
from printos_async.outbox.postgresql.errors import NoAnswerError
from printos_async.outbox.postgresql.limits import LONG, USUAL

from .engine_options import withhold_rows
from .tables import transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from sqlalchemy import Connection, Executable, Row

    from printos_async.outbox.postgresql.engine import PostgresqlServer
    from printos_async.outbox.postgresql.limits import Limit
    from printos_async.outbox.sqlite.engine import SqliteFile

    Answer = TypeVar("Answer")

_PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.6, 0.6)
_PATIENCE_S = sum(_PAUSES_S)
_CHANGES = sa.select(sa.func.changes(type_=sa.Integer))
_ABORTED = "the outbox was closed while its database did not answer"


class Database:
    """Runs statements, each in a transaction of its own.

    Args:
        connector: Connects to the file or the server, and knows its errors.
    """

    def __init__(self, connector: SqliteFile | PostgresqlServer) -> None:
        self.connector = connector
        withhold_rows()
        self._running: set[asyncio.Task[Any]] = set()
        self._aborted = False

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

        def execute(connection: Connection) -> Sequence[Row[Any]]:
            self.connector.begin(connection, outlives_power=outlives_power)
            result = connection.execute(statement, parameters)
            return result.all() if result.returns_rows else ()

        return await self.with_connection(execute, on_retry, within=within)

    async def count(self, statement: Executable, *, outlives_power: bool = True, **parameters: Any) -> int:
        """Run a statement as ``rows`` does, and return the number of rows that it has changed."""

        def execute(connection: Connection) -> int:
            self.connector.begin(connection, outlives_power=outlives_power)
            count = connection.execute(statement, parameters).rowcount
            # sqlite3 does not count the rows of a statement that begins with WITH.
            return count if count >= 0 else connection.execute(_CHANGES).scalar_one()

        return await self.with_connection(execute)

    async def transaction(self, work: Callable[[Connection], Answer]) -> Answer:
        """Return the result of ``work``, whose statements are one transaction. It may take long."""

        def run(connection: Connection) -> Answer:
            self.connector.begin(connection, outlives_power=True)
            with transaction(connection):
                return work(connection)

        return await self.with_connection(run, within=LONG)

    async def with_connection(
        self,
        work: Callable[[Connection], Answer],
        on_retry: Callable[[], None] | None = None,
        *,
        within: Limit = USUAL,
    ) -> Answer:
        """Return the result of ``work`` on a connection. It is retried after temporary errors.

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
            return await self._try_again(work, on_retry, within)
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
        # Otherwise SQLAlchemy waits for each silent server to confirm the end of its session.
        self.connector.stop()
        if self.connector.dialect != "sqlite":
            self._aborted = True
            for task in self._running:
                task.cancel()

    async def aclose(self) -> None:
        """Close the connections, with a farewell to a server that answers."""
        with contextlib.suppress(SQLAlchemyError, OSError):
            await self.connector.aclose()

    async def _try_again(
        self,
        work: Callable[[Connection], Answer],
        on_retry: Callable[[], None] | None,
        within: Limit,
    ) -> Answer:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        deadline_s = begun_s + within.total_s
        for pause_s in (*_PAUSES_S, None):
            try:
                return await self.connector.run(work, within=within, deadline_s=deadline_s)
            except Exception as error:
                if not _is_of_the_database(error):
                    raise
                now_s = loop.time()
                if isinstance(error, NoAnswerError):
                    # The limit on retries is for servers that answer with an error; this one did not answer yet.
                    begun_s = now_s
                if (
                    pause_s is None
                    or now_s - begun_s > _PATIENCE_S
                    or now_s + pause_s >= deadline_s
                    or not self.connector.passes(error)
                ):
                    origin = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
                    raise self.connector.translated(origin) from None
            if on_retry is not None:
                on_retry()
            await asyncio.sleep(pause_s)
        raise AssertionError  # the last attempt returns or raises


def _is_of_the_database(error: Exception) -> bool:
    # SQLAlchemy does not wrap errors of the driver and the system while it connects.
    module = type(error).__module__.partition(".")[0]
    return isinstance(error, (DBAPIError, OSError)) or module in {"asyncpg", "sqlite3"}

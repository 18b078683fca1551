"""One database: its engine, retries, and errors as ``OutboxError``."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from printos_async._errors import OutboxError
from printos_async.outbox.postgresql.errors import NoAnswerError

from .engine_options import withhold_rows
from .limits import USUAL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeVar

    from sqlalchemy import Connection

    from printos_async.outbox.postgresql.engine import PostgresqlServer
    from printos_async.outbox.sqlite.engine import SqliteFile

    from .limits import Limit

    Answer = TypeVar("Answer")

_PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.6, 0.6)
_PATIENCE_S = sum(_PAUSES_S)
_ABORTED = "the outbox was closed while its database did not answer"


class Database:
    """Runs operations on connections of a database.

    Args:
        connector: Connects to the file or the server, and knows its errors.
    """

    def __init__(self, connector: SqliteFile | PostgresqlServer) -> None:
        self.connector = connector
        withhold_rows()
        self._running: set[asyncio.Task[Any]] = set()
        self._aborted = False

    async def with_connection(
        self,
        work: Callable[[Connection], Answer],
        *,
        on_retry: Callable[[], None] | None = None,
        outlives_power: bool = True,
        within: Limit = USUAL,
    ) -> Answer:
        """Return the result of ``work`` on a connection. It is retried after temporary errors.

        Args:
            work: The operation, in one attempt.
            on_retry: Called before a retry: the attempt before may have taken place.
            outlives_power: Whether a file is synced before this returns. Without it a loss of power may undo the
                operation, but never without undoing everything that was written after it.
            within: Time limit for a server.

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
            attempt = partial(self.connector.run, work, outlives_power=outlives_power, within=within)
            return await self._try_again(attempt, on_retry, within)
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
        attempt: Callable[..., Awaitable[Answer]],
        on_retry: Callable[[], None] | None,
        within: Limit,
    ) -> Answer:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        deadline_s = begun_s + within.total_s
        for pause_s in (*_PAUSES_S, None):
            try:
                return await attempt(deadline_s=deadline_s)
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
                    or not self.connector.is_temporary(error)
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

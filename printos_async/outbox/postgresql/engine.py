"""A PostgreSQL server below an SQLAlchemy engine: connecting, limits of silence, termination of sessions.

A connection that a firewall or load balancer has dropped stays silent for ever. So every statement has a time limit. A
session that does not answer in time is terminated without a farewell, together with the idle ones, which took the same
route. The next session terminates their backends at the server: statements that were still on their way are never
executed, so an older status cannot come after a newer one.

A pool in between (PgBouncer) may assign another session of the server to each transaction. So no statement relies on
session state, except on prepared statements, and those are no longer used as soon as one is missing. Their names are
unique, because a session of another client must not have one of the same name.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import create_async_engine

from printos_async.outbox.sql.engine_options import ENGINE_OPTIONS

from .errors import NoAnswerError, is_temporary, is_unprepared, is_useless, outbox_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeVar

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from printos_async._errors import OutboxError
    from printos_async.outbox.sql.limits import Limit

    from .url import Host, ServerParameters

    Answer = TypeVar("Answer")

_CONNECTIONS = 3
_FAREWELL_S = 0.5
# ``lock_timeout``: for a lock that another session holds.
_LOCK_S = 10.0
_LONGEST_SILENCE_S = 5.0
_SHORTEST_SILENCE_S = 1.0
_SILENCES_PER_LEASE = 4

_END = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE pid = ANY($1::int[]) AND usename = current_user AND application_name = $2"
)


class PostgresqlServer:
    """A PostgreSQL server below an SQLAlchemy engine, with the sessions on it.

    Args:
        parameters: Those of the URL.
        lease_s: Lease of the outbox. A silent session has to be noticed well within it.

    Attributes:
        failures: Number of failures. Another server may have taken this one's place, without the last commits.
    """

    dialect = "postgresql"
    patience_s = 1.0
    # A lost connection is no sign of a dead worker.
    worker_locks = None

    def __init__(self, parameters: ServerParameters, *, lease_s: float) -> None:
        self._parameters = parameters
        self._hosts = parameters.hosts
        self._silence_s = min(max(lease_s / _SILENCES_PER_LEASE, _SHORTEST_SILENCE_S), _LONGEST_SILENCE_S)
        self._settings = {"application_name": parameters.application_name, "lock_timeout": f"{_LOCK_S:.0f}s"}
        self._prepares = parameters.prepares
        self._turns = asyncio.Semaphore(_CONNECTIONS)
        # asyncpg's connections: in the pool; new, each with its watchdog; and in use.
        self._idle: set[Any] = set()
        # Idle ones that no call is about to take.
        self._at_hand = 0
        self._new: dict[Any, asyncio.TimerHandle] = {}
        self._busy: set[Any] = set()
        self._abandoned: set[int] = set()
        self.failures = 0
        self._engine = self._create_engine()

    def _create_engine(self) -> AsyncEngine:
        engine = create_async_engine(
            "postgresql+asyncpg://",
            pool_size=_CONNECTIONS,
            connect_args={"async_creator_fn": self._connect},
            **ENGINE_OPTIONS,
        )

        @event.listens_for(engine.sync_engine, "do_connect")
        def prepare_or_not(_: object, __: object, ___: object, arguments: dict[str, Any]) -> None:
            arguments["prepared_statement_name_func"] = _unique_name if self._prepares else str
            arguments["prepared_statement_cache_size"] = 100 if self._prepares else 0

        @event.listens_for(engine.sync_engine, "checkout")
        def replace_if_closed(_: object, record: Any, __: object) -> None:
            # It may have been terminated while it was in the pool.
            if record.driver_connection.is_closed():
                self.failures += 1
                self._idle.discard(record.driver_connection)
                raise DisconnectionError

        return engine

    async def run(
        self,
        work: Callable[[Connection], Answer],
        *,
        within: Limit,
        deadline_s: float,
        **_: object,
    ) -> Answer:
        """Return the result of ``work`` on a connection. The server syncs each commit.

        Args:
            work: The operation, in one attempt.
            within: Its time limit.
            deadline_s: End of all attempts, by the loop's clock.

        Raises:
            TimeoutError: No connection was available in time.
            NoAnswerError: A session did not answer in time.
        """
        try:
            if self._at_hand > 0:
                # An idle connection needs no waiting, and so no limit, which would cost time.
                self._at_hand -= 1
                async with self._turns, self._engine.connect() as connection:
                    return await self._run_on(connection, work, within=within, deadline_s=deadline_s)
            async with (
                asyncio.timeout_at(deadline_s) as waiting,
                self._turns,
                self._engine.connect() as connection,
            ):
                waiting.reschedule(None)
                return await self._run_on(connection, work, within=within, deadline_s=deadline_s)
        except Exception:
            self.failures += 1
            raise

    async def aclose(self) -> None:
        """Close idle sessions, with a farewell if the server answers, and then terminate all."""
        farewells = (driver.close(timeout=_FAREWELL_S) for driver in self._idle)
        try:
            await asyncio.gather(*farewells, return_exceptions=True)
        finally:
            self.stop()
        await self._engine.dispose()

    def is_temporary(self, error: Exception) -> bool:
        """Return whether an error may be temporary."""
        return is_temporary(error)

    def translated(self, error: BaseException) -> OutboxError:
        """Return the ``OutboxError`` for an error of the driver or the system."""
        return outbox_error(error, self._parameters.secrets)

    def stop(self) -> None:
        """Terminate all sessions at once, without a farewell; their running statements fail."""
        for watchdog in self._new.values():
            watchdog.cancel()
        for driver in (*self._idle, *self._new, *self._busy):
            driver.terminate()
        self._new.clear()
        self._none_is_idle()

    async def _connect(self, **_: Any) -> Any:
        """Return a connection for the engine, to the first host that is suitable."""
        for host in self._hosts:
            try:
                driver = await self._connect_to(host)
            except Exception:
                if host is self._hosts[-1]:
                    raise
                continue
            # The next connection tries this host first.
            self._hosts = (host, *(other for other in self._parameters.hosts if other is not host))
            return driver
        raise AssertionError  # the last round returns or raises

    async def _connect_to(self, host: Host) -> Any:
        import asyncpg  # noqa: PLC0415 - an outbox in a file does without

        limit_s = self._silence_s / len(self._hosts)

        async def connect() -> Any:
            return await asyncpg.connect(
                **self._parameters.arguments,
                host=host.name,
                port=host.port,
                ssl=host.tls,
                timeout=limit_s,
                # SQLAlchemy caches the statements.
                statement_cache_size=0,
                server_settings=self._settings,
            )

        try:
            try:
                driver = await connect()
            except asyncpg.ProtocolViolationError as error:
                # PgBouncer accepts few settings, and refuses the others itself.
                if "startup parameter" not in str(error) or "lock_timeout" not in self._settings:
                    raise
                del self._settings["lock_timeout"]
                driver = await connect()
        except TimeoutError:
            raise TimeoutError(f"no connection within {limit_s:.3g} s") from None
        loop = asyncio.get_running_loop()
        self._new[driver] = loop.call_later(self._silence_s, self._abandon, driver)
        if self._abandoned:
            pids = list(self._abandoned)
            # A server that lacks the function, or refuses it to this user, is no worse off than without this call.
            with suppress(asyncpg.PostgresError):
                await driver.fetch(_END, pids, self._parameters.application_name)
            self._abandoned.difference_update(pids)
        return driver

    async def _run_on(
        self,
        connection: AsyncConnection,
        work: Callable[[Connection], Answer],
        *,
        within: Limit,
        deadline_s: float,
    ) -> Answer:
        # As ``get_raw_connection`` does, without its detour through a greenlet.
        driver = cast("Any", connection.sync_connection).connection.driver_connection
        watchdog = self._new.pop(driver, None)
        self._idle.discard(driver)
        self._busy.add(driver)
        left_s = max(deadline_s - asyncio.get_running_loop().time(), 0.0)
        try:
            if watchdog is not None:
                # It has just answered, so a delay is not due to the route.
                watchdog.cancel()
            elif within.is_long:
                await self._within(self._silence_s, driver, connection.exec_driver_sql("SELECT 1"))
            else:
                left_s = min(left_s, self._silence_s)
            return await self._within(left_s, driver, connection.run_sync(work))
        except DBAPIError as error:
            if is_useless(error):
                # If prepared statements got lost, none are used from now on.
                self._prepares = self._prepares and not is_unprepared(error)
                driver.terminate()
                for useless in self._idle:
                    useless.terminate()
                self._none_is_idle()
                await connection.invalidate()
            raise
        finally:
            self._busy.discard(driver)
            if not driver.is_closed():
                self._idle.add(driver)
                self._at_hand += 1

    async def _within(self, limit_s: float, driver: Any, answer: Awaitable[Answer]) -> Answer:
        watchdog = asyncio.get_running_loop().call_later(limit_s, self._abandon, driver)
        try:
            return await answer
        except DBAPIError:
            if driver.is_closed() and watchdog.when() <= asyncio.get_running_loop().time():
                raise NoAnswerError(f"no answer within {limit_s:.3g} s") from None
            raise
        finally:
            watchdog.cancel()

    def _abandon(self, driver: Any) -> None:
        """Terminate a session that is silent, and those in the pool."""
        self._new.pop(driver, None)
        for silent in (driver, *self._idle):
            if not silent.is_closed():
                self._abandoned.add(silent.get_server_pid())
                silent.terminate()
        self._none_is_idle()

    def _none_is_idle(self) -> None:
        self._idle.clear()
        self._at_hand = 0


def _unique_name() -> str:
    return f"printos_{secrets.token_hex(12)}"

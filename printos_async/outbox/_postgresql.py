"""The sessions of an outbox on a PostgreSQL server: how they begin, how long they may be silent, and how they end.

A connection that something on its way has forgotten says nothing, for ever. So no statement is waited for without a
limit. A session that did not answer in time is given up without a farewell, and with it those that lie idle, for they
took the same way. The next session ends them at the server: what was still on its way to them is never executed, and
an older status cannot come after a newer one.

A pool between (PgBouncer) may lend another session of the server to each transaction. Nothing here is left in a
session that a later statement needs, except prepared statements, and those are given up as soon as one is missing.
Their names are never used twice: a session of somebody else has none of that name, or the wrong one would be run.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from attrs import frozen
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import create_async_engine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeVar

    from sqlalchemy import URL
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from ._postgresql_url import Host, Server

    Answer = TypeVar("Answer")

CONNECTIONS = 3
# For a lock that somebody else holds.
_LOCK_S = 10.0
_LONGEST_SILENCE_S = 5.0
_SHORTEST_SILENCE_S = 1.0
_SILENCES_PER_LEASE = 4

# The session is of no use, and those beside it are likely to be no better: it is read-only (after a fail-over, say),
# it lacks a prepared statement, or has one that does not fit the tables any more.
_UNPREPARED_STATES = {"26000", "42P05"}
_USELESS_STATES = _UNPREPARED_STATES | {"25006", "0A000"}
# SQLAlchemy's own error for a statement that does not fit any more, which has no state.
_OUTDATED = "InvalidCachedStatementError"
# Of several servers none is the one that may be written to, until a fail-over is over.
_NO_PRIMARY = "TargetServerAttributeNotMatched"
# Deadlock, serialization failure, a server that stops or starts, too many connections; and all of class 08.
_PASSING_STATES = _USELESS_STATES | {"40P01", "40001", "57P01", "57P02", "57P03", "53300"}
_END = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE pid = ANY($1::int[]) AND usename = current_user AND application_name = $2"
)


@frozen
class Limit:
    """How long a call may take.

    Attributes:
        total_s: With all attempts, and with waiting for a connection.
        is_long: Whether a statement may take its time. Its connection is tried out before, and the total is the only
            limit then; otherwise the first attempt has a limit of its own.
    """

    total_s: float
    is_long: bool = False


# Two of them, one after the other, are over within 15 s: a put may have to wait for the one before it.
PROMPT = Limit(7.0)
USUAL = Limit(30.0)
LONG = Limit(600.0, is_long=True)


class NoAnswerError(TimeoutError):
    """A session was silent for too long, and was given up."""


class Sessions:
    """The sessions of one engine.

    Args:
        server: Where they lead.
        lease_s: Of the outbox. A session that is silent has to be noticed well within it.
    """

    def __init__(self, server: Server, *, lease_s: float) -> None:
        self._server = server
        self._hosts = server.hosts
        self._silence_s = min(max(lease_s / _SILENCES_PER_LEASE, _SHORTEST_SILENCE_S), _LONGEST_SILENCE_S)
        self._settings = {"application_name": server.application_name, "lock_timeout": f"{_LOCK_S:.0f}s"}
        self._prepares = server.prepares
        prefix = f"printos_{secrets.token_hex(8)}_"
        self._names = (f"{prefix}{number}" for number in itertools.count())
        self._turns = asyncio.Semaphore(CONNECTIONS)
        # asyncpg's connections: in the pool; not used yet, with what ends them; and in use.
        self._idle: set[Any] = set()
        self._new: dict[Any, asyncio.TimerHandle] = {}
        self._busy: set[Any] = set()
        self._abandoned: set[int] = set()

    def engine(self, url: URL, **options: Any) -> AsyncEngine:
        """Return an engine whose connections are made here; ``options`` are those of ``create_async_engine``."""
        engine = create_async_engine(
            url.set(username=None, password=None, host=None, port=None, database=None, query={}),
            pool_size=CONNECTIONS,
            connect_args={"async_creator_fn": self._connect},
            **options,
        )

        @event.listens_for(engine.sync_engine, "do_connect")
        def prepare_or_not(_: object, __: object, ___: object, arguments: dict[str, Any]) -> None:
            arguments["prepared_statement_name_func"] = self._next_name if self._prepares else str
            arguments["prepared_statement_cache_size"] = 100 if self._prepares else 0

        @event.listens_for(engine.sync_engine, "checkout")
        def replace_if_closed(_: object, record: Any, __: object) -> None:
            # What lay in the pool may have been given up meanwhile.
            if record.driver_connection.is_closed():
                raise DisconnectionError

        return engine

    async def use(
        self,
        engine: AsyncEngine,
        use: Callable[[AsyncConnection], Awaitable[Answer]],
        *,
        within: Limit,
        deadline_s: float,
    ) -> Answer:
        """Return what ``use`` makes of a connection.

        Args:
            engine: As made here.
            use: What is to be done, in one attempt.
            within: Its kind.
            deadline_s: End of all attempts, by the loop's clock.

        Raises:
            TimeoutError: No connection was to be had in time.
            NoAnswerError: A session did not answer in time.
        """
        async with (
            asyncio.timeout_at(deadline_s) as waiting,
            self._turns,
            engine.connect() as connection,
        ):
            waiting.reschedule(None)
            driver: Any = (await connection.get_raw_connection()).driver_connection
            watchdog = self._new.pop(driver, None)
            self._idle.discard(driver)
            self._busy.add(driver)
            left_s = max(deadline_s - asyncio.get_running_loop().time(), 0.0)
            try:
                if watchdog is not None:
                    # It has answered a moment ago: whatever takes long now is not the way.
                    watchdog.cancel()
                elif within.is_long:
                    await self._within(self._silence_s, driver, connection.exec_driver_sql("SELECT 1"))
                else:
                    left_s = min(left_s, self._silence_s)
                return await self._within(left_s, driver, use(connection))
            except DBAPIError as error:
                if _is_useless(error):
                    if state_of(error.orig) in _UNPREPARED_STATES:
                        self._prepares = False
                    for useless in (driver, *self._idle):
                        useless.terminate()
                    await connection.invalidate()
                raise
            finally:
                self._busy.discard(driver)
                if not driver.is_closed():
                    self._idle.add(driver)

    def terminate(self) -> None:
        """End all sessions at once, without a farewell; what is under way in them fails."""
        for watchdog in self._new.values():
            watchdog.cancel()
        for driver in (*self._idle, *self._new, *self._busy):
            driver.terminate()
        self._idle.clear()
        self._new.clear()

    async def _connect(self, **_: Any) -> Any:
        """Make a connection for the engine, to the first host that will do."""
        for host in self._hosts:
            try:
                driver = await self._connect_to(host)
            except Exception:
                if host is self._hosts[-1]:
                    raise
                continue
            # Where one was of use the next one will be.
            self._hosts = (host, *(other for other in self._server.hosts if other is not host))
            return driver
        raise AssertionError  # the last round returns or raises

    async def _connect_to(self, host: Host) -> Any:
        import asyncpg  # noqa: PLC0415 - an outbox in a file does without

        limit_s = self._silence_s / len(self._hosts)

        async def connect() -> Any:
            return await asyncpg.connect(
                **self._server.arguments,
                host=host.name,
                port=host.port,
                ssl=host.tls,
                timeout=limit_s,
                # SQLAlchemy keeps the statements.
                statement_cache_size=0,
                server_settings=self._settings,
            )

        try:
            try:
                driver = await connect()
            except asyncpg.ProtocolViolationError as error:
                # A pool knows few settings, and refuses the others before it asks the server.
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
            # A server without such a statement, or that does not let this user, is as it would be without it.
            with suppress(asyncpg.PostgresError):
                await driver.fetch(_END, pids, self._server.application_name)
            self._abandoned.difference_update(pids)
        return driver

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
        """Give up a session that is silent, and those that wait in the pool."""
        self._new.pop(driver, None)
        for silent in (driver, *self._idle):
            if not silent.is_closed():
                self._abandoned.add(silent.get_server_pid())
                silent.terminate()
        self._idle.clear()

    def _next_name(self) -> str:
        return next(self._names)


def passes(error: BaseException) -> bool:
    """Tell whether an error of the server, the driver or the system may be gone in a moment."""
    if advice(error):
        return False
    if isinstance(error, DBAPIError):
        if error.connection_invalidated or _is_useless(error):
            return True
        return passes(error.orig) if error.orig is not None else False
    state = state_of(error)
    return (
        # Connecting to a server raises what the system and the driver raise.
        isinstance(error, OSError)
        or state in _PASSING_STATES
        or state.startswith("08")
        or type(error).__name__ == _NO_PRIMARY
    )


def state_of(error: BaseException | None) -> str:
    """Return PostgreSQL's code of an error; empty if it has none."""
    return str(getattr(error, "sqlstate", None) or "")


def _is_useless(error: DBAPIError) -> bool:
    return state_of(error.orig) in _USELESS_STATES or type(error.orig).__name__ == _OUTDATED


def advice(error: BaseException) -> str:
    """Return what to do about an error of TLS; empty for others."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "; name the file of the authority that signed it as sslrootcert in the outbox's URL"
    if isinstance(error, ConnectionError) and "rejected SSL upgrade" in str(error):
        return (
            "; let the server offer TLS, or where nobody else can reach the network say sslmode=disable in the"
            " outbox's URL"
        )
    return ""

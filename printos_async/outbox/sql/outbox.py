"""An outbox in a SQLite file or a PostgreSQL database. SQLAlchemy is imported when one is made."""

from __future__ import annotations

import asyncio
import sqlite3
from importlib.util import find_spec
from typing import TYPE_CHECKING

from printos_async._checks import require_number
from printos_async._errors import ConfigurationError, OutboxError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import URL

    from printos_async._clock import MachineClock
    from printos_async.outbox.postgresql.url import Server
    from printos_async.outbox.protocol import (
        Claim,
        DeadLetter,
        Draft,
        Finish,
        Kept,
        OutboxStats,
        Progress,
        Release,
    )
    from printos_async.outbox.sqlite.spool import SetAside

    from .rows import AccountRows

_EXTRAS = {"sqlite": "sql", "postgresql": "postgres"}
_DRIVERS = {"sqlite": "aiosqlite", "postgresql": "asyncpg"}
_POSSIBLE = (
    "sqlite+aiosqlite:///FILE (sqlite+aiosqlite:////FILE for an absolute path) or"
    " postgresql+asyncpg://USER:PASSWORD@HOST/DATABASE"
)
# Parameters of a URL.
_SECRETS = {"sslpassword"}
# RETURNING and MATERIALIZED.
_OLDEST_SQLITE = (3, 35)


class SqlOutbox:
    """Keeps statuses in a database, safe against the end of the process and, if the disk is, of the machine.

    Several processes may use one database, each with an outbox of its own. One outbox serves one event loop.
    Cancelling a call does not stop what it has begun in the database.

    Args:
        url: ``sqlite+aiosqlite:///spool.db`` for a file, which is made if it is missing (four slashes begin an
            absolute path), or ``postgresql+asyncpg://user:password@host/database``. Parameters after ``?`` say how a
            server is reached, such as ``sslmode`` and ``sslrootcert``: see the documentation of outboxes.
        lease_s: Seconds after which others take over the devices of a worker that does not renew.

    Attributes:
        on_set_aside: Called in the event loop after a damaged file was renamed and a new one begun, which is also
            logged; None for nothing. May be set at any time.
        on_replaced: Called in the event loop when the file turned out to be another one than before, because a
            process has set a damaged one aside, this one or another. A pusher uses it.

    Raises:
        ConfigurationError: The URL is of another kind or has an unknown parameter, a file of certificates cannot be
            read, or the extra for it is not installed.
    """

    is_shared = True

    def __init__(self, url: str, *, lease_s: float = 30.0) -> None:
        require_number("lease_s", lease_s, 0.001)
        self.lease_s = lease_s
        self._url = _parsed(url)
        self._server = _server(self._url)
        self.on_set_aside: Callable[[SetAside], None] | None = None
        self.on_replaced: Callable[[], None] | None = None
        self._clock: MachineClock | None = None  # this machine's
        self._rows: AccountRows | None = None
        self._opening = asyncio.Lock()

    def __repr__(self) -> str:
        hidden = dict.fromkeys(_SECRETS & self._url.query.keys(), "***")
        url = self._url.update_query_dict(hidden).render_as_string(hide_password=True)
        return f"SqlOutbox({url!r}, lease_s={self.lease_s!r})"

    async def open(self, account: str) -> None:
        """As ``Outbox.open``."""
        from .database import Database  # noqa: PLC0415 - optional
        from .rows import AccountRows  # noqa: PLC0415 - optional

        async with self._opening:
            if self._rows is None:
                database = Database(
                    self._url,
                    server=self._server,
                    lease_s=self.lease_s,
                    clock=self._clock,
                    on_set_aside=self._tell,
                    on_replaced=self._tell_replaced,
                )
                self._rows = await AccountRows.open(database, account=account, lease_s=self.lease_s)
            elif self._rows.account != account:
                raise ConfigurationError("this outbox is open for another account: make one for each")

    async def aclose(self) -> None:
        """As ``Outbox.aclose``, after what is under way."""
        async with self._opening:
            rows, self._rows = self._rows, None
            if rows is not None:
                await rows.aclose()

    async def put(self, drafts: Sequence[Draft], *, owner: int | None = None) -> list[Kept]:
        """As ``Outbox.put``."""
        return await self._opened().put(drafts, owner=owner)

    async def join(self) -> int:
        """As ``Outbox.join``."""
        return await self._opened().join()

    async def renew(self, owner: int) -> bool:
        """As ``Outbox.renew``."""
        return await self._opened().renew(owner)

    async def claim(self, owner: int, limit: int) -> list[Claim]:
        """As ``Outbox.claim``."""
        return await self._opened().claim(owner, limit)

    async def finish(self, owner: int, finished: Sequence[Finish]) -> list[Claim]:
        """As ``Outbox.finish``."""
        return await self._opened().finish(owner, finished)

    async def release(self, owner: int, released: Sequence[Release]) -> None:
        """As ``Outbox.release``."""
        await self._opened().release(owner, released)

    async def leave(self, owner: int) -> None:
        """As ``Outbox.leave``."""
        await self._opened().leave(owner)

    async def newer(self, owner: int, limit: int) -> list[Claim]:
        """As ``Outbox.newer``."""
        return await self._opened().newer(owner, limit)

    async def progress(self, device_ids: Iterable[str]) -> list[Progress]:
        """As ``Outbox.progress``."""
        return await self._opened().progress(device_ids)

    async def stats(self) -> OutboxStats:
        """As ``OutboxAdministration.stats``."""
        return await self._opened().stats()

    async def failed(self, *, limit: int = 100, after: str = "") -> list[DeadLetter]:
        """As ``OutboxAdministration.failed``."""
        return await self._opened().failed(limit=limit, after=after)

    async def requeue(self, device_ids: Iterable[str] | None = None) -> int:
        """As ``OutboxAdministration.requeue``."""
        return await self._opened().requeue(device_ids)

    async def purge(self, *, failed: bool = False, older_than_s: float = 0.0) -> int:
        """As ``OutboxAdministration.purge``."""
        return await self._opened().purge(failed=failed, older_than_s=older_than_s)

    def _tell(self, what: SetAside) -> None:
        if self.on_set_aside is not None:
            self.on_set_aside(what)

    def _tell_replaced(self) -> None:
        if self.on_replaced is not None:
            self.on_replaced()

    def _opened(self) -> AccountRows:
        if self._rows is None:
            raise OutboxError("the outbox is not open")
        return self._rows


def _parsed(url: str) -> URL:
    """Give the URL taken apart, if it is one that works here. It never stands in an error: it may hold a password."""
    scheme = url.partition("://")[0] if "://" in url else ""
    kind, _, driver = scheme.partition("+")
    if _DRIVERS.get(kind) != driver:
        named = (
            f"not one that begins with {scheme!r}" if scheme.replace("+", "").isalnum() else "not this one"
        )
        raise ConfigurationError(f"the outbox's URL must be {_POSSIBLE}, {named}")
    if missing := [name for name in ("sqlalchemy", "greenlet", driver) if find_spec(name) is None]:
        raise ConfigurationError(
            f"an outbox in a database needs {' and '.join(missing)}: pip install 'printos-async[{_EXTRAS[kind]}]'"
        )
    from sqlalchemy import make_url  # noqa: PLC0415 - optional
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415 - optional

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigurationError(f"the outbox's URL cannot be read; it must be {_POSSIBLE}") from None
    if kind == "sqlite":
        if parsed.database in {None, "", ":memory:"}:
            raise ConfigurationError(
                "the outbox's URL names no file: MemoryOutbox() keeps statuses in memory"
            )
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise ConfigurationError(
                f"an outbox in a file needs SQLite 3.35, and this Python has {sqlite3.sqlite_version}"
            )
    return parsed


def _server(url: URL) -> Server | None:
    if url.get_backend_name() == "sqlite":
        return None
    from printos_async.outbox.postgresql.url import Server  # noqa: PLC0415 - optional

    return Server.of(url)

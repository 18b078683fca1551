"""An outbox in a SQLite file or a PostgreSQL database. SQLAlchemy is imported when one is made."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from printos_async._common.checks import require_number
from printos_async._common.clock import machine_clock
from printos_async._errors import ConfigurationError, OutboxError
from printos_async.outbox.administration import DeadLetter, DeviceDelivery, OutboxStats
from printos_async.outbox.protocol import Progress

from .background import Background
from .batches import age, as_bytes, portions, to_json
from .limits import LONG
from .url import hide_secrets, parse_url, server_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from printos_async._common.clock import MachineClock
    from printos_async.outbox.administration import TenantStats
    from printos_async.outbox.postgresql.engine import PostgresqlServer
    from printos_async.outbox.protocol import Claim, Draft, Finish, Kept, Release
    from printos_async.outbox.sqlite.engine import SqliteFile
    from printos_async.outbox.sqlite.replaceable_file import SetAside

    from .session import Session


_LONG_S = 1e10


class SqlOutbox:
    """An outbox in a database, which outlives the process and, if its disk does, the machine.

    Several processes may use one database, each with an outbox of its own. One outbox serves one event loop, and one
    pusher or spooler at a time: those of one process have an outbox each, too, which may have the same URL.
    Cancelling a call does not stop a statement that has begun.

    Args:
        url: ``sqlite+aiosqlite:///spool.db`` for a file, which is created if it is missing (four slashes begin an
            absolute path), or ``postgresql+asyncpg://user:password@host/database``. That of a server may have
            parameters after ``?``, such as ``sslmode`` and ``sslrootcert``: see the documentation of outboxes.
        lease_s: Seconds after which others take over the devices of a worker that does not renew its lease.

    Attributes:
        on_set_aside: Called in the event loop after a damaged file was renamed and a new one created, which is also
            logged. May be set at any time.
        on_replaced: As in ``Outbox``: the file was replaced, because this process or another one has set a damaged
            file aside.

    Raises:
        ConfigurationError: The URL is of another kind, or has an unknown parameter or an impossible value; a file of
            certificates cannot be read, or the extra for it is not installed.
    """

    is_shared = True

    def __init__(self, url: str, *, lease_s: float = 30.0) -> None:
        require_number("lease_s", lease_s, 0.001)
        self.lease_s = lease_s
        self._url = parse_url(url)
        self._server_parameters = server_parameters(self._url)
        self.on_set_aside: Callable[[SetAside], None] | None = None
        self.on_replaced: Callable[[], None] | None = None
        self._clock: MachineClock | None = None  # the machine's by default
        self._session: Session | None = None
        self._opening = asyncio.Lock()
        # What is being closed is closed to its end, even if the caller of ``aclose`` is cancelled.
        self._closing = Background()

    def __repr__(self) -> str:
        return f"SqlOutbox({hide_secrets(self._url)!r}, lease_s={self.lease_s!r})"

    async def open(self, account: str, *, label: str = "", host: str = "") -> None:
        """As ``LabellingOutbox.open``."""
        from .database import Database  # noqa: PLC0415 - optional
        from .session import Session  # noqa: PLC0415 - optional

        async with self._opening:
            await self._closing.settle()
            if self._session is None:
                session = Session(Database(self._connector()), account, lease_s=self.lease_s)
                try:
                    await session.open(label, host)
                except BaseException:
                    await self._closing.run(session.aclose())
                    raise
                self._session = session
            elif self._session.tenant != account:
                raise ConfigurationError("this outbox is open for another account: make one for each")

    def _connector(self) -> PostgresqlServer | SqliteFile:
        # Imported here: each needs packages that the other does without.
        if self._server_parameters is not None:
            from printos_async.outbox.postgresql.engine import PostgresqlServer  # noqa: PLC0415

            return PostgresqlServer(self._server_parameters, lease_s=self.lease_s)
        from printos_async.outbox.sqlite.engine import SqliteFile  # noqa: PLC0415

        return SqliteFile(
            str(self._url.database),
            clock=self._clock or machine_clock(),
            on_set_aside=self._report_set_aside,
            on_replaced=self._report_replaced,
        )

    async def aclose(self) -> None:
        """As ``Outbox.aclose``, after running statements have ended.

        Cancelling detaches: the outbox is closed nevertheless, and another call waits for that.
        """
        async with self._opening:
            session, self._session = self._session, None
            if session is not None:
                await self._closing.run(session.aclose())
            await self._closing.settle()

    async def put(self, drafts: Sequence[Draft], *, owner: int | None = None) -> list[Kept]:
        """As ``Outbox.put``.

        Raises:
            InvalidDeviceIdError: A device's identifier has a NUL or half of a surrogate pair. Of many statuses, some may
                have been kept.
        """
        session = self._opened()
        # It may take place nevertheless, and make the worker the owner of statuses of which it does not know.
        return await session.background.run(
            session.put(drafts, owner), on_loss=lambda: session.missing_claims.add(owner)
        )

    async def join(self) -> int:
        """As ``Outbox.join``."""
        session = self._opened()
        return await session.background.run(session.workers.join())

    async def renew(self, owner: int) -> bool:
        """As ``Outbox.renew``."""
        session = self._opened()
        renewed = await session.background.run(session.workers.renew(owner))
        session.write_deliveries_if_due()
        return renewed

    async def claim(self, owner: int, limit: int) -> list[Claim]:
        """As ``Outbox.claim``."""
        session = self._opened()
        return await session.take(session.statuses.claim, owner, limit)

    async def finish(self, owner: int, finished: Sequence[Finish]) -> list[Claim]:
        """As ``Outbox.finish``."""
        session = self._opened()
        return await session.background.run(session.finish(finished, owner))

    async def release(self, owner: int, released: Sequence[Release]) -> None:
        """As ``Outbox.release``."""
        session = self._opened()
        for part in portions(released):
            lines = [(one.device_id, one.hold_s, one.attempts, one.uncertain_in_s) for one in part]
            await session.fetch(session.statuses.release, this_worker=owner, batch=to_json(lines))

    async def leave(self, owner: int) -> None:
        """As ``Outbox.leave``."""
        session = self._opened()
        await session.background.run(session.workers.leave(owner))
        await session.background.run(session.deliveries.leave())

    async def newer(self, owner: int, limit: int) -> list[Claim]:
        """As ``Outbox.newer``."""
        session = self._opened()
        if session.workers.is_look_due:
            await session.background.run(session.workers.take_over_dead())
        return await session.take_newer(owner, limit)

    async def progress(self, device_ids: Iterable[str]) -> list[Progress]:
        """As ``Outbox.progress``."""
        session = self._opened()
        found: list[Progress] = []
        for part in portions(dict.fromkeys(device_ids)):
            batch = to_json((device_id,) for device_id in part)
            found += [
                Progress(row.device_id, row.seq, row.done_seq, row.attempts, row.error, row.hold_s)
                for row in await session.fetch_sound(session.statuses.progress, batch=batch)
            ]
        return found

    async def stats(self) -> OutboxStats:
        """As ``OutboxAdministration.stats``."""
        session = self._opened()
        [row] = await session.fetch(session.administration.stats, within=LONG)
        counts = {**row._mapping}  # noqa: SLF001 - public in spite of its name
        return OutboxStats(**counts | {"oldest_waiting_s": age(row.oldest_waiting_s)})

    async def failed(self, *, limit: int = 100, after: str = "") -> list[DeadLetter]:
        """As ``OutboxAdministration.failed``."""
        session = self._opened()
        return [
            DeadLetter(
                row.device_id,
                row.seq,
                as_bytes(row.body),
                row.done_attempts,
                row.error,
                max(row.failed_age_s, 0.0),
            )
            for row in await session.fetch_sound(session.administration.failed, limit=limit, after=after)
        ]

    async def devices(
        self, *, silent_for_s: float = 0.0, limit: int = 100, after: str = ""
    ) -> list[DeviceDelivery]:
        """As ``OutboxAdministration.devices``."""
        session = self._opened()
        await session.background.run(session.deliveries.write())
        # Without a limit, those too that were delivered in the future, by a clock that was set back.
        parameters = {"silent_for_s": silent_for_s or -_LONG_S, "limit": limit, "after": after}
        return [
            DeviceDelivery(
                device_id=row.device_id,
                delivered_age_s=age(row.delivered_age_s),
                waiting_s=age(row.waiting_s),
                failed_age_s=age(row.failed_age_s),
                error=row.error,
            )
            for row in await session.fetch_sound(session.deliveries.page, within=LONG, **parameters)
        ]

    async def requeue(self, device_ids: Iterable[str] | None = None) -> int:
        """As ``OutboxAdministration.requeue``."""
        session = self._opened()
        if device_ids is None:
            return len(await session.fetch(session.administration.requeue_all, within=LONG))
        count = 0
        for part in portions(dict.fromkeys(device_ids)):
            batch = to_json((device_id,) for device_id in part)
            count += len(await session.fetch(session.administration.requeue, batch=batch))
        return count

    async def purge(self, *, failed: bool = False, older_than_s: float = 0.0) -> int:
        """As ``OutboxAdministration.purge``."""
        session = self._opened()
        return await session.background.run(session.deletion.purge(failed=failed, older_than_s=older_than_s))

    async def purge_deliveries(self, *, older_than_s: float = 0.0) -> int:
        """As ``OutboxAdministration.purge_deliveries``."""
        session = self._opened()
        await session.background.run(session.deliveries.write())
        return await session.background.run(session.deliveries.purge(older_than_s=older_than_s))

    async def tenants(self) -> list[TenantStats]:
        """As ``OutboxAdministration.tenants``."""
        session = self._opened()
        return await session.background.run(session.tenants.stats())

    async def adopt(self, tenant: str) -> int:
        """As ``OutboxAdministration.adopt``."""
        session = self._opened()
        return await session.background.run(session.tenants.adopt(tenant))

    def _report_set_aside(self, what: SetAside) -> None:
        if self.on_set_aside is not None:
            self.on_set_aside(what)

    def _report_replaced(self) -> None:
        if self.on_replaced is not None:
            self.on_replaced()

    def _opened(self) -> Session:
        if self._session is None:
            raise OutboxError("the outbox is not open")
        return self._session

"""The three kinds of outbox that one conformance suite holds to the protocol."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from printos_async.outbox import Draft, MemoryOutbox, Outbox, OutboxAdministration, SqlOutbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ACCOUNT = "account-1"
LEASE_S = 30.0
_TIMES = {
    "printos_outbox": ("put_at", "due_at", "doubt_since", "done_at", "waiting_since"),
    "printos_worker": ("lease_until", "renewed_at"),
    "printos_delivery": ("delivered_at",),
}


def draft(device_id: str, word: str = "DS_ON") -> Draft:
    return Draft(device_id, b'{"status":"%b"}' % word.encode())


class AdministeredOutbox(Outbox, OutboxAdministration, Protocol):
    """Type of all outboxes of this package."""


class Store(Protocol):
    """Where statuses are kept; tests move its clock instead of waiting."""

    async def open(self, account: str = ACCOUNT, *, label: str = "", host: str = "") -> AdministeredOutbox:
        """Return an open outbox on this store; a new one each time if the store is shared."""
        ...

    async def pass_time(self, seconds: float) -> None: ...


class MemoryStore:
    def __init__(self) -> None:
        self._offset_s = 0.0
        self._outbox = MemoryOutbox(lease_s=LEASE_S, clock=lambda: time.monotonic() + self._offset_s)

    async def open(self, account: str = ACCOUNT, *, label: str = "", host: str = "") -> AdministeredOutbox:
        await self._outbox.aclose()
        await self._outbox.open(account, label=label, host=host)
        return self._outbox

    async def pass_time(self, seconds: float) -> None:
        self._offset_s += seconds


class SqlStore:
    """A database; use as a context manager."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._stack = AsyncExitStack()

    async def open(self, account: str = ACCOUNT, *, label: str = "", host: str = "") -> SqlOutbox:
        outbox = SqlOutbox(self.url, lease_s=LEASE_S)
        self._stack.push_async_callback(outbox.aclose)
        await outbox.open(account, label=label, host=host)
        return outbox

    async def pass_time(self, seconds: float) -> None:
        # The clock is the database's, so what is written moves back instead.
        for table, columns in _TIMES.items():
            moved = ", ".join(f"{column} = {column} - {seconds}" for column in columns)
            await self.execute(f"UPDATE {table} SET {moved}")

    async def execute(self, statement: str, **parameters: object) -> list[tuple[object, ...]]:
        engine = create_async_engine(self.url)
        try:
            async with engine.begin() as connection:
                result = await connection.execute(text(statement), parameters)
                return [tuple(row) for row in result] if result.returns_rows else []
        finally:
            await engine.dispose()

    async def aclose(self) -> None:
        await self._stack.aclose()


@asynccontextmanager
async def sql_store(url: str) -> AsyncIterator[SqlStore]:
    store = SqlStore(url)
    try:
        yield store
    finally:
        await store.aclose()

"""PostgreSQL: statements of a worker that end after its lease, and after others have taken its devices over."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from .stores import LEASE_S, SqlStore, draft, sql_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from printos_async.outbox import SqlOutbox

LOCK_DEVICE = "SELECT 1 FROM printos_outbox WHERE device_id = 'a' FOR UPDATE"
# By the connection that asks. Unlike ``pg_stat_activity`` this is read anew within a transaction.
WAITERS = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
LEASE_ENDS = "SELECT pg_sleep_until(to_timestamp(lease_until)) FROM printos_worker WHERE id = {}"


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[SqlStore]:
    async with sql_store(postgres_url) as opened:
        yield opened


@asynccontextmanager
async def transaction(store: SqlStore, statement: str) -> AsyncIterator[asyncpg.Connection]:
    """Run a statement in a transaction, which ends with the block."""
    connection = await asyncpg.connect(store.url.replace("+asyncpg", ""))
    try:
        async with connection.transaction():
            await connection.execute(statement)
            yield connection
    finally:
        await connection.close()


async def waits(call: asyncio.Task[Any], connection: asyncpg.Connection, *, waiters: int = 1) -> None:
    """Return when the statement of a call waits for a lock of the connection."""
    while not call.done() and await connection.fetchval(WAITERS) < waiters:
        pass


async def end_lease(store: SqlStore, owner: int, ago_s: float) -> None:
    await store.execute(
        "UPDATE printos_worker SET lease_until = extract(epoch FROM clock_timestamp()) - :ago_s WHERE id = :id",
        ago_s=ago_s,
        id=owner,
    )


async def owned(outbox: SqlOutbox, owner: int) -> list[str]:
    return [claim.device_id for claim in await outbox.claim(owner, 10)]


async def test_a_device_that_is_claimed_long_after_the_end_of_a_lease_is_free_again(store: SqlStore) -> None:
    killed, alive = await store.open(), await store.open()
    await killed.put([draft("a")])
    dead, other = await killed.join(), await alive.join()
    async with transaction(store, LOCK_DEVICE) as blocker:
        put = asyncio.create_task(killed.put([draft("a", "DS_NEW")], owner=dead))
        await waits(put, blocker)
        await end_lease(store, dead, 2 * LEASE_S)
        assert await alive.renew(other)
    assert (await put)[0].claimed
    assert await owned(alive, other) == []
    assert await alive.renew(other)
    assert await owned(alive, other) == ["a"]
    assert await store.execute("SELECT id FROM printos_worker") == [(other,)]


async def test_devices_stay_with_a_worker_whose_renewal_commits_after_its_old_lease(store: SqlStore) -> None:
    slow, alive = await store.open(), await store.open()
    worker, other = await slow.join(), await alive.join()
    await slow.put([draft("a")], owner=worker)
    await end_lease(store, worker, 1.0)
    renewal = f"UPDATE printos_worker SET lease_until = lease_until + {LEASE_S} WHERE id = {worker}"
    async with transaction(store, renewal):
        assert await alive.renew(other)
        assert await owned(alive, other) == []
    assert await slow.renew(worker)
    assert await alive.renew(other)
    assert await owned(alive, other) == []


async def test_a_renewal_that_was_overtaken_by_the_end_of_its_lease_fails(store: SqlStore) -> None:
    slow, alive = await store.open(), await store.open()
    worker, other = await slow.join(), await alive.join()
    await slow.put([draft("a")], owner=worker)
    await end_lease(store, worker, -0.3)
    # As what others do to free its devices does.
    lock = f"UPDATE printos_worker SET lease_until = lease_until WHERE id = {worker}"
    async with transaction(store, lock) as blocker:
        renewal = asyncio.create_task(slow.renew(worker))
        await waits(renewal, blocker)
        await blocker.execute(LEASE_ENDS.format(worker))
    assert not await renewal
    assert await alive.renew(other)
    assert await owned(alive, other) == ["a"]


async def test_nothing_is_claimed_once_the_lease_was_found_to_have_ended(store: SqlStore) -> None:
    slow = await store.open()
    worker = await slow.join()
    await slow.put([draft("a")])
    await end_lease(store, worker, -0.3)
    # As others do for a moment when they look whether the worker claims no more.
    async with transaction(store, f"SELECT pg_advisory_xact_lock({worker})") as blocker:
        put = asyncio.create_task(slow.put([draft("b")], owner=worker))
        await waits(put, blocker)
        claim = asyncio.create_task(slow.claim(worker, 10))
        await waits(claim, blocker, waiters=2)
        await blocker.execute(LEASE_ENDS.format(worker))
    assert [kept.claimed for kept in await put] == [False]
    assert await claim == []

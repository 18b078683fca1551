"""Sessions of a PostgreSQL server that are of no use any more: read-only, silent, without their statements."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url

from printos_async import OutboxError, SqlOutbox
from printos_async.outbox import Finish
from printos_async.outbox.postgresql.engine import PostgresqlServer
from tests.delivery.outbox.proxy import proxied

from .stores import ACCOUNT, draft, sql_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.postgres import PostgresServer

# Sessions are given up after a second.
LEASE_S = 4.0
# That is what is promised. It takes a fraction of it, on a machine that has nothing else to do.
PUT_ENDS_S = 15.0
NAMES = [f"dev-{index}" for index in range(10)]


@asynccontextmanager
async def opened(url: str, lease_s: float = LEASE_S) -> AsyncIterator[SqlOutbox]:
    """Return an outbox with all its connections open."""
    outbox = SqlOutbox(url, lease_s=lease_s)
    await outbox.open(ACCOUNT)
    try:
        await asyncio.gather(*(outbox.stats() for _ in range(5)))
        assert len(drivers(outbox)) == 3
        yield outbox
    finally:
        await outbox.aclose()


def drivers(outbox: SqlOutbox) -> list[object]:
    """Return asyncpg's connections in the pool."""
    assert outbox._session is not None
    assert isinstance(outbox._session.database.connector, PostgresqlServer)
    return [*outbox._session.database.connector._idle]


async def make_read_only(server: PostgresServer, url: str) -> None:
    database = make_url(url).database
    await server.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    await server.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
    )


async def make_writable(server: PostgresServer, url: str) -> None:
    await server.execute(f"ALTER DATABASE {make_url(url).database} RESET default_transaction_read_only")


async def test_sessions_that_became_read_only_are_replaced_when_the_database_may_be_written_to_again(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async with opened(postgres_url) as outbox:
        await make_read_only(postgres_server, postgres_url)
        async with asyncio.timeout(PUT_ENDS_S):
            results = await asyncio.gather(
                *(outbox.put([draft("a")]) for _ in range(5)), return_exceptions=True
            )
        assert {str(result).partition(": cannot")[0] for result in results} == {
            "the outbox's database cannot be used: PostgreSQL error 25006"
        }
        await asyncio.gather(*(outbox.stats() for _ in range(5)))
        await make_writable(postgres_server, postgres_url)
        for name in NAMES:
            await outbox.put([draft(name)])
        assert (await outbox.stats()).waiting == len(NAMES)


async def test_a_put_that_meets_a_read_only_session_takes_another_one(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async with opened(postgres_url) as outbox:
        await make_read_only(postgres_server, postgres_url)
        await asyncio.gather(*(outbox.stats() for _ in range(5)))
        await make_writable(postgres_server, postgres_url)
        for name in NAMES:
            await outbox.put([draft(name)])


async def test_a_call_ends_although_all_connections_are_silent(postgres_url: str) -> None:
    async with proxied(postgres_url) as (proxy, url), opened(url) as outbox:
        owner = await outbox.join()
        for call in (
            lambda: outbox.put([draft("a")]),
            lambda: outbox.renew(owner),
            lambda: outbox.claim(owner, 10),
            lambda: outbox.finish(owner, [Finish("a", 1)]),
            outbox.stats,
        ):
            await asyncio.gather(*(outbox.stats() for _ in range(5)))
            proxy.forget()
            async with asyncio.timeout(PUT_ENDS_S):
                await call()


async def test_the_limit_is_paid_once_and_not_for_each_connection(postgres_url: str) -> None:
    loop = asyncio.get_running_loop()
    async with proxied(postgres_url) as (proxy, url), opened(url) as outbox:
        proxy.forget()
        begun_s = loop.time()
        await outbox.put([draft("a")])
        first_s = loop.time() - begun_s
        for name in NAMES:
            await outbox.put([draft(name)])
        assert loop.time() - begun_s < 2 * first_s


async def test_a_status_that_was_held_back_on_its_way_does_not_come_after_a_newer_one(
    postgres_url: str,
) -> None:
    async with proxied(postgres_url) as (proxy, url), opened(url) as outbox:
        for _ in range(6):  # each connection has the statement prepared: all of the next one is held back
            await outbox.put([draft("a", "DS_OLDEST")])
        proxy.forget()
        await outbox.put([draft("a", "DS_OLD")])
        [kept] = await outbox.put([draft("a", "DS_NEW")])
        assert proxy.held.is_set()
        proxy.flow()
        await proxy.forgotten_end()
        async with sql_store(postgres_url) as database:
            rows = await database.execute("SELECT seq, body FROM printos_outbox")
        assert rows == [(kept.seq, draft("a", "DS_NEW").body.decode())]


async def test_a_database_that_is_silent_is_an_error_in_time_and_used_again_afterwards(
    postgres_url: str,
) -> None:
    async with proxied(postgres_url) as (proxy, url), opened(url) as outbox:
        proxy.stall()
        async with asyncio.timeout(PUT_ENDS_S):
            first = asyncio.create_task(outbox.put([draft("a")]))
            await proxy.held.wait()
            # It comes while the first one waits, and has a limit of its own after that.
            second = asyncio.create_task(outbox.put([draft("b")]))
            results = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(result) for result in results] == [OutboxError] * 2
        assert "does not answer" in str(results[0])
        proxy.flow()
        await outbox.put([draft("a")])


async def test_a_statement_that_takes_its_time_is_not_taken_for_silence(postgres_url: str) -> None:
    async with opened(postgres_url) as outbox, sql_store(postgres_url) as database:
        await outbox.put([draft("a")])
        await database.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_sleep(1.5); RETURN NEW; END $$"
        )
        await database.execute(
            "CREATE TRIGGER slow BEFORE UPDATE ON printos_outbox FOR EACH ROW EXECUTE FUNCTION slow()"
        )
        # Longer than the limit for a connection that may be silent: it is tried again on one that is not.
        assert (await outbox.put([draft("a")]))[0].seq == 2


async def test_prepared_statements_that_are_gone_are_done_without(postgres_url: str) -> None:
    async with opened(postgres_url) as outbox:
        for driver in drivers(outbox):
            # As where a pool lends another session of the server to each transaction.
            await driver.execute("DEALLOCATE ALL")  # type: ignore[attr-defined]
        await asyncio.gather(*(outbox.stats() for _ in range(5)))
        for name in NAMES:
            assert (await outbox.put([draft(name)]))[0].seq == 1
        for driver in drivers(outbox):
            assert await driver.fetchval("SELECT count(*) FROM pg_prepared_statements") == 0  # type: ignore[attr-defined]


async def test_statements_are_not_prepared_where_the_url_says_so(postgres_url: str) -> None:
    async with opened(f"{postgres_url}?prepared_statement_cache_size=0") as outbox:
        await outbox.put([draft("a")])
        for driver in drivers(outbox):
            assert await driver.fetchval("SELECT count(*) FROM pg_prepared_statements") == 0  # type: ignore[attr-defined]


async def test_two_sessions_never_have_statements_of_one_name(postgres_url: str) -> None:
    async with opened(postgres_url) as one, opened(postgres_url) as other:
        names = [
            record["name"]
            for driver in (*drivers(one), *drivers(other))
            for record in await driver.fetch("SELECT name FROM pg_prepared_statements")  # type: ignore[attr-defined]
        ]
    assert len(names) > 6
    assert len(set(names)) == len(names)


async def test_a_pool_that_refuses_a_setting_gets_none(postgres_url: str) -> None:
    async with proxied(postgres_url) as (proxy, url):
        proxy.refuse(b"lock_timeout")
        async with opened(url) as outbox:
            await outbox.put([draft("a")])
            assert await drivers(outbox)[0].fetchval("SHOW lock_timeout") == "0"  # type: ignore[attr-defined]
    async with opened(postgres_url) as outbox:
        assert await drivers(outbox)[0].fetchval("SHOW lock_timeout") == "10s"  # type: ignore[attr-defined]


async def test_a_url_of_several_servers_leads_to_the_one_that_may_be_written_to(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    parsed = make_url(postgres_url)
    hosts = f"host=127.0.0.1:1&host=127.0.0.1:{parsed.port}"
    several = parsed.set(host=None, port=None).render_as_string(hide_password=False) + f"?{hosts}"
    async with opened(several) as outbox:
        await make_read_only(postgres_server, postgres_url)
        with pytest.raises(OutboxError):
            await outbox.put([draft("a")])
        await make_writable(postgres_server, postgres_url)
        await outbox.put([draft("a")])

"""Outboxes in a database: several on the same one, lost connections, damage, versions."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from printos_async import ConfigurationError, InvalidDeviceIdError, OutboxError, SqlOutbox
from printos_async.outbox import Finish
from printos_async.outbox.sql.tables import MIGRATIONS, prepare

from .stores import ACCOUNT, LEASE_S, draft, sql_store

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tests.postgres import PostgresServer

    from .stores import SqlStore

PASSWORD = "p4ss-word-of-nobody"
VERSION = len(MIGRATIONS) + 1


@pytest.mark.parametrize(
    "url",
    [
        "",
        "spool.db",
        "sqlite:///spool.db",
        "postgresql://host/db",
        "mysql+aiomysql://u:%s@host/db",
        "sqlite+aiosqlite://",
        "sqlite+aiosqlite://var/spool.db",
        "sqlite+aiosqlite://user@/spool.db",
    ],
)
def test_any_other_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SqlOutbox(url.replace("%s", PASSWORD))
    assert PASSWORD not in str(caught.value)
    assert "sqlite+aiosqlite:///" in str(caught.value) or "MemoryOutbox" in str(caught.value)


@pytest.mark.parametrize("parameter", ["timeout=abc", "foo=bar", "mode=ro"])
def test_a_file_has_no_parameters(parameter: str) -> None:
    with pytest.raises(ConfigurationError, match=parameter.partition("=")[0]):
        SqlOutbox(f"sqlite+aiosqlite:///spool.db?{parameter}")


@pytest.mark.parametrize("name", ["a\0b", "\udcff"], ids=ascii)
@pytest.mark.parametrize(
    "url",
    [
        "sqlite+aiosqlite:////folder-{}/spool.db",
        "postgresql+asyncpg://user:password@localhost/{}",
        "postgresql+asyncpg://user{}:password@localhost/database",
        "postgresql+asyncpg://user:password@localhost/database?passfile={}",
        "postgresql+asyncpg://user:password@one,two/database?sslrootcert={}",
    ],
)
def test_a_url_holds_text(url: str, name: str) -> None:
    with pytest.raises(ConfigurationError, match="NUL"):
        SqlOutbox(url.format(name))


@pytest.mark.parametrize("device_id", ["a\0b", "\ud800"], ids=ascii)
async def test_an_identifier_that_is_no_text_is_refused(database: SqlStore, device_id: str) -> None:
    outbox = await database.open()
    with pytest.raises(InvalidDeviceIdError):
        await outbox.put([draft("a"), draft(device_id)])
    assert (await outbox.stats()).devices == 0


@pytest.mark.parametrize("lease_s", [0, -1.0, float("nan"), "30"])
def test_a_lease_has_a_length(lease_s: float) -> None:
    with pytest.raises(ConfigurationError, match="lease_s"):
        SqlOutbox("sqlite+aiosqlite:///spool.db", lease_s=lease_s)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)  # as Python marks a module that cannot be imported
    with pytest.raises(ConfigurationError, match=r"pip install 'printos-async\[sql\]'"):
        SqlOutbox("sqlite+aiosqlite:///spool.db")
    with pytest.raises(ConfigurationError, match=r"pip install 'printos-async\[postgres\]'"):
        SqlOutbox(f"postgresql+asyncpg://user:{PASSWORD}@host/db")


def test_sqlalchemy_is_not_imported_before_an_outbox_is_made() -> None:
    code = "import sys; from printos_async import SqlOutbox; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_a_password_is_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    outbox = SqlOutbox(f"postgresql+asyncpg://user:{PASSWORD}@127.0.0.1:1/db")
    caplog.set_level("DEBUG")
    with pytest.raises(OutboxError) as caught:
        await outbox.open(ACCOUNT)
    assert caught.value.__cause__ is None
    assert PASSWORD not in repr(outbox) + str(caught.value) + caplog.text


async def test_two_outboxes_share_devices_without_sending_one_twice(database: SqlStore) -> None:
    first, second = await database.open(), await database.open()
    await first.put([draft(f"dev-{index}") for index in range(200)])
    owners = await first.join(), await second.join()

    async def take(outbox: SqlOutbox, owner: int) -> list[str]:
        taken: list[str] = []
        while claims := await outbox.claim(owner, 7):
            taken += [claim.device_id for claim in claims]
        return taken

    ours, theirs = await asyncio.gather(take(first, owners[0]), take(second, owners[1]))
    while len(ours) + len(theirs) < 200:  # a row that the other had locked was skipped
        ours += await take(first, owners[0])
    assert len({*ours, *theirs}) == len(ours) + len(theirs) == 200


async def test_two_outboxes_number_the_statuses_of_a_device_together(database: SqlStore) -> None:
    first, second = await database.open(), await database.open()
    kept = await asyncio.gather(
        *(outbox.put([draft("a"), draft("b")]) for _ in range(50) for outbox in (first, second))
    )
    for device in (0, 1):
        assert sorted(pair[device].seq for pair in kept) == list(range(1, 101))


async def test_batches_in_opposite_orders_do_not_lock_each_other_out(database: SqlStore) -> None:
    first, second = await database.open(), await database.open()
    names = [f"dev-{index}" for index in range(50)]
    owner = await first.join()
    await first.put([draft(name) for name in names], owner=owner)
    await asyncio.gather(
        *(first.put([draft(name) for name in names]) for _ in range(20)),
        *(second.put([draft(name) for name in reversed(names)]) for _ in range(20)),
        *(first.finish(owner, [Finish(name, 1) for name in reversed(names)]) for _ in range(10)),
    )
    assert {one.seq for one in await first.progress(names)} == {41}


async def test_several_may_make_the_tables_at_once(database: SqlStore) -> None:
    outboxes = await asyncio.gather(*(database.open() for _ in range(5)))
    assert len({await outbox.join() for outbox in outboxes}) == 5
    assert await database.execute("SELECT version FROM printos_meta") == [(VERSION,)]


async def test_a_take_over_reaches_the_workers_of_other_outboxes(database: SqlStore) -> None:
    first, second = await database.open(), await database.open()
    dead = await first.join()
    await first.put([draft("a")], owner=dead)
    await database.pass_time(LEASE_S + 10)
    alive = await second.join()
    assert await second.renew(alive)
    assert await database.execute("SELECT count(*) FROM printos_worker") == [(2,)]
    assert [claim.device_id for claim in await second.claim(alive, 10)] == ["a"]
    await database.pass_time(LEASE_S - 10)
    assert await second.renew(alive)
    await database.pass_time(LEASE_S - 10)
    assert await second.renew(alive)
    assert await database.execute("SELECT count(*) FROM printos_worker") == [(1,)]


async def test_a_device_of_a_worker_that_was_deleted_is_free_when_another_one_ends(
    database: SqlStore,
) -> None:
    first, second = await database.open(), await database.open()
    deleted, other = await first.join(), await second.join()
    await first.put([draft("a")], owner=deleted)
    await second.put([draft("b")], owner=other)
    await database.execute("DELETE FROM printos_worker WHERE id = :id", id=deleted)
    third = await database.open()
    await third.leave(await third.join())
    [claim] = await second.claim(other, 10)
    assert claim.device_id == "a"
    assert claim.uncertain_age_s is not None
    assert claim.uncertain_age_s < LEASE_S


async def test_damaged_bytes_become_a_dead_letter_and_are_never_sent(database: SqlStore) -> None:
    outbox = await database.open()
    await outbox.put([draft("a"), draft("b")])
    await database.execute("UPDATE printos_outbox SET body = replace(body, 'ON', 'NO') WHERE device_id = 'a'")
    owner = await outbox.join()
    assert [claim.device_id for claim in await outbox.claim(owner, 10)] == ["b"]
    [letter] = await outbox.failed()
    assert (letter.device_id, letter.seq) == ("a", 1)
    assert letter.error.startswith("damaged")
    await outbox.put([draft("a")])
    assert [claim.seq for claim in await outbox.claim(owner, 10)] == [2]


async def test_a_newer_version_of_the_tables_is_refused(database: SqlStore) -> None:
    await (await database.open()).aclose()
    await database.execute("UPDATE printos_meta SET version = 9")
    with pytest.raises(OutboxError, match="upgrade printos-async"):
        await database.open()


async def test_an_older_version_of_the_tables_is_migrated_once_and_keeps_the_rows(database: SqlStore) -> None:
    outbox = await database.open()
    await outbox.put([draft("a")])

    def add_column(connection: Connection) -> None:
        connection.execute(text("ALTER TABLE printos_outbox ADD COLUMN colour TEXT"))

    def fill_column(connection: Connection) -> None:
        connection.execute(text("UPDATE printos_outbox SET colour = 'red'"))

    steps = (*MIGRATIONS, add_column, fill_column)
    for _ in range(2):
        await _with_sync_connection(database, lambda connection: prepare(connection, steps))
    assert await database.execute("SELECT device_id, colour FROM printos_outbox") == [("a", "red")]
    assert await database.execute("SELECT version FROM printos_meta") == [(VERSION + 2,)]


async def test_a_failing_migration_changes_nothing(database: SqlStore) -> None:
    await database.open()

    def add_column(connection: Connection) -> None:
        connection.execute(text("ALTER TABLE printos_outbox ADD COLUMN colour TEXT"))

    def fail(_: Connection) -> None:
        raise ZeroDivisionError

    steps = (*MIGRATIONS, add_column, fail)
    with pytest.raises(ZeroDivisionError):
        await _with_sync_connection(database, lambda connection: prepare(connection, steps))
    assert await database.execute("SELECT version FROM printos_meta") == [(VERSION,)]
    with pytest.raises(DBAPIError):
        await database.execute("SELECT colour FROM printos_outbox")


async def _with_sync_connection(database: SqlStore, use: object) -> None:
    engine = create_async_engine(database.url, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            await connection.run_sync(use)  # type: ignore[arg-type]
    finally:
        await engine.dispose()


async def test_a_cancelled_claim_is_found_again(database: SqlStore) -> None:
    outbox = await database.open()
    await outbox.put([draft("a"), draft("b")])
    owner = await outbox.join()
    claiming = asyncio.create_task(outbox.claim(owner, 10))
    await asyncio.sleep(0)
    claiming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claiming
    assert outbox._session is not None
    await outbox._session.background.settle()
    found = await outbox.newer(owner, 10)
    assert sorted(claim.device_id for claim in found) == ["a", "b"]


async def test_closing_waits_for_what_is_under_way(database: SqlStore) -> None:
    outbox = await database.open()
    puts = [asyncio.create_task(outbox.put([draft(f"dev-{index}")])) for index in range(100)]
    await asyncio.sleep(0)
    await outbox.aclose()
    assert [(await put)[0].seq for put in puts] == [1] * 100


TERMINATE = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'printos-async'"
)


async def test_pages_of_postgresql_have_space_for_new_versions_of_their_rows(postgres_url: str) -> None:
    async with sql_store(postgres_url) as database:
        await database.open()
        found = await database.execute(
            "SELECT relname, reloptions FROM pg_class WHERE relname IN ('printos_outbox', 'printos_delivery')"
        )
        assert sorted(found) == [
            ("printos_delivery", ["fillfactor=50"]),
            ("printos_outbox", ["fillfactor=50"]),
        ]


async def test_lost_connections_are_made_again(postgres_url: str) -> None:
    async with sql_store(postgres_url) as database:
        outbox = await database.open()
        owner = await outbox.join()
        await outbox.put([draft("a")], owner=owner)
        await database.execute(TERMINATE)
        assert [kept.claimed for kept in await outbox.put([draft("a")], owner=owner)] == [True]
        await database.execute(TERMINATE)
        assert await outbox.finish(owner, [Finish("a", 2)]) == []
        await database.execute(TERMINATE)
        assert await outbox.renew(owner)
        assert await outbox.progress(["a"]) == []


async def test_a_server_that_is_gone_is_an_error_and_used_again_when_it_is_back(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async with sql_store(postgres_url) as database:
        outbox = await database.open()
        postgres_server.kill()
        try:
            calls = [outbox.put([draft("a")]), outbox.put([draft("b")]), outbox.join(), outbox.stats()]
            errors = await asyncio.gather(*calls, return_exceptions=True)
        finally:
            postgres_server.start()
        assert [type(error) for error in errors] == [OutboxError] * 4
        assert (await outbox.put([draft("a")]))[0].seq == 1


async def test_purging_goes_on_until_all_is_gone(database: SqlStore) -> None:
    outbox = await database.open()
    owner = await outbox.join()
    names = [f"dev-{index}" for index in range(5_050)]  # more than are deleted at once
    await outbox.put([draft(name) for name in names], owner=owner)
    await outbox.finish(owner, [Finish(name, 1, hold_s=60.0) for name in names[:5_030]])
    assert await outbox.purge() == 5_030
    assert (await outbox.stats()).devices == 20


async def test_no_age_is_negative_after_the_clock_was_set_back(database: SqlStore) -> None:
    outbox = await database.open()
    await outbox.put([draft("a")])
    await database.pass_time(-3600.0)
    assert (await outbox.stats()).oldest_waiting_s == 0.0

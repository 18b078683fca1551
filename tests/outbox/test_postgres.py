"""The PostgreSQL server of the tests is a real one: durable, shut to strangers, and gone without a trace."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.postgres import PostgresServer
from tests.postgres_cluster import UnavailableError
from tests.processes import children


@pytest.fixture
def own_server() -> PostgresServer:
    try:
        return PostgresServer()
    except UnavailableError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def plain(url: str) -> str:
    return url.replace("+asyncpg", "")


async def test_each_test_has_a_database_of_its_own(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async with postgres_server.database() as other:
        assert urlsplit(other).path != urlsplit(postgres_url).path
        for url in (other, postgres_url):
            connection = await asyncpg.connect(plain(url))
            await connection.execute("CREATE TABLE same (n int)")
            await connection.close()


async def test_a_database_is_dropped_although_someone_is_connected(postgres_server: PostgresServer) -> None:
    async with postgres_server.database() as url:
        connection = await asyncpg.connect(plain(url))
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(plain(url))
    connection.terminate()


async def test_the_server_writes_through_and_wants_the_password(postgres_server: PostgresServer) -> None:
    url = postgres_server.url(scheme="postgresql")
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SHOW fsync") == "on"
    assert await connection.fetchval("SHOW synchronous_commit") == "on"
    await connection.close()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(url.replace(postgres_server.password, "wrong"))


async def test_what_was_committed_outlives_a_kill(postgres_server: PostgresServer, postgres_url: str) -> None:
    port = postgres_server.port
    connection = await asyncpg.connect(plain(postgres_url))
    await connection.execute("CREATE TABLE kept (n int)")
    for number in range(10):
        await connection.execute("INSERT INTO kept VALUES ($1)", number)
        open_transaction = connection.transaction()
        await open_transaction.start()
        await connection.execute("INSERT INTO kept VALUES (100)")
        postgres_server.kill()
        assert not postgres_server.is_running
        connection.terminate()
        postgres_server.start()
        assert postgres_server.port == port
        connection = await asyncpg.connect(plain(postgres_url))
        kept = await connection.fetch("SELECT n FROM kept ORDER BY n")
        assert [row["n"] for row in kept] == list(range(number + 1))
    await connection.close()


@pytest.mark.parametrize("ending", ["closed", "killed before", "test failed"])
def test_nothing_is_left_of_a_server(own_server: PostgresServer, ending: str) -> None:
    folder = own_server._cluster.folder
    expected = pytest.raises(ZeroDivisionError) if ending == "test failed" else contextlib.nullcontext()
    with expected:  # noqa: SIM117
        with own_server:
            assert own_server._process is not None
            pids = [own_server._process.pid, *children(own_server._process.pid)]
            assert len(pids) > 3
            if ending == "killed before":
                own_server.kill()
            if ending == "test failed":
                raise ZeroDivisionError
    assert not folder.exists()
    for pid in pids:
        # One that has ended and was not collected yet is a zombie without a command line.
        command = Path(f"/proc/{pid}/cmdline")
        assert not command.exists() or str(folder).encode() not in command.read_bytes()

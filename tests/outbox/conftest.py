from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .stores import AdministeredOutbox, MemoryStore, SqlStore, Store, sql_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """The file of a SQLite outbox, which does not exist yet."""
    return tmp_path / "spool.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request.param, request, tmp_path)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "" if request.param == "memory" else url_of(request.param, request, tmp_path)


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    if not store_url:
        yield MemoryStore()
        return
    async with sql_store(store_url) as opened:
        yield opened


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[SqlStore]:
    """A store that several outboxes use at once."""
    async with sql_store(database_url) as opened:
        yield opened


@pytest.fixture
async def outbox(store: Store) -> AdministeredOutbox:
    return await store.open()


def url_of(kind: str, request: pytest.FixtureRequest, folder: Path) -> str:
    if kind == "sqlite":
        return f"sqlite+aiosqlite:///{folder / 'spool.db'}"
    # Not before it is needed: it starts a server.
    url: str = request.getfixturevalue("postgres_url")
    return url

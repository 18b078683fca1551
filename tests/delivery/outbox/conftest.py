"""Pushers on one outbox that several processes may use, and what they are asked about it."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from printos_async import SqlOutbox
from tests.outbox.conftest import url_of
from tests.outbox.stores import sql_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from printos_async import PrintOSClient, StatusPusher
    from printos_async.outbox import OutboxStats


class Workplace:
    """One database, on which a client's pushers stand."""

    def __init__(self, client: PrintOSClient, url: str) -> None:
        self.client = client
        self.url = url

    def outbox(self, **settings: Any) -> SqlOutbox:
        return SqlOutbox(self.url, **settings)

    def pusher(self, *, lease_s: float = 30.0, **settings: Any) -> StatusPusher:
        """Return a pusher with an outbox object of its own, as another process has."""
        return self.client.status_pusher(outbox=self.outbox(lease_s=lease_s), **settings)

    @asynccontextmanager
    async def opened(self, **settings: Any) -> AsyncIterator[SqlOutbox]:
        outbox = self.outbox(**settings)
        await outbox.open(self.client.account)
        try:
            yield outbox
        finally:
            await outbox.aclose()

    async def stats(self) -> OutboxStats:
        async with self.opened() as outbox:
            return await outbox.stats()

    async def execute(self, statement: str) -> None:
        async with sql_store(self.url) as store:
            await store.execute(statement)


@pytest.fixture(params=["sqlite", "postgresql"])
def outbox_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request.param, request, tmp_path)


@pytest.fixture
async def workplace(client: PrintOSClient, outbox_url: str) -> Workplace:
    return Workplace(client, outbox_url)


@pytest.fixture
async def postgres_workplace(client: PrintOSClient, postgres_url: str) -> Workplace:
    return Workplace(client, postgres_url)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened

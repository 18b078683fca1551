"""What most tests start from: a sandbox on a real socket, and a client of it that tries again quickly.

And for those of the outbox a PostgreSQL server, started when the first test asks for it.
"""

from __future__ import annotations

import gc
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from printos_async import DeviceStatusUpdate, DeviceStatusUpdateMetrics, HmacAuth, PrintOSClient, RetryPolicy
from printos_async.sandbox import Sandbox

from .postgres import PostgresServer
from .postgres_cluster import UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

KEY, SECRET = "testkey123", "testsecret456"
LONGEST_BYTES_IN_IDENTIFIER = 60
QUICK_RETRY = RetryPolicy(base_delay_s=0.001, max_delay_s=2.0)


def status(pages: int = 0, word: Any = "DS_PRINTING") -> DeviceStatusUpdate:
    return DeviceStatusUpdate(status=word, metrics=DeviceStatusUpdateMetrics(pages_total=pages))


def status_with(text: str) -> DeviceStatusUpdate:
    """A status with a text of the test's own, which no list of words refuses."""
    made = status()
    made["remark"] = text
    return made


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Return the argument's name for bytes that nobody reads; compressed ones differ between versions of zlib."""
    if isinstance(val, bytes) and (not val.isascii() or len(val) > LONGEST_BYTES_IN_IDENTIFIER):
        return argname
    return None


def pytest_collection_finish() -> None:
    """Leave the thousands of collected tests out of every garbage collection to come."""
    gc.collect()
    gc.freeze()


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(hmac_keys={KEY: SECRET}) as running:
        for index in range(10):
            running.add_device(f"dev-{index}")
        yield running


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[PrintOSClient]:
    async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), retry=QUICK_RETRY) as running:
        yield running


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as holder:  # bound, not listening: nobody else can take it
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the whole run; a test that kills it may leave it so."""
    try:
        server = PostgresServer()
    except UnavailableError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture
async def postgres_url(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """``postgresql+asyncpg://...`` of an empty database of this test's own."""
    async with postgres_server.database() as url:
        yield url

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from printos_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as sandbox:
        sandbox.add_device("dev-1")
        sandbox.add_device("dev-2")
        yield sandbox


def connected(sandbox: Sandbox) -> httpx.AsyncClient:
    # The sandbox speaks plain HTTP, and loading certificates would take most of the time.
    return httpx.AsyncClient(base_url=sandbox.url, verify=False)


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    async with connected(sandbox) as client:
        yield client

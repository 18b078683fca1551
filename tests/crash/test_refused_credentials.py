"""A large backlog of two workers whose credentials are refused for half a minute, and accepted then."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from printos_async import DeviceCredentials, HmacAuth, PrintOSClient, SqlOutbox
from printos_async.sandbox import Sandbox
from tests.conftest import status
from tests.outbox.conftest import url_of

from .children import long_only

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from printos_async import StatusPusher

pytestmark = long_only

NAMES = [f"dev-{device}" for device in range(10_000)]
REFUSED_S = 30.0
IN_FLIGHT = 64  # of each worker, when it sees the first refusal
PROBES = 6  # of each account and worker in that time: after 1, 3, 7, 15 and 31 s, and one that is on its way
OLD, NEW = "0ld-s3cret", "n3w-s3cret"


class Site:
    """Credentials whose secrets are all rotated at once: one key for all devices, or each device's own."""

    def __init__(self, *, is_shared: bool) -> None:
        self.secret = OLD
        self.keys = ["site"] if is_shared else NAMES
        self.is_shared = is_shared

    def auth(self) -> httpx.Auth:
        keys = {key: HmacAuth(key, lambda: self.secret) for key in self.keys}
        return keys["site"] if self.is_shared else DeviceCredentials(keys)


@pytest.fixture(params=["sqlite", "postgresql"])
def outbox_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request.param, request, tmp_path)


@pytest.mark.parametrize("is_shared", [True, False], ids=["one key", "own keys"])
async def test_a_large_backlog_waits_for_the_credentials_and_is_sent_once(
    outbox_url: str, *, is_shared: bool
) -> None:
    site = Site(is_shared=is_shared)
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(
            Sandbox(hmac_keys=dict.fromkeys(site.keys, NEW), record_limit=1_000_000)
        )
        for name in NAMES:
            sandbox.add_device(name)
        clients = [PrintOSClient(sandbox.url, auth=site.auth()) for _ in range(2)]
        for client in clients:
            await stack.enter_async_context(client)
        outbox = SqlOutbox(outbox_url)
        spooler = await stack.enter_async_context(clients[0].spooler(outbox))
        await asyncio.gather(*(spooler.put(name, status(1)) for name in NAMES))
        started_s = time.monotonic()
        workers: list[StatusPusher] = []
        for client in clients:
            pusher = client.status_pusher(outbox=SqlOutbox(outbox_url), drain_timeout_s=0.0)
            workers.append(await stack.enter_async_context(pusher))
        await asyncio.gather(*(spooler.put(name, status(2)) for name in NAMES))
        await asyncio.sleep(max(0.0, started_s + REFUSED_S - time.monotonic()))
        refused = sandbox.request_count
        accounts = len(workers) * len(site.keys)
        # The first refusals of one account are those in flight; of many, each has one.
        at_once = len(workers) * IN_FLIGHT if is_shared else accounts
        assert refused <= at_once + PROBES * accounts
        assert sandbox.applied_count == 0
        assert all(worker.stats().held_accounts for worker in workers)
        site.secret = NEW
        await sandbox.wait_for(lambda: sandbox.applied_count >= len(NAMES), timeout_s=120.0)
        async with asyncio.timeout(30.0):
            while (await outbox.stats()).waiting:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert (await outbox.stats()).failed == 0
        assert Counter(write.device_id for write in sandbox.applied) == dict.fromkeys(NAMES, 1)
        assert {
            device.status["metrics"]["pagesTotal"] for device in sandbox.devices.values() if device.status
        } == {2}

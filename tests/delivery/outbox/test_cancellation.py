"""Cancelling at every await leaves no task, thread or descriptor, and loses no status."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from printos_async import HmacAuth, PrintOSClient, PusherClosedError
from tests.conftest import KEY, QUICK_RETRY, SECRET, status
from tests.crash.children import long_only
from tests.delivery.interruption import interrupt
from tests.delivery.test_cancellation import open_descriptors

from .conftest import Workplace
from .seen import adds_up, pages

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from printos_async import StatusPusher
    from printos_async.sandbox import Sandbox

MAX_STEPS = 40

OPERATIONS: dict[str, Callable[[StatusPusher], Coroutine[Any, Any, Any]]] = {
    "put": lambda pusher: pusher.put("dev-1", status(1)),
    "push": lambda pusher: pusher.push("dev-1", status(1)),
    "drain": lambda pusher: pusher.drain(),
    "drain, too short": lambda pusher: pusher.drain(timeout_s=0.05),
    "aclose": lambda pusher: pusher.aclose(),
}

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts descriptors in /proc")


async def interrupted(place: Workplace, operation: str, step: int, *, opened: bool) -> bool:
    pusher = place.pusher(ambiguity_s=0.05)
    if opened:
        await pusher.put("dev-0", status(1))
    before = pusher.stats().accepted
    reached = await interrupt(OPERATIONS[operation](pusher), {step})
    stats = pusher.stats()
    assert adds_up(stats)
    assert before <= stats.accepted <= before + 1
    if operation in {"put", "push"}:
        await pusher.put("dev-2", status(2))  # others are served as if nothing had been
        stats = await pusher.drain(timeout_s=20.0)
        assert adds_up(stats)
        assert stats.pending == 0
    elif step:
        with pytest.raises(PusherClosedError):  # closed even where it was cancelled
            await pusher.put("dev-1", status(1))
    with suppress(PusherClosedError):
        await pusher.aclose()
    return reached


@pytest.mark.parametrize("opened", [False, pytest.param(True, marks=long_only)])
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_cancellation_at_any_await_leaves_nothing_behind_and_loses_nothing(
    sandbox: Sandbox, outbox_url: str, operation: str, *, opened: bool
) -> None:
    async with PrintOSClient(
        sandbox.url, auth=HmacAuth(KEY, SECRET), retry=QUICK_RETRY, timeout_s=0.5
    ) as client:
        place = Workplace(client, outbox_url)
        assert await client.list_devices()  # the connection stays
        await place.stats()
        await sandbox.wait_for(lambda: sandbox.in_flight == 0)
        tasks, threads = len(asyncio.all_tasks()), threading.active_count()
        descriptors = open_descriptors() - sandbox.open_connections * 2
        step, reached = 0, True
        while reached:
            async with asyncio.timeout(10.0):
                reached = await interrupted(place, operation, step, opened=opened) or step == 0
            step += 1
            assert step <= MAX_STEPS
        # Whatever was left to others is sent by the next one.
        async with asyncio.timeout(20.0), place.pusher():
            while (await place.stats()).waiting:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        if opened:
            assert pages(sandbox, "dev-0") == 1
        await sandbox.wait_for(lambda: sandbox.in_flight == 0)
        async with asyncio.timeout(10.0):  # asyncpg's connections and the sandbox's tasks end a moment later
            while (  # noqa: ASYNC110
                len(asyncio.all_tasks()) > tasks
                or threading.active_count() > threads
                or open_descriptors() - sandbox.open_connections * 2 > descriptors
            ):
                await asyncio.sleep(0.01)

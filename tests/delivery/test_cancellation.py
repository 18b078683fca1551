"""Cancelling anything at any moment leaves no task, descriptor or permit, and loses no count."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from printos_async import PrintOSClient, PusherClosedError, RetryPolicy, ServerError, TransportError
from printos_async.sandbox import Faults, Sandbox

from .clock import fake_loop, run
from .host import OK, SILENT, UNAVAILABLE, Host, Reply, Seen, client_of, status
from .interruption import interrupt

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from printos_async import StatusPusher

MAX_STEPS = 50
CANCELLATIONS = 10_000 if os.environ.get("PRINTOS_LONG_TESTS") else 1_000

OPERATIONS: dict[str, Callable[[PrintOSClient, StatusPusher], Coroutine[Any, Any, Any]]] = {
    "put": lambda _, pusher: pusher.put("dev-1", status(1)),
    "put, no room": lambda _, pusher: pusher.put("new", status(1)),
    "push": lambda _, pusher: pusher.push("dev-1", status(1)),
    "push, no room": lambda _, pusher: pusher.push("new", status(1)),
    "push, behind another": lambda _, pusher: pusher.push("dev-0", status(1)),
    "drain": lambda _, pusher: pusher.drain(),
    "drain, too short": lambda _, pusher: pusher.drain(timeout_s=0.5),
    "aclose": lambda _, pusher: pusher.aclose(),
    "push_statuses": lambda client, _: client.push_statuses({"dev-0": status(1), "dev-1": status(1)}),
}


def replies(seen: Seen) -> Reply:
    """Some fail at first, some are slow, and one is ambiguous."""
    return {
        "dev-0": Reply(after_s=1.0),
        "dev-1": UNAVAILABLE if seen.pages == 1 and seen.at_s < 1_000.5 else OK,
        "dev-2": Reply(status=504, apply_after_s=0.3) if seen.pages == 0 else OK,
    }.get(seen.device_id, OK)


async def interrupted(operation: str, at: set[int]) -> bool:
    host = Host(reply=replies, latency_s=0.1)
    async with client_of(host) as client:
        full = "no room" in operation
        async with client.status_pusher(max_pending_devices=2 if full else 100, ambiguity_s=1.0) as pusher:
            await pusher.put("dev-0", status(0))
            await pusher.put("dev-2", status(0))
            others = [
                asyncio.create_task(pusher.put("later", status(5))),
                asyncio.create_task(pusher.push("dev-2", status(5))),
            ]
            await fake_loop().settle()
            reached = await interrupt(OPERATIONS[operation](client, pusher), at)
            stats = pusher.stats()
            assert stats.pending == len(pusher._engine.unsettled())
            assert pusher._engine.senders.in_flight == stats.in_flight
            with suppress(PusherClosedError):
                await asyncio.gather(*others)
            with suppress(PusherClosedError):
                # Others are served as if nothing had been.
                assert (await pusher.push("dev-3", status(7))).outcome == "sent"
            stats = await pusher.drain(timeout_s=60.0)
            settled = stats.sent + stats.superseded + stats.failed
            unsettled = len(pusher._engine.unsettled())
            assert stats.accepted == settled + unsettled
            if operation != "aclose":
                assert (unsettled, stats.active_devices) == (0, 0)
                assert host.newest["dev-2"] == 5
                assert host.newest["later"] == 5
        assert client._channel.executor.limiter.in_flight == 0
        assert client._channel.executor.limiter._waiters == {}
        assert max(host.max_in_flight.values()) == 1 or operation == "push_statuses"
        assert asyncio.all_tasks() == {asyncio.current_task()}
    return reached


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_cancellation_at_any_await_leaves_nothing_behind(operation: str) -> None:
    async def program() -> int:
        step = 0
        while await interrupted(operation, {step}) or step == 0:
            step += 1
            assert step < MAX_STEPS
        return step

    # Only a put with room never waits: it cannot be cancelled after its first step.
    assert (run(program()) > 1) == (operation != "put")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_two_cancellations_at_any_two_awaits_leave_nothing_behind(operation: str) -> None:
    async def program() -> None:
        first = 0
        reached = True
        while reached or first <= 1:
            for second in range(first + 1, first + 4):
                reached = await interrupted(operation, {first, second})
                if not reached:
                    break
            reached = await interrupted(operation, {first})
            first += 1
            assert first < MAX_STEPS

    run(program())


def test_closing_twice_at_once_and_cancelling_one_of_them_ends_both() -> None:
    async def program() -> None:
        async with client_of(Host(reply=lambda _: SILENT)) as client:
            pusher = client.status_pusher()
            await pusher.put("dev-1", status(1))
            await fake_loop().settle()
            closing = [asyncio.create_task(pusher.aclose()) for _ in range(2)]
            await asyncio.sleep(0)
            closing[0].cancel()
            await asyncio.wait(closing)
            await fake_loop().settle()
            assert client._channel.executor.limiter.in_flight == 0
            assert pusher.stats().pending == 1

    run(program())


def test_a_push_that_is_cancelled_while_it_waits_is_never_sent() -> None:
    async def program() -> None:
        host = Host(latency_s=1.0)
        async with client_of(host) as client, client.status_pusher() as pusher:
            await pusher.put("dev-1", status(1))
            await fake_loop().settle()
            waiting = asyncio.create_task(pusher.push("dev-1", status(2)))
            await asyncio.sleep(0.5)
            waiting.cancel()
            stats = await pusher.drain()
        assert [seen.pages for seen in host.seen] == [1]
        assert (stats.accepted, stats.sent) == (1, 1)

    run(program())


def test_a_push_that_is_cancelled_in_flight_is_sent_all_the_same() -> None:
    async def program() -> None:
        host = Host(latency_s=1.0)
        async with client_of(host) as client, client.status_pusher() as pusher:
            flying = asyncio.create_task(pusher.push("dev-1", status(1)))
            await asyncio.sleep(0.5)
            flying.cancel()
            stats = await pusher.drain()
        assert (stats.accepted, stats.sent) == (1, 1)
        assert host.newest == {"dev-1": 1}

    run(program())


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts descriptors in /proc")
async def test_random_cancellations_leave_no_task_descriptor_or_permit() -> None:
    draw = random.Random(5)
    faults = Faults(seed=5, latency_s=(0.0, 0.002), server_error=0.05, reset=0.05)
    async with Sandbox(faults=faults, record=False) as sandbox:
        for device in range(20):
            sandbox.add_device(f"dev-{device}")
            sandbox.add_device(f"other-{device}")
        tasks, descriptors = len(asyncio.all_tasks()), open_descriptors()
        retry = RetryPolicy(base_delay_s=0.001, max_delay_s=0.05)
        async with PrintOSClient(sandbox.url, auth=None, retry=retry) as client:
            pusher = client.status_pusher(ambiguity_s=0.01, max_pending_devices=15)
            cancelled = 0
            while cancelled < CANCELLATIONS:
                running = [asyncio.create_task(something(client, pusher, draw)) for _ in range(50)]
                while running:
                    cancelled += await cancel_one(running, draw)
            for device in range(20):
                await pusher.put(f"dev-{device}", status(1_000_000 + device))
            stats = await pusher.drain(timeout_s=30.0)
            assert stats.accepted == stats.sent + stats.superseded + stats.failed
            assert (stats.pending, stats.active_devices) == (0, 0)
            await pusher.aclose()
            await sandbox.wait_for(lambda: sandbox.in_flight == 0)
            for device in range(20):
                assert (sandbox.devices[f"dev-{device}"].status or {})["metrics"]["pagesTotal"] >= 1_000_000
            assert client._channel.executor.limiter.in_flight == 0
            assert not client._channel.executor.circuit_watchers
            assert not client._channel.executor.accounts.watchers
        await sandbox.wait_for(lambda: sandbox.open_connections == 0)
        assert len(asyncio.all_tasks()) == tasks
        assert open_descriptors() == descriptors


async def something(client: PrintOSClient, pusher: StatusPusher, draw: random.Random) -> None:
    number, newest = draw.randrange(20), status(draw.randrange(1_000))
    # Nobody promises an order between two senders: a call that was cancelled after it was written still lands.
    device_id, other_id = f"dev-{number}", f"other-{number}"
    match draw.randrange(6):
        case 0:
            await pusher.put(device_id, newest)
        case 1 | 2:
            await pusher.push(device_id, newest)
        case 3:
            with suppress(ServerError, TransportError):
                await client.update_device_status(other_id, newest)
        case 4:
            await client.push_statuses({other_id: newest, "other-0": newest})
        case _:
            async with client.status_pusher(ambiguity_s=0.01) as own:
                await own.put(other_id, newest)
                await own.push(other_id, newest)


async def cancel_one(running: list[asyncio.Task[None]], draw: random.Random) -> bool:
    """Cancel one at random, at times twice, after a random number of the loop's rounds."""
    for _ in range(draw.randrange(20)):
        await asyncio.sleep(0)
    if draw.random() < 0.05:
        await asyncio.sleep(0.003)  # so that some answers come between
    task = running.pop(draw.randrange(len(running)))
    was_cancelled = task.cancel()
    if draw.random() < 0.2:
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()
    return was_cancelled

"""What late writes may do: the server's own record of what it applied is the judge."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from printos_async import PrintOSClient, RetryPolicy, TransportError
from printos_async.sandbox import Faults, Sandbox

from .clock import fake_loop, run
from .host import DOWN, OK, UNAVAILABLE, Host, Reply, Seen, client_of, pages_of, status, times_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from printos_async import DeviceStatusUpdate

DEVICES, UPDATES, PAUSE_S = 40, 25, 0.02
AMBIGUITY_S = 0.7
# PRINTOS_LONG_TESTS=1 runs every seed; without, a few are enough to notice that something broke.
SEEDS = range(20) if os.environ.get("PRINTOS_LONG_TESTS") else range(3)
SEEDS_AT_ONCE = 5
RETRY = RetryPolicy(base_delay_s=0.01, max_delay_s=2.0, max_attempts=10)

# What the host answers where the write may still come, and how it goes on.
LATE_504 = Reply(status=504, apply_after_s=1.0)
LATE_RESET = Reply(status=None, apply_after_s=1.0)


def faulty_sandbox(seed: int) -> Sandbox:
    sandbox = Sandbox(faults=Faults(seed=seed, late_write=0.1, server_error=0.1, late_write_by_s=(0.0, 0.6)))
    for device in range(DEVICES):
        sandbox.add_device(f"dev-{device}")
    return sandbox


def wrong_devices(sandbox: Sandbox) -> int:
    newest = [device.status and device.status["metrics"]["pagesTotal"] for device in sandbox.devices.values()]
    return sum(pages != UPDATES - 1 for pages in newest)


def stale_overwrites(sandbox: Sandbox) -> int:
    host = Host()
    for write in sandbox.applied:
        host.applied.append(Seen(write.at_s, write.device_id, write.status["metrics"]["pagesTotal"]))
    return host.stale_overwrites()


async def pushed(seed: int, consistency: str) -> Sandbox:
    async with (
        faulty_sandbox(seed) as sandbox,
        PrintOSClient(sandbox.url, auth=None, retry=RETRY) as client,
        client.status_pusher(consistency=consistency, ambiguity_s=AMBIGUITY_S) as pusher,  # type: ignore[arg-type]
    ):
        for number in range(UPDATES):
            for device in range(DEVICES):
                await pusher.put(f"dev-{device}", status(number))
            await asyncio.sleep(PAUSE_S)
        stats = await pusher.drain(timeout_s=60.0)
        assert stats.accepted == stats.sent + stats.superseded == DEVICES * UPDATES
        await sandbox.wait_for(lambda: sandbox.pending_late_writes == 0)
    assert set(sandbox.max_in_flight_by_device.values()) == {1}
    assert any(write.late for write in sandbox.applied)
    return sandbox


async def several(consistency: str) -> list[Sandbox]:
    sandboxes = []
    for first in range(0, len(SEEDS), SEEDS_AT_ONCE):
        seeds = SEEDS[first : first + SEEDS_AT_ONCE]
        sandboxes += await asyncio.gather(*(pushed(seed, consistency) for seed in seeds))
    return sandboxes


async def test_eventual_consistency_ends_with_every_device_right() -> None:
    sandboxes = await several("eventual")
    assert [wrong_devices(sandbox) for sandbox in sandboxes] == [0] * len(SEEDS)


async def test_strict_consistency_never_lets_an_older_status_overwrite_a_newer_one() -> None:
    sandboxes = await several("strict")
    assert [stale_overwrites(sandbox) for sandbox in sandboxes] == [0] * len(SEEDS)
    assert [wrong_devices(sandbox) for sandbox in sandboxes] == [0] * len(SEEDS)


async def test_plain_tasks_leave_devices_wrong_with_the_same_faults() -> None:
    async with (
        faulty_sandbox(0) as sandbox,
        PrintOSClient(sandbox.url, auth=None, retry=RETRY) as client,
        asyncio.TaskGroup() as tasks,
    ):
        for number in range(UPDATES):
            for device in range(DEVICES):
                tasks.create_task(client.update_device_status(f"dev-{device}", status(number)))
    assert stale_overwrites(sandbox) > 50
    assert wrong_devices(sandbox) > 10


# On the fake clock, case by case


def first_then(first: Reply, then: Reply = OK, *, device_id: str = "dev-1") -> Host:
    """Return a host that treats the first request of one device differently."""

    def reply(seen: Seen) -> Reply:
        return first if len(pages_of(host, device_id)) == 1 and seen.device_id == device_id else then

    host = Host(reply=reply)
    return host


@pytest.mark.parametrize("late", [LATE_504, LATE_RESET])
def test_eventual_sends_the_newest_at_once_and_again_after_the_ambiguity(late: Reply) -> None:
    async def program() -> None:
        host = first_then(late)
        async with client_of(host) as client, client.status_pusher(ambiguity_s=5.0) as pusher:
            await pusher.put("dev-1", status(1))
            await fake_loop().settle()
            await pusher.push("dev-1", status(2))
            stats = await pusher.drain()
        assert pages_of(host, "dev-1") == [1, 2, 2]
        first_s, second_s, third_s = times_of(host)
        assert second_s - first_s < 0.5
        assert third_s - first_s == pytest.approx(5.0)
        assert [write.pages for write in host.applied] == [2, 1, 2]
        assert (stats.sent, stats.superseded, stats.requests) == (1, 1, 3)

    run(program())


@pytest.mark.parametrize("late", [LATE_504, LATE_RESET])
def test_strict_holds_the_device_and_no_other(late: Reply) -> None:
    async def program() -> None:
        host = first_then(late)
        async with (
            client_of(host) as client,
            client.status_pusher(ambiguity_s=5.0, consistency="strict") as pusher,
        ):
            await pusher.put("dev-1", status(1))
            await fake_loop().settle()
            await pusher.put("dev-1", status(2))
            await pusher.put("dev-2", status(3))
            await pusher.drain()
        assert [write.pages for write in host.applied if write.device_id == "dev-1"] == [1, 2]
        first_s, second_s = times_of(host, "dev-1")
        assert second_s - first_s == pytest.approx(5.0)
        assert times_of(host, "dev-2")[0] - first_s < 0.1

    run(program())


def test_a_timeout_is_ambiguous_and_a_refusal_is_not() -> None:
    async def program(first: Reply) -> list[float]:
        host = first_then(first)
        async with (
            client_of(host, timeout_s=10.0) as client,
            client.status_pusher(ambiguity_s=5.0, consistency="strict") as pusher,
        ):
            await pusher.put("dev-1", status(1))
            await fake_loop().settle()
            await pusher.put("dev-1", status(2))
            await pusher.drain()
        return [at_s - times_of(host)[0] for at_s in times_of(host)]

    assert run(program(Reply(after_s=None, apply_after_s=3.0))) == pytest.approx([0.0, 15.0])
    assert run(program(UNAVAILABLE))[1] < 0.1


def test_the_same_status_again_needs_no_reassertion() -> None:
    async def program() -> None:
        host = first_then(LATE_504)
        async with client_of(host) as client, client.status_pusher(ambiguity_s=5.0) as pusher:
            await pusher.push("dev-1", status(1))
            await pusher.drain()
        assert pages_of(host, "dev-1") == [1, 1]

    run(program())


def test_a_newer_status_after_the_ambiguity_takes_the_place_of_the_reassertion() -> None:
    async def program() -> None:
        host = first_then(LATE_504)
        async with (
            client_of(host) as client,
            client.status_pusher(ambiguity_s=5.0, min_interval_s=10.0) as pusher,
        ):
            await pusher.put("dev-1", status(1))
            await fake_loop().settle()
            await pusher.push("dev-1", status(2))
            await pusher.push("dev-1", status(3))
            await pusher.drain()
        assert pages_of(host, "dev-1") == [1, 2, 3]

    run(program())


def test_a_reassertion_that_is_ambiguous_itself_is_made_again() -> None:
    async def program() -> None:
        replies = [LATE_504, OK, LATE_RESET, OK]
        host = Host(reply=lambda _: replies[min(host.count, 4) - 1])
        async with client_of(host) as client, client.status_pusher(ambiguity_s=5.0) as pusher:
            await pusher.put("dev-1", status(1))
            await fake_loop().settle()
            await pusher.push("dev-1", status(2))
            stats = await pusher.drain()
        assert pages_of(host, "dev-1") == [1, 2, 2, 2]
        assert (stats.sent, stats.superseded) == (1, 1)

    run(program())


def test_a_newer_status_needs_no_token_while_a_reassertion_waits_for_one() -> None:
    async def program() -> None:
        replies = [LATE_RESET, OK, UNAVAILABLE]
        host = Host(reply=lambda _: replies[host.count - 1] if host.count <= len(replies) else OK)
        retry = RetryPolicy(base_delay_s=0.1, max_delay_s=60.0, budget=1.0)
        async with (
            client_of(host, retry=retry) as client,
            client.status_pusher(ambiguity_s=1.0) as pusher,
        ):
            await pusher.put("dev-1", status(1))
            await fake_loop().settle()
            await pusher.push("dev-1", status(2))
            while client._channel.executor.budget.take(now_s=fake_loop().time()):
                pass
            await asyncio.sleep(2.0)
            assert pages_of(host, "dev-1") == [1, 2, 2]
            assert (await pusher.push("dev-1", status(3))).latency_s < 1.0

    run(program())


def test_pushing_all_reasserts_too() -> None:
    async def program() -> None:
        host = first_then(LATE_RESET)
        async with client_of(host) as client:
            report = await client.push_statuses([("dev-1", status(1)), ("dev-1", status(2))])
            assert (report.sent, report.superseded) == (1, 1)

            host.seen.clear()

            async def source() -> AsyncIterator[tuple[str, DeviceStatusUpdate]]:
                yield "dev-1", status(3)
                await fake_loop().settle()
                yield "dev-1", status(4)

            await client.push_statuses(source())
        assert host.newest["dev-1"] == 4
        assert pages_of(host, "dev-1") == [3, 4, 4]

    run(program())


def test_skipping_trusts_nothing_that_an_unfinished_write_may_have_changed() -> None:
    async def program() -> None:
        replies = [OK, LATE_504, OK, OK]
        host = Host(reply=lambda _: replies[min(host.count, 4) - 1])
        async with (
            client_of(host) as client,
            client.status_pusher(skip_unchanged=True, ambiguity_s=5.0) as pusher,
        ):
            await pusher.push("dev-1", status(1))
            await pusher.put("dev-1", status(2))
            await fake_loop().settle()
            # Equal to what was acknowledged last, but the one between may have been written, or will be.
            await pusher.push("dev-1", status(1))
            await pusher.drain()
        assert host.newest["dev-1"] == 1
        assert [write.pages for write in host.applied] == [1, 1, 2, 1]

    run(program())


@pytest.mark.parametrize("lost", [DOWN, Reply(status=500), Reply(status=503), Reply(status=400)])
def test_skipping_trusts_nothing_after_a_failed_attempt(lost: Reply) -> None:
    async def program() -> None:
        replies = [OK, lost, OK]
        host = Host(reply=lambda _: replies[min(host.count, 3) - 1])
        async with client_of(host) as client, client.status_pusher(skip_unchanged=True) as pusher:
            await pusher.push("dev-1", status(1))
            await pusher.put("dev-1", status(2))
            await fake_loop().settle()
            await pusher.push("dev-1", status(1))
            await pusher.drain()
        assert host.newest["dev-1"] == 1
        assert pages_of(host, "dev-1")[:3] == [1, 2, 1]

    run(program())


def test_withdrawing_a_status_does_not_lose_the_one_that_it_replaced() -> None:
    async def program() -> None:
        host = Host(latency_s=1.0)
        async with client_of(host) as client, client.status_pusher() as pusher:
            await pusher.put("dev-1", status(1))
            await asyncio.sleep(0.5)
            await pusher.put("dev-1", status(2))
            impatient = asyncio.create_task(pusher.push("dev-1", status(3)))
            await asyncio.sleep(0.1)
            impatient.cancel()  # status 2 was accepted, and has made way for this one
            stats = await pusher.drain()
        assert host.newest["dev-1"] == 3
        assert (stats.accepted, stats.sent, stats.superseded) == (3, 2, 1)

    run(program())


def test_a_lost_connection_is_told_as_the_cause() -> None:
    async def program() -> None:
        host = Host(reply=lambda seen: DOWN if seen.device_id == "dev-1" else OK)
        async with client_of(host) as client, client.status_pusher(deadline_s=3.0) as pusher:
            result = await pusher.push("dev-1", status(1))
        assert result.outcome == "failed"
        assert isinstance(result.error, TransportError)

    run(program())

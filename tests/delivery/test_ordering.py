"""Latest wins, in order, one request in flight per device; the sandbox's own record is the judge."""

from __future__ import annotations

import asyncio

import pytest

from printos_async import NotFoundError, PrintOSClient, PushResult, RetryPolicy, StatusSuperseded
from printos_async.sandbox import Faults, Sandbox

from .clock import fake_loop, run
from .host import OK, UNAVAILABLE, Host, Reply, client_of, pages_of, status

RETRY = RetryPolicy(base_delay_s=0.001, max_delay_s=0.5, max_attempts=20, budget=1_000)


def written(sandbox: Sandbox) -> dict[str, list[int]]:
    by_device: dict[str, list[int]] = {}
    for write in sandbox.applied:
        by_device.setdefault(write.device_id, []).append(write.status["metrics"]["pagesTotal"])
    return by_device


async def test_a_hundred_updates_while_the_server_blocks_cost_two_requests_a_device() -> None:
    async with Sandbox() as sandbox, PrintOSClient(sandbox.url, auth=None) as client:
        for device in range(10):
            sandbox.add_device(f"dev-{device}")
        await sandbox.block()
        async with client.status_pusher() as pusher:
            for number in range(100):
                for device in range(10):
                    await pusher.put(f"dev-{device}", status(number))
                if not number:
                    await sandbox.wait_for(lambda: sandbox.in_flight == 10)
            await sandbox.release()
            stats = await pusher.drain(timeout_s=30.0)
        assert written(sandbox) == {f"dev-{device}": [0, 99] for device in range(10)}
        assert sandbox.request_count == stats.requests == 20
        assert (stats.sent, stats.superseded) == (20, 980)
        assert set(sandbox.max_in_flight_by_device.values()) == {1}


def failing(seed: int) -> Faults:
    return Faults(seed=seed, server_error=0.1, reset=0.05, rate_limited=0.05, retry_after="0.01")


def failed_attempts(sandbox: Sandbox) -> int:
    return sum(number for (_, _, answer), number in sandbox.request_counts.items() if answer != 200)


@pytest.mark.parametrize("by", ["push_statuses", "status_pusher"])
@pytest.mark.parametrize("seed", [1, 2])
async def test_faults_cost_no_more_requests_than_they_must(by: str, seed: int) -> None:
    devices = 1_000
    async with (
        Sandbox(faults=failing(seed)) as sandbox,
        PrintOSClient(sandbox.url, auth=None, retry=RETRY) as client,
    ):
        for device in range(devices):
            sandbox.add_device(f"dev-{device}")
        statuses = {f"dev-{device}": status(device) for device in range(devices)}
        if by == "push_statuses":
            report = await client.push_statuses(statuses)
            sent = report.sent
        else:
            async with client.status_pusher() as pusher:
                for device_id, newest in statuses.items():
                    await pusher.put(device_id, newest)
                sent = (await pusher.drain(timeout_s=60.0)).sent
        assert sent == devices
        newest_pages = [(device.status or {})["metrics"]["pagesTotal"] for device in sandbox.devices.values()]
        assert newest_pages == list(range(devices))
        share = failed_attempts(sandbox) / sandbox.request_count
        assert 0.1 < share < 0.3
        assert sandbox.request_count / sent <= 1 / (1 - share) + 0.03


async def test_a_stream_of_updates_under_faults_arrives_in_order() -> None:
    async with (
        Sandbox(faults=failing(3)) as sandbox,
        PrintOSClient(sandbox.url, auth=None, retry=RETRY) as client,
    ):
        for device in range(20):
            sandbox.add_device(f"dev-{device}")
        async with client.status_pusher(ambiguity_s=0.1) as pusher:
            for number in range(50):
                for device in range(20):
                    await pusher.put(f"dev-{device}", status(number))
                await asyncio.sleep(0)
            stats = await pusher.drain(timeout_s=60.0)
        assert stats.sent + stats.superseded == 1_000
        for pages in written(sandbox).values():
            assert pages == sorted(pages)
            assert pages[-1] == 49
        assert set(sandbox.max_in_flight_by_device.values()) == {1}


def test_a_superseded_push_says_by_which_sequence_number() -> None:
    async def program() -> None:
        events: list[object] = []
        host = Host(latency_s=1.0)
        async with client_of(host, hooks=[events.append]) as client, client.status_pusher() as pusher:
            first, second, third = [
                asyncio.create_task(pusher.push("dev-1", status(number))) for number in (1, 2, 3)
            ]
            results = await asyncio.gather(first, second, third)
        assert [result.outcome for result in results] == ["superseded", "superseded", "sent"]
        assert [result.superseded_by for result in results] == [2, 3, None]
        assert [result.seq for result in results] == [1, 2, 3]
        told = [(event.seq, event.superseded_by) for event in events if isinstance(event, StatusSuperseded)]
        assert told == [(1, 2), (2, 3)]

    run(program())


def test_a_retry_sends_the_newest() -> None:
    async def program() -> None:
        host = Host(reply=lambda _: UNAVAILABLE if host.count == 1 else OK, latency_s=1.0)
        async with client_of(host) as client, client.status_pusher() as pusher:
            failing_push = asyncio.create_task(pusher.push("dev-1", status(1)))
            await asyncio.sleep(0.5)
            newer = await pusher.push("dev-1", status(2))
        assert failing_push.result() == PushResult(
            "dev-1", "superseded", 1, failing_push.result().latency_s, seq=1, superseded_by=2
        )
        assert (newer.outcome, newer.attempts) == ("sent", 1)
        assert pages_of(host, "dev-1") == [1, 2]

    run(program())


def test_a_refused_status_is_not_tried_again_and_leaves_the_next_one_alone() -> None:
    async def program() -> None:
        gone = Reply(status=404, apply_after_s=None)
        host = Host(reply=lambda _: gone if host.count == 1 else OK, latency_s=1.0)
        async with client_of(host) as client, client.status_pusher() as pusher:
            refused = asyncio.create_task(pusher.push("dev-1", status(1)))
            await asyncio.sleep(0.5)
            following = await pusher.push("dev-1", status(2))
        assert refused.result().outcome == "failed"
        assert isinstance(refused.result().error, NotFoundError)
        assert refused.result().status == status(1)
        assert following.outcome == "sent"
        assert pages_of(host, "dev-1") == [1, 2]

    run(program())


def test_a_status_that_fails_while_others_succeed_is_given_up_after_its_attempts() -> None:
    async def program() -> None:
        host = Host(reply=lambda seen: UNAVAILABLE if seen.device_id == "bad" else OK, latency_s=0.001)
        retry = RetryPolicy(base_delay_s=0.01, max_attempts=4)
        async with client_of(host, retry=retry) as client, client.status_pusher() as pusher:
            bad = asyncio.create_task(pusher.push("bad", status(1)))
            while not bad.done():
                await pusher.push("good", status(0))
        assert (bad.result().outcome, bad.result().attempts) == ("failed", 4)
        assert len(pages_of(host, "bad")) == 4

    run(program())


def test_a_device_in_backoff_holds_neither_a_permit_nor_a_task() -> None:
    async def program() -> None:
        host = Host(reply=lambda seen: UNAVAILABLE if seen.device_id.startswith("bad") else OK)
        retry = RetryPolicy(base_delay_s=1e5, max_delay_s=1e5, budget=10_000)
        async with client_of(host, retry=retry) as client:
            pusher = client.status_pusher()
            tasks = len(asyncio.all_tasks())
            for number in range(500):
                await pusher.push("good", status(number))
                await pusher.put(f"bad-{number}", status(number))
            await fake_loop().settle()
            assert pusher.stats().active_devices == 500
            assert client._channel.executor.limiter.in_flight == pusher.stats().in_flight == 0
            assert (
                len(asyncio.all_tasks()) - tasks <= 64
            )  # workers, of which there are as many as permits at the start
            result = await pusher.push("good", status(1))
            assert result.latency_s < 1e-6
            await pusher.aclose()

    run(program())

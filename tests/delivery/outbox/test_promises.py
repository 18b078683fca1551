"""The settings of a pusher, kept across the workers of one outbox."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from printos_async import ConcurrencyLimit, HmacAuth, NotFoundError, PrintOSClient, PusherClosedError
from tests.conftest import KEY, QUICK_RETRY, SECRET, status
from tests.delivery.host import Host, Reply, client_over
from tests.delivery.host import status as host_status

from .conftest import Workplace
from .seen import adds_up, applied, asked_s, pages

if TYPE_CHECKING:
    from printos_async.sandbox import Sandbox


async def test_a_refused_status_is_a_dead_letter_and_the_next_one_of_its_device_is_sent(
    sandbox: Sandbox, workplace: Workplace
) -> None:
    async with workplace.pusher() as pusher, workplace.opened() as outbox:
        result = await pusher.push("ghost", status(1))
        assert result.outcome == "failed"
        assert isinstance(result.error, NotFoundError)
        assert (await pusher.push("dev-1", status(1))).outcome == "sent"
        while not (dead := await outbox.failed()):  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert [(letter.device_id, letter.seq, letter.attempts) for letter in dead] == [("ghost", 1, 1)]
        sandbox.add_device("ghost")
        assert (await pusher.push("ghost", status(2))).outcome == "sent"
        stats = await pusher.drain()
        assert (stats.accepted, stats.sent, stats.failed) == (3, 2, 1)
        assert await outbox.failed() == []


async def test_what_is_requeued_is_sent(sandbox: Sandbox, workplace: Workplace) -> None:
    async with workplace.pusher() as pusher:
        await pusher.push("ghost", status(1))
        await pusher.drain()
    sandbox.add_device("ghost")
    async with workplace.opened() as outbox, workplace.pusher():
        assert await outbox.requeue() == 1
        await sandbox.wait_for(lambda: pages(sandbox, "ghost") == 1)


async def test_what_is_requeued_is_sent_while_the_worker_still_owns_the_device(outbox_url: str) -> None:
    # The write that ends with 504 may land for another minute: for so long the worker keeps the device.
    answers = iter([504, 422])
    host = Host(reply=lambda _: Reply(status=next(answers, 200)))
    async with client_over(host, auth=HmacAuth(KEY, SECRET)) as client:
        place = Workplace(client, outbox_url)
        async with place.pusher(ambiguity_s=60.0) as pusher, place.opened() as outbox:
            assert (await pusher.push("dev-1", host_status(1))).outcome == "failed"
            while not await outbox.failed():  # noqa: ASYNC110
                await asyncio.sleep(0)
            assert await outbox.requeue() == 1
            while pusher.stats().sent == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert await outbox.failed() == []


async def test_a_status_that_the_server_cannot_process_is_a_dead_letter(outbox_url: str) -> None:
    host = Host(
        reply=lambda seen: Reply(
            status=422 if seen.pages == 1 else 200, apply_after_s=None if seen.pages == 1 else 0
        )
    )
    async with client_over(host, auth=HmacAuth(KEY, SECRET)) as client:
        place = Workplace(client, outbox_url)
        async with place.pusher() as pusher:
            assert (await pusher.push("dev-1", host_status(1))).outcome == "failed"
            assert (await pusher.push("dev-1", host_status(2))).outcome == "sent"
    assert host.newest == {"dev-1": 2}


async def test_the_minimum_interval_holds_across_workers(sandbox: Sandbox, workplace: Workplace) -> None:
    async with workplace.pusher(min_interval_s=1.0) as first:
        await first.push("dev-1", status(1))
        await first.drain()
    async with workplace.pusher(min_interval_s=1.0) as second:
        await second.put("dev-1", status(2))
        await second.put("dev-1", status(3))
        stats = await second.drain()
    assert applied(sandbox, "dev-1") == [1, 3]
    assert (stats.sent, stats.superseded) == (1, 1)
    before_s, after_s = asked_s(sandbox, "dev-1")
    assert after_s - before_s > 0.9  # less the way of the first request to the sandbox


async def test_an_unchanged_status_is_left_out(sandbox: Sandbox, workplace: Workplace) -> None:
    async with workplace.pusher(skip_unchanged=True) as pusher:
        results = [await pusher.push("dev-1", status(1)) for _ in range(3)]
        assert [result.attempts for result in results] == [1, 0, 0]
        assert {result.outcome for result in results} == {"sent"}
        await pusher.push("dev-1", status(2))
        stats = await pusher.drain()
    assert (stats.accepted, stats.sent, stats.requests) == (4, 4, 2)
    assert applied(sandbox, "dev-1") == [1, 2]
    assert (await workplace.stats()).waiting == 0


async def test_a_status_past_its_deadline_fails_and_the_next_one_is_sent(
    sandbox: Sandbox, workplace: Workplace
) -> None:
    async with workplace.pusher(deadline_s=0.3, min_interval_s=1.5) as pusher:
        while (await pusher.push("dev-1", status(1))).outcome != "sent":
            pass  # on a busy machine it may be too late itself
        failed_before = pusher.stats().failed
        assert (await pusher.push("dev-1", status(2))).outcome == "failed"
        stats = await pusher.drain()
    assert (stats.sent, stats.failed - failed_before, stats.pending) == (1, 1, 0)
    found = await workplace.stats()
    assert (found.failed, found.waiting) == (1, 0)
    async with workplace.pusher() as other:
        assert (await other.push("dev-1", status(3))).outcome == "sent"
    assert applied(sandbox, "dev-1") == [1, 3]


async def test_closing_gives_what_was_not_sent_to_another_worker_at_once(
    sandbox: Sandbox, outbox_url: str
) -> None:
    one_at_a_time = ConcurrencyLimit(minimum=1, maximum=1, initial=1)
    async with (
        PrintOSClient(
            sandbox.url, auth=HmacAuth(KEY, SECRET), timeout_s=1.0, retry=QUICK_RETRY, limit=one_at_a_time
        ) as narrow,
    ):
        place = Workplace(narrow, outbox_url)
        await sandbox.block()
        first = place.pusher(lease_s=3600.0, ambiguity_s=0.1)
        for index in range(10):
            await first.put(f"dev-{index}", status(index))
        await sandbox.wait_for(lambda: sandbox.in_flight == 1)
        await first.aclose()
        assert adds_up(first.stats())
        assert first.stats().pending == 10
        with pytest.raises(PusherClosedError):
            await first.put("dev-1", status(100))
        await sandbox.release()
        async with place.pusher(lease_s=3600.0, ambiguity_s=0.1):
            await sandbox.wait_for(
                lambda: all(pages(sandbox, f"dev-{index}") == index for index in range(10))
            )
            # The one that was in flight comes too, once it has ended for sure.
            await sandbox.wait_for(lambda: sandbox.applied_count >= 11)


async def test_draining_and_closing_end_in_time_with_a_server_that_hangs(
    sandbox: Sandbox, workplace: Workplace
) -> None:
    await sandbox.block()
    async with asyncio.timeout(8.0):  # less than timeout_s and than the lease, by far more than is asked for
        pusher = workplace.pusher()
        for index in range(10):
            await pusher.put(f"dev-{index}", status(index))
        stats = await pusher.drain(timeout_s=0.2)
        assert (stats.accepted, stats.pending) == (10, 10)
        await pusher.aclose()
    assert adds_up(pusher.stats())
    assert (await workplace.stats()).waiting == 10


@pytest.mark.parametrize("consistency", ["strict", "eventual"])
async def test_an_uncertain_write_of_a_worker_that_died_is_inherited(
    sandbox: Sandbox, workplace: Workplace, consistency: str
) -> None:
    from printos_async.outbox import Draft  # noqa: PLC0415

    async with workplace.opened(lease_s=1.0) as dead:
        owner = await dead.join()
        body = b'{"status":"DS_ON","metrics":{"pagesTotal":1}}'
        [kept] = await dead.put([Draft("dev-1", body)], owner=owner)
        assert kept.claimed
        joined_s = asyncio.get_running_loop().time()
        # It is never heard of again: its request may be on its way.
        async with workplace.pusher(consistency=consistency, ambiguity_s=1.5, lease_s=25.0) as pusher:
            # The lease is renewed, and others are looked after, every few seconds only.
            async with workplace.opened() as other:
                heir = await other.join()
                while (await other.stats()).workers > 2 or not await other.renew(heir):  # noqa: ASYNC110
                    await asyncio.sleep(0)
                await other.leave(heir)
            await sandbox.wait_for(lambda: pages(sandbox, "dev-1") == 1)
            await pusher.drain()
    times = asked_s(sandbox, "dev-1")
    if consistency == "strict":
        assert len(times) == 1
        assert times[0] - joined_s > 1.5
    else:
        assert len(times) == 2
        assert times[1] - joined_s > 1.5

"""Several pushers and spoolers on one outbox: acceptance, sending, and their counts."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from printos_async._delivery.outbox.shared import SharedBackend
from printos_async.sandbox import Faults
from tests.conftest import status

from .seen import adds_up, applied, pages

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from printos_async.sandbox import Sandbox

    from .conftest import Workplace


async def test_a_status_is_in_the_outbox_when_put_returns(sandbox: Sandbox, workplace: Workplace) -> None:
    await sandbox.block()
    async with workplace.pusher() as pusher:
        await pusher.put("dev-1", status(1))
        assert (await workplace.stats()).waiting == 1
        await sandbox.release()
    found = await workplace.stats()
    assert (found.devices, found.waiting, found.workers) == (0, 0, 0)


async def test_a_pusher_sends_what_a_spooler_puts(sandbox: Sandbox, workplace: Workplace) -> None:
    async with workplace.client.spooler(workplace.outbox()) as spooler:
        assert await spooler.put("dev-1", status(1)) == 1
        async with workplace.pusher() as pusher:
            await sandbox.wait_for(lambda: pages(sandbox, "dev-1") == 1)
            assert await spooler.put("dev-1", status(2)) == 2
            await sandbox.wait_for(lambda: pages(sandbox, "dev-1") == 2)
            stats = await pusher.drain()
    assert (stats.accepted, stats.sent) == (2, 2)


async def test_a_pusher_sends_what_another_one_has_put_and_not_sent(
    sandbox: Sandbox, workplace: Workplace
) -> None:
    async with workplace.pusher() as first:
        await first.put("dev-1", status(1))
        await first.drain()
    async with workplace.pusher(min_interval_s=3600.0) as waiting:
        await waiting.push("dev-2", status(1))
        await waiting.put("dev-2", status(2))
        await waiting.aclose()
    await workplace.execute("UPDATE printos_outbox SET due_at = 0")  # the hour has passed
    async with workplace.pusher():
        await sandbox.wait_for(lambda: pages(sandbox, "dev-2") == 2)


@pytest.mark.parametrize("keeps_row", [False, True], ids=["row forgotten", "row kept"])
async def test_a_status_that_another_worker_sent_leaves_nothing_behind(
    sandbox: Sandbox, workplace: Workplace, *, keeps_row: bool
) -> None:
    await sandbox.block("dev-1")
    async with workplace.pusher(skip_unchanged=keeps_row) as sender, workplace.pusher() as putter:
        await sender.put("dev-1", status(1))
        await sandbox.wait_for(lambda: sandbox.in_flight_by_device.get("dev-1"))
        await putter.put("dev-1", status(2))
        await sandbox.release("dev-1")
        stats = await putter.drain()
        assert (stats.accepted, stats.sent, stats.requests) == (1, 1, 0)
        backend = putter._backend
        assert isinstance(backend, SharedBackend)
        assert not backend.unsettled()
        assert not backend._dispatcher._outcomes


async def test_the_newest_status_wins_whoever_has_put_it(sandbox: Sandbox, workplace: Workplace) -> None:
    await sandbox.block("dev-1")
    async with (
        workplace.pusher() as first,
        workplace.pusher() as second,
        workplace.client.spooler(workplace.outbox()) as spooler,
    ):
        await first.put("dev-1", status(1))
        await sandbox.wait_for(lambda: sandbox.in_flight_by_device.get("dev-1"))
        await spooler.put("dev-1", status(2))
        await second.put("dev-1", status(3))
        await spooler.put("dev-1", status(4))
        await sandbox.release("dev-1")
        await sandbox.wait_for(lambda: pages(sandbox, "dev-1") == 4)
        results = await asyncio.gather(first.drain(), second.drain())
    # The owner looks for what others have put each 0.5 s: it may send one that it saw before the newest was put.
    sent = applied(sandbox, "dev-1")
    assert sent[0] == 1
    assert sent[-1] == 4
    assert sent == sorted(set(sent))
    assert len(sent) <= 3
    assert all(adds_up(stats) and stats.pending == 0 for stats in results)
    # Delivered, the device is forgotten: that it was by a newer status cannot always be seen.
    assert results[1].superseded + results[1].sent == 1


async def test_accounts_add_up_where_several_pushers_put_and_send_the_same_devices(
    sandbox: Sandbox, workplace: Workplace, stack: AsyncExitStack
) -> None:
    sandbox.set_faults(Faults(seed=2, latency_s=(0.0, 0.005), server_error=0.05, reset=0.05))
    pushers = [await stack.enter_async_context(workplace.pusher(ambiguity_s=0.1)) for _ in range(3)]
    chance = random.Random(3)
    newest = {}
    for number in range(300):
        device_id = f"dev-{chance.randrange(10)}"
        newest[device_id] = number
        await chance.choice(pushers).put(device_id, status(number))
        assert all(adds_up(pusher.stats()) for pusher in pushers)
    drained = await asyncio.gather(*(pusher.drain(timeout_s=30.0) for pusher in pushers))
    assert {device_id: pages(sandbox, device_id) for device_id in newest} == newest
    for pusher, stats in zip(pushers, drained, strict=True):
        assert adds_up(stats)
        assert (stats.pending, stats.failed, stats.active_devices) == (0, 0, 0)
        # One that had drained first may have got more since, for devices that it still owned because of an uncertain
        # write. Now that all have drained there is nothing left to come; limit and circuit are the client's.
        before = pusher.stats()
        assert adds_up(before)
        assert (before.pending, before.failed, before.active_devices) == (0, 0, 0)
        await pusher.aclose()
        assert evolve(pusher.stats(), limit=before.limit, circuit=before.circuit) == before
    assert sum(stats.accepted for stats in drained) >= 300
    assert set(sandbox.max_in_flight_by_device.values()) == {1}


async def test_push_has_the_result_of_what_another_worker_has_sent(
    sandbox: Sandbox, workplace: Workplace
) -> None:
    await sandbox.block("dev-1")
    async with workplace.pusher() as owner, workplace.pusher() as other:
        first = asyncio.create_task(owner.push("dev-1", status(1)))
        await sandbox.wait_for(lambda: sandbox.in_flight_by_device.get("dev-1"))
        second = asyncio.create_task(other.push("dev-1", status(2)))
        while (await workplace.stats()).waiting and not await _has_seq(workplace, "dev-1", 2):  # noqa: ASYNC110
            await asyncio.sleep(0)
        await sandbox.release("dev-1")
        sent, also_sent = await first, await second
        assert other.stats().requests == 0
    assert (sent.outcome, sent.seq) == ("sent", 1)
    assert (also_sent.outcome, also_sent.seq, also_sent.attempts) == ("sent", 2, 0)
    assert applied(sandbox, "dev-1") == [1, 2]


async def test_push_tells_by_which_status_of_another_worker_it_was_superseded(
    sandbox: Sandbox, workplace: Workplace
) -> None:
    await sandbox.block("dev-1")
    # The interval keeps the device in the outbox after it was delivered.
    async with workplace.pusher(min_interval_s=1.0) as owner, workplace.pusher() as other:
        await owner.put("dev-1", status(1))
        await sandbox.wait_for(lambda: sandbox.in_flight_by_device.get("dev-1"))
        second = asyncio.create_task(other.push("dev-1", status(2)))
        while not await _has_seq(workplace, "dev-1", 2):  # noqa: ASYNC110
            await asyncio.sleep(0)
        await owner.put("dev-1", status(3))
        await sandbox.release("dev-1")
        result = await second
    assert (result.outcome, result.seq, result.superseded_by) == ("superseded", 2, 3)
    assert applied(sandbox, "dev-1") == [1, 3]


async def test_two_accounts_on_one_outbox_never_mix(sandbox: Sandbox, workplace: Workplace) -> None:
    from printos_async import HmacAuth, PrintOSClient  # noqa: PLC0415
    from printos_async.sandbox import Sandbox as OtherSandbox  # noqa: PLC0415

    async with (
        OtherSandbox(hmac_keys={"other": "secret"}) as elsewhere,
        PrintOSClient(elsewhere.url, auth=HmacAuth("other", "secret")) as other,
    ):
        elsewhere.add_device("dev-1")
        async with other.spooler(workplace.outbox()) as spooler:
            await spooler.put("dev-1", status(2))
        async with workplace.client.spooler(workplace.outbox()) as spooler, workplace.pusher() as pusher:
            for number in range(3):  # so that it looks for work more than once
                wanted = 10 + number
                await spooler.put("dev-1", status(wanted))
                await sandbox.wait_for(lambda: pages(sandbox, "dev-1") == wanted)  # noqa: B023 - it is awaited at once
            assert (await pusher.drain()).accepted == 3
            assert elsewhere.request_count == 0
        async with other.status_pusher(outbox=workplace.outbox()):
            await elsewhere.wait_for(lambda: pages(elsewhere, "dev-1") == 2)
    assert applied(sandbox, "dev-1") == [10, 11, 12]
    assert applied(elsewhere, "dev-1") == [2]


async def _has_seq(workplace: Workplace, device_id: str, seq: int) -> bool:
    async with workplace.opened() as outbox:
        return any(one.seq >= seq for one in await outbox.progress([device_id]))

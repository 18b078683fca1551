"""What others put for devices that a worker owns: seen at once, whatever it owns them for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from printos_async import HmacAuth
from printos_async.sandbox import Faults
from tests.conftest import KEY, QUICK_RETRY, SECRET, status
from tests.delivery.host import OK, Host, Reply, client_over
from tests.delivery.host import status as host_status

from .conftest import Workplace
from .seen import applied, pages

if TYPE_CHECKING:
    from printos_async import PrintOSClient
    from printos_async.sandbox import Sandbox

# Less than the 7.5 s between two renewals of the lease, with which the owner would see them too.
WITHIN_S = 6.0
OPTIONS: dict[str, dict[str, Any]] = {
    "unchanged": {"skip_unchanged": True},
    "interval": {"min_interval_s": 0.5},
    "strict": {"consistency": "strict"},
    "deadline": {"deadline_s": 60.0},
    "ambiguity": {"ambiguity_s": 600.0},
    "together": {
        "skip_unchanged": True,
        "min_interval_s": 0.5,
        "consistency": "strict",
        "deadline_s": 60.0,
        "ambiguity_s": 600.0,
    },
}
DEVICES = [f"dev-{index}" for index in range(10)]
TERMINATE = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'printos-async'"
)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
async def test_a_second_status_that_is_spooled_for_devices_of_a_worker_is_sent(
    sandbox: Sandbox, workplace: Workplace, options: dict[str, Any]
) -> None:
    async with (
        workplace.client.spooler(workplace.outbox()) as spooler,
        workplace.pusher(**options) as pusher,
    ):
        for round_ in range(3):
            await asyncio.gather(*(spooler.put(device_id, status(round_)) for device_id in DEVICES))
            async with asyncio.timeout(WITHIN_S):
                await sandbox.wait_for(
                    lambda: all(pages(sandbox, device_id) == round_ for device_id in DEVICES)  # noqa: B023 - it is awaited at once
                )
            await _until_nothing_waits(workplace)
        await pusher.drain(timeout_s=10.0)
    assert [applied(sandbox, device_id) for device_id in DEVICES] == [[0, 1, 2]] * len(DEVICES)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
async def test_push_has_its_result_where_another_worker_keeps_the_device(
    sandbox: Sandbox, workplace: Workplace, options: dict[str, Any]
) -> None:
    async with workplace.pusher(**options) as owner, workplace.pusher(**options) as other:
        await asyncio.gather(*(owner.push(device_id, status(1)) for device_id in DEVICES))
        await _until_nothing_waits(workplace)
        async with asyncio.timeout(WITHIN_S):
            results = await asyncio.gather(*(other.push(device_id, status(2)) for device_id in DEVICES))
        assert {result.outcome for result in results} == {"sent"}
    assert [pages(sandbox, device_id) for device_id in DEVICES] == [2] * len(DEVICES)


async def test_a_newer_status_that_is_spooled_after_a_lost_answer_is_sent_at_once(outbox_url: str) -> None:
    # What was sent after a lost answer is to be sent once more, when that cannot land any more.
    host = Host(reply=lambda seen: Reply(status=None) if seen.pages == 1 else OK)
    async with client_over(host, auth=HmacAuth(KEY, SECRET), retry=QUICK_RETRY) as client:
        place = Workplace(client, outbox_url)
        async with place.pusher(ambiguity_s=600.0) as pusher, client.spooler(place.outbox()) as spooler:
            for number in range(1, 5):
                await spooler.put("dev-1", host_status(number))
                async with asyncio.timeout(WITHIN_S):
                    while host.newest.get("dev-1") != number:  # noqa: ASYNC110
                        await asyncio.sleep(0)
            await pusher.aclose()


async def test_newer_statuses_are_seen_while_a_backlog_is_worked_off(
    sandbox: Sandbox, workplace: Workplace
) -> None:
    sandbox.set_faults(Faults(latency_s=(0.05, 0.05)))
    for index in range(120):
        sandbox.add_device(f"old-{index}")
    async with (
        workplace.client.spooler(workplace.outbox()) as spooler,
        # It owns four devices at once, and is never without more to claim.
        workplace.pusher(skip_unchanged=True, max_pending_devices=4),
    ):
        await spooler.put("dev-1", status(1))
        await sandbox.wait_for(lambda: pages(sandbox, "dev-1") == 1)
        await asyncio.gather(*(spooler.put(f"old-{index}", status(1)) for index in range(120)))
        await spooler.put("dev-1", status(2))
        await sandbox.wait_for(lambda: pages(sandbox, "dev-1") == 2)
        assert (await workplace.stats()).waiting > 0


async def test_a_drained_worker_leaves_newer_statuses_to_others(
    sandbox: Sandbox, workplace: Workplace
) -> None:
    async with workplace.client.spooler(workplace.outbox()) as spooler:
        async with workplace.pusher(skip_unchanged=True) as pusher:
            await pusher.push("dev-1", status(1))
            await pusher.drain()
            await spooler.put("dev-1", status(2))
            assert (await pusher.drain()).accepted == 1
        async with workplace.pusher():
            await sandbox.wait_for(lambda: pages(sandbox, "dev-1") == 2)


async def test_a_claim_that_a_fail_over_has_undone_is_made_again(
    sandbox: Sandbox, workplace: Workplace
) -> None:
    async with workplace.pusher(skip_unchanged=True) as pusher:
        await pusher.push("dev-1", status(1))
        await _until_nothing_waits(workplace)
        await workplace.execute("UPDATE printos_outbox SET done_seq = done_seq - 1, owner = NULL")
        await _until_nothing_waits(workplace)
        assert pusher.stats().requests == 1  # it knows that this was sent
    assert applied(sandbox, "dev-1") == [1]


async def test_a_completion_that_a_fail_over_has_undone_is_made_again(
    sandbox: Sandbox, client: PrintOSClient, postgres_url: str
) -> None:
    place = Workplace(client, postgres_url)
    async with place.pusher(skip_unchanged=True) as pusher:
        await pusher.push("dev-1", status(1))
        await _until_nothing_waits(place)
        await place.execute("UPDATE printos_outbox SET done_seq = done_seq - 1")
        await place.execute(TERMINATE)
        await _until_nothing_waits(place)
        assert pusher.stats().requests == 1
    assert applied(sandbox, "dev-1") == [1]


async def _until_nothing_waits(place: Workplace) -> None:
    async with asyncio.timeout(WITHIN_S), place.opened() as outbox:
        while (await outbox.stats()).waiting:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

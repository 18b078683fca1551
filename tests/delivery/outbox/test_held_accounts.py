"""Held accounts over an outbox that several workers use: nothing is given up, nobody starves, the newest is sent once."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from printos_async import DeviceCredentials, HmacAuth
from tests.delivery.host import status

from .site import LIMIT, LONG, Site, until

DEVICES = 10_000 if LONG else 200


@pytest.mark.parametrize("code", [401, 403])
async def test_a_refused_backlog_of_two_workers_waits_for_the_credentials(outbox_url: str, code: int) -> None:
    async with Site(outbox_url, lambda: HmacAuth("k", "s"), code) as site:
        site.is_refused = lambda _: True
        names = [f"dev-{device}" for device in range(DEVICES)]
        await site.put(dict.fromkeys(names, 1))
        # Room for a third of them, so that there is something left for the other worker.
        workers = [await site.worker(client, max_pending_devices=DEVICES // 3) for client in site.clients]
        started_s = asyncio.get_running_loop().time()
        await until(lambda: all(worker.stats().held_accounts for worker in workers))
        await site.put(dict.fromkeys(names, 2))
        in_flight = len(workers) * (LIMIT.initial + (9 if code == 403 else 0))
        at_once = site.host.count
        await until(lambda: site.host.count > at_once + 1)
        lasted_s = asyncio.get_running_loop().time() - started_s
        assert site.host.count <= in_flight + len(workers) * (1 + lasted_s)
        assert await site.dead_letters() <= (0 if code == 401 else 18)
        assert site.host.newest == {}
        site.mend()
        await until(lambda: set(site.host.newest.values()) == {2} and len(site.host.newest) == DEVICES)
        assert {worker.stats().held_accounts for worker in workers} <= {0, 1}
    assert max(site.host.max_in_flight.values()) == 1
    assert site.host.stale_overwrites() == 0
    assert max(Counter((seen.device_id, seen.pages) for seen in site.host.applied).values()) == 1


async def test_devices_of_held_accounts_leave_a_worker_room_for_the_others(outbox_url: str) -> None:
    devices = 1_000 if LONG else 80
    bad = {f"bad-{device}" for device in range(devices // 2)}
    good = {f"good-{device}" for device in range(devices // 2)}
    keys = {name: HmacAuth(name, "s") for name in bad | good}
    async with Site(outbox_url, lambda: DeviceCredentials(keys)) as site:
        site.is_refused = bad.__contains__
        await site.put(dict.fromkeys(sorted(bad), 1))  # before the others: they are claimed first
        first = await site.worker(site.clients[0], max_pending_devices=16)
        await until(lambda: first.stats().held_accounts > 16)
        waiting = asyncio.create_task(first.push("bad-0", status(2)))
        second = await site.worker(site.clients[1], max_pending_devices=16)
        for number in (1, 2):
            await site.put(dict.fromkeys(sorted(good), number))
            await until(lambda: all(site.host.newest.get(name) == number for name in good))  # noqa: B023
        assert max(Counter(seen.device_id for seen in site.host.seen if seen.device_id in bad).values()) <= 20
        assert not bad & set(site.host.newest)
        assert not waiting.done()
        await site.put(dict.fromkeys(sorted(bad - {"bad-0"}), 3))
        site.mend()
        await until(lambda: set(site.host.newest) == bad | good)
        await until(lambda: all(site.host.newest[name] == 3 for name in bad - {"bad-0"}))
        result = await waiting
        assert (result.outcome, site.host.newest["bad-0"]) == ("sent", 2)
        stats = [first.stats(), second.stats()]
        assert [each.failed for each in stats] == [0, 0]
    assert max(site.host.max_in_flight.values()) == 1
    assert site.host.stale_overwrites() == 0


async def test_a_worker_that_ends_leaves_what_it_gave_back_to_the_others(outbox_url: str) -> None:
    names = {f"dev-{device}" for device in range(40)}
    async with Site(
        outbox_url, lambda: DeviceCredentials({name: HmacAuth(name, "s") for name in names})
    ) as site:
        site.is_refused = lambda _: True
        await site.put(dict.fromkeys(sorted(names), 1))
        first = await site.worker(site.clients[0], max_pending_devices=16)
        await until(lambda: first.stats().held_accounts > 16)
        await first.aclose()
        assert first.stats().pending > 16
        site.mend()
        await site.worker(site.clients[1])
        await until(lambda: set(site.host.newest) == names)
        assert await site.dead_letters() == 0
    assert max(Counter(seen.device_id for seen in site.host.applied).values()) == 1

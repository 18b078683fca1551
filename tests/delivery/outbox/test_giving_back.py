"""Devices of held accounts whose giving back to the outbox fails half-way: none is lost or sent by two workers."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from attrs import define, field

from printos_async import DeviceCredentials, HmacAuth, LeaseLost, StatusPusher
from tests.conftest import QUICK_RETRY
from tests.delivery.host import Host, client_over, pages_of, status
from tests.outbox.stores import sql_store

from .gated import GatedOutbox
from .seen import adds_up
from .site import Site, until

if TYPE_CHECKING:
    from printos_async._transport import RawResponse

LEASE_S, TIMEOUT_S = 1.0, 0.4
EXPIRE = "UPDATE printos_worker SET lease_until = 0"
OWNED = "SELECT count(*) FROM printos_outbox WHERE owner IS NOT NULL"
WAITING = "SELECT count(*) FROM printos_outbox WHERE seq > done_seq"
ROOM = 9
NAMES = [f"dev-{device}" for device in range(8)]
KEPT = ROOM // 2
# A release changes neither the number of what was delivered nor the time of an uncertain write: others' statements do.
_RELEASES = (
    "NEW.owner IS NULL AND OLD.owner IS NOT NULL AND NEW.done_seq = OLD.done_seq AND NEW.doubt_since IS NULL"
)
STOP = {
    "sqlite": [
        f"""CREATE TRIGGER stop BEFORE UPDATE ON printos_outbox WHEN {_RELEASES}
        BEGIN SELECT RAISE(ABORT, 'stopped'); END"""
    ],
    "postgresql": [
        "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'stopped'; END $$",
        f"""CREATE TRIGGER stop BEFORE UPDATE ON printos_outbox FOR EACH ROW
        WHEN ({_RELEASES}) EXECUTE FUNCTION stop()""",
    ],
}
GO_ON = {"sqlite": "DROP TRIGGER stop", "postgresql": "DROP TRIGGER stop ON printos_outbox"}


@define(eq=False)
class SlowHost(Host):
    """Answers nothing until it is opened."""

    opened: asyncio.Event = field(factory=asyncio.Event)

    async def _answer(self, *details: Any) -> RawResponse:
        await self.opened.wait()
        return await super()._answer(*details)


def site_of(url: str, **settings: Any) -> Site:
    keys = {name: HmacAuth(name, "s") for name in NAMES}
    return Site(url, lambda: DeviceCredentials(keys), timeout_s=TIMEOUT_S, retry=QUICK_RETRY, **settings)


async def stop(url: str) -> None:
    """Let every release fail from now on."""
    async with sql_store(url) as store:
        for statement in STOP[url.partition("+")[0]]:
            await store.execute(statement)


async def go_on(url: str) -> None:
    async with sql_store(url) as store:
        await store.execute(GO_ON[url.partition("+")[0]])


async def until_stopped(worker: StatusPusher) -> None:
    await until(lambda: "outbox_unavailable" in worker.health().reasons)


async def until_counted(url: str, counting: str, devices: int) -> None:
    async with sql_store(url) as store, asyncio.timeout(20.0):
        while await store.execute(counting) != [(devices,)]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_devices_are_given_back_once_the_database_takes_it(outbox_url: str) -> None:
    host = SlowHost()
    async with site_of(outbox_url, host=host) as site:
        first = await site.worker(site.clients[0], max_pending_devices=ROOM)
        for number in (1, 2):  # the first is in flight while the second waits
            for name in NAMES:  # one by one, so that there is room for each
                await first.put(name, status(number))
            await until(lambda: host.count == len(NAMES))
        await stop(outbox_url)
        site.is_refused = lambda _: True
        host.opened.set()
        await until_stopped(first)
        assert host.newest == dict.fromkeys(NAMES, 1)
        await go_on(outbox_url)
        await until_counted(outbox_url, OWNED, KEPT)
        await site.worker(site.clients[1])
        site.mend()
        await until(lambda: host.newest == dict.fromkeys(NAMES, 2))
        await until(lambda: not first.stats().pending)
        await until_counted(outbox_url, WAITING, 0)
        assert await site.dead_letters() == 0
        assert adds_up(first.stats())
    assert max(host.max_in_flight.values()) == 1
    assert host.stale_overwrites() == 0
    assert set(Counter((seen.device_id, seen.pages) for seen in host.applied).values()) == {1}


async def test_a_lease_that_is_lost_while_devices_are_given_back_loses_none_of_them(outbox_url: str) -> None:
    losses: list[LeaseLost] = []

    def hook(event: object) -> None:
        if isinstance(event, LeaseLost):
            losses.append(event)

    async with site_of(outbox_url, hooks=[hook]) as site:
        site.is_refused = lambda _: True
        settings = {"max_pending_devices": ROOM, "lease_s": LEASE_S, "ambiguity_s": 0.1}
        first = await site.worker(site.clients[0], **settings)
        await stop(outbox_url)
        waiting = [asyncio.create_task(first.push(name, status(1))) for name in NAMES]
        await until_stopped(first)
        async with sql_store(outbox_url) as store:
            await store.execute(EXPIRE)
        await until(lambda: losses)
        # Those that could not be given back were not its own any more.
        assert losses[0].devices == KEPT
        await go_on(outbox_url)
        await site.worker(site.clients[1], **settings)
        site.mend()
        results = await asyncio.gather(*waiting)
        assert {result.outcome for result in results} == {"sent"}
        assert await site.dead_letters() == 0
        await until(lambda: not first.stats().pending)
        assert adds_up(first.stats())
    assert site.host.newest == dict.fromkeys(NAMES, 1)
    assert max(site.host.max_in_flight.values()) == 1


async def test_a_worker_that_ends_while_devices_cannot_be_given_back_leaves_them_to_the_others(
    outbox_url: str,
) -> None:
    async with site_of(outbox_url) as site:
        site.is_refused = lambda _: True
        settings = {"max_pending_devices": ROOM, "lease_s": LEASE_S, "ambiguity_s": 0.1}
        first = await site.worker(site.clients[0], **settings)
        await stop(outbox_url)
        for name in NAMES:
            await first.put(name, status(1))
        await until_stopped(first)
        await first.aclose()
        assert first.stats().pending == len(NAMES)
        await go_on(outbox_url)
        second = await site.worker(site.clients[1], **settings)
        site.mend()
        await until(lambda: set(site.host.newest) == set(NAMES))
        await until(lambda: not second.stats().pending)
        assert await site.dead_letters() == 0
    assert max(site.host.max_in_flight.values()) == 1


async def test_a_drain_does_not_give_a_device_back_for_which_a_put_is_under_way(outbox_url: str) -> None:
    host, outbox = SlowHost(), GatedOutbox(outbox_url)
    async with (
        client_over(host, auth=HmacAuth("k", "s")) as client,
        client.status_pusher(outbox=outbox) as pusher,
    ):
        await pusher.put("dev-1", status(1))
        await until(lambda: host.count == 1)
        outbox.answering.clear()
        putting = asyncio.create_task(pusher.put("dev-1", status(2)))
        await until(lambda: outbox.writes == 2)
        draining = asyncio.create_task(pusher.drain())
        host.opened.set()
        await until_counted(outbox_url, "SELECT count(*) FROM printos_outbox WHERE done_seq > 0", 1)
        host.opened.clear()
        await until(lambda: not pusher._backend._dispatcher.has_unwritten)  # type: ignore[attr-defined]
        outbox.answering.set()
        await putting
        # Given back now, another worker could send for it at the same time.
        await until(lambda: host.count == 2)
        assert not pusher._backend._dispatcher.releasing  # type: ignore[attr-defined]
        host.opened.set()
        assert (await draining).sent == 2
    assert pages_of(host, "dev-1") == [1, 2]

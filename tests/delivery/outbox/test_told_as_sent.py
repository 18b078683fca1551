"""A status is told as sent only if it was sent: not if a newer one of its device was delivered in its place."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from attrs import define, field

from printos_async import HmacAuth, OutboxError, SqlOutbox
from tests.conftest import QUICK_RETRY
from tests.delivery.host import OK, UNAVAILABLE, Host, Reply, Seen, client_over, status
from tests.outbox.stores import sql_store

from .conftest import Workplace
from .gated import GatedOutbox
from .site import WITHIN_S, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from printos_async import PrintOSClient, PushResult, StatusPusher
    from printos_async._transport import RawResponse

DEVICE = "dev-1"
LEASE_S, TIMEOUT_S = 1.0, 0.4


@define(eq=False)
class GatedHost(Host):
    """Answers a request when the gate of its page count is open."""

    gates: defaultdict[int, asyncio.Event] = field(factory=lambda: defaultdict(asyncio.Event))

    def open(self, *pages: int) -> None:
        for one in pages:
            self.gates[one].set()

    async def _answer(self, loop: asyncio.AbstractEventLoop, seen: Seen, *details: Any) -> RawResponse:
        await self.gates[seen.pages].wait()
        return await super()._answer(loop, seen, *details)

    async def until_sending(self, pages: int) -> None:
        await until(lambda: any(seen.pages == pages for seen in self.seen))

    async def until_applied(self, pages: int) -> None:
        await until(lambda: self.newest.get(DEVICE) == pages)


class Workshop(Workplace):
    """A workplace with a gated host, and a gated outbox for one of its workers."""

    def __init__(self, client: PrintOSClient, host: GatedHost, url: str) -> None:
        super().__init__(client, url)
        self.host = host
        self.gated = GatedOutbox(url, lease_s=LEASE_S)

    def worker(self, outbox: SqlOutbox | None = None) -> StatusPusher:
        outbox = outbox or self.outbox(lease_s=LEASE_S)
        return self.client.status_pusher(outbox=outbox, ambiguity_s=0.1, drain_timeout_s=0.0)

    async def start_first(self, pusher: StatusPusher, reply: Reply = OK) -> asyncio.Task[PushResult]:
        """Push the first status, which the host answers when its gate is opened."""
        self.host.gates[1].clear()
        self.host.reply = lambda seen: reply if seen.pages == 1 else OK
        first = await start(pusher, 1)
        await self.host.until_sending(1)
        return first

    async def lose_lease(self) -> None:
        """End the lease, and wait until the worker joins again."""
        joins = self.gated.joins
        await self.execute("UPDATE printos_worker SET lease_until = 0")
        await until(lambda: self.gated.joins > joins)

    async def replace_file(self, folder: Path) -> None:
        """Remove the SQLite file, and wait until the worker joins the new one."""
        joins = self.gated.joins
        for left in folder.glob("spool.db*"):  # noqa: ASYNC240
            left.unlink()
        await until(lambda: self.gated.joins > joins)

    async def until_no(self, rows: str) -> None:
        async with sql_store(self.url) as store, asyncio.timeout(WITHIN_S):
            while await store.execute(f"SELECT 1 FROM printos_outbox {rows} LIMIT 1"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


def push(pusher: StatusPusher, pages: int) -> asyncio.Task[PushResult]:
    return asyncio.create_task(pusher.push(DEVICE, status(pages)))


async def start(pusher: StatusPusher, pages: int) -> asyncio.Task[PushResult]:
    """Push a status, and wait until it is accepted."""
    accepted = pusher.stats().accepted
    pushing = push(pusher, pages)
    await until(lambda: pusher.stats().accepted > accepted)
    return pushing


async def told(*pushes: asyncio.Task[PushResult]) -> list[tuple[str, int | None]]:
    return [(one.outcome, one.superseded_by) for one in await asyncio.gather(*pushes)]


@pytest.fixture
async def workshop(outbox_url: str) -> AsyncIterator[Workshop]:
    host = GatedHost()
    host.open(*range(1, 10))
    async with client_over(host, auth=HmacAuth("k", "s"), timeout_s=TIMEOUT_S, retry=QUICK_RETRY) as client:
        yield Workshop(client, host, outbox_url)


@pytest.mark.parametrize("answer", ["late", "lost"])
async def test_a_newer_status_is_put_here_and_sent_by_another_worker_before_the_answer(
    workshop: Workshop, answer: str
) -> None:
    host, outbox = workshop.host, workshop.gated
    # The owner keeps its lease on a busy machine: the other worker would send the status that it left to the owner.
    async with workshop.worker(workshop.outbox()) as owner, workshop.worker(outbox) as pusher:
        await workshop.start_first(owner)
        second = await start(pusher, 2)
        outbox.answering.clear()
        outbox.loses_answers = answer == "lost"
        third = push(pusher, 3)
        await until(lambda: outbox.writes == 2)
        host.open(1)
        await host.until_applied(3)
        await workshop.until_no("")
        if answer == "late":
            await outbox.until_looked_up(second)
            outbox.answering.set()
            assert await told(second, third) == [("superseded", 3), ("sent", None)]
        else:
            outbox.answering.set()
            with pytest.raises(OutboxError):
                await third
            assert await told(second) == [("superseded", None)]


async def test_a_newer_status_is_put_and_sent_after_the_lease_was_lost(workshop: Workshop) -> None:
    host, outbox = workshop.host, workshop.gated
    async with workshop.worker(outbox) as pusher:
        first = await workshop.start_first(pusher)
        second = await start(pusher, 2)
        await outbox.stop_claims()
        await workshop.lose_lease()
        host.open(1)
        await first
        await workshop.until_no("WHERE owner IS NOT NULL")
        third = push(pusher, 3)
        await host.until_applied(3)
        await workshop.until_no("")
        outbox.claiming.set()
        assert await told(second, third) == [("superseded", 3), ("sent", None)]
    assert {seen.pages for seen in host.seen} == {1, 3}


async def test_a_request_fails_after_the_lease_was_lost_and_a_newer_status_was_put(
    workshop: Workshop,
) -> None:
    host, outbox = workshop.host, workshop.gated
    async with workshop.worker(outbox) as pusher:
        first = await workshop.start_first(pusher, UNAVAILABLE)
        await outbox.stop_claims()
        await workshop.lose_lease()
        await workshop.until_no("WHERE owner IS NOT NULL")
        second = await start(pusher, 2)
        host.open(1)
        await host.until_applied(2)
        await workshop.until_no("")
        outbox.claiming.set()
        assert await told(first, second) == [("superseded", 2), ("sent", None)]


async def test_a_request_fails_after_another_worker_has_sent_a_newer_status(workshop: Workshop) -> None:
    host, outbox = workshop.host, workshop.gated
    async with workshop.worker(outbox) as pusher:
        first = await workshop.start_first(pusher, UNAVAILABLE)
        outbox.joining.clear()
        await workshop.lose_lease()
        second = await start(pusher, 2)
        async with workshop.worker():
            await host.until_applied(2)
            await workshop.until_no("")
        outbox.joining.set()
        await outbox.until_looked_up(second)
        host.open(1)
        assert await told(first, second) == [("superseded", 2), ("sent", None)]


@pytest.mark.parametrize("outbox_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("is_claimed", [False, True], ids=["left to others", "claimed"])
async def test_a_newer_status_is_put_after_the_file_was_replaced(
    workshop: Workshop, tmp_path: Path, *, is_claimed: bool
) -> None:
    host, outbox = workshop.host, workshop.gated
    async with workshop.worker(outbox) as pusher:
        first = await workshop.start_first(pusher)
        second = await start(pusher, 2)
        await outbox.stop_claims()
        outbox.joining.clear()
        await workshop.replace_file(tmp_path)
        if is_claimed:
            outbox.joining.set()
            await until(lambda: pusher._backend._lease.owner is not None)  # type: ignore[attr-defined]
        third = await start(pusher, 3)
        host.open(1)
        if is_claimed:
            await host.until_applied(3)
            await workshop.until_no("")
        outbox.joining.set()
        outbox.claiming.set()
        assert await told(second, third) == [("superseded", 1), ("sent", None)]
        await first
        await workshop.until_no("")
    assert [seen.pages for seen in host.seen][-1] == host.newest[DEVICE] == 3
    assert host.stale_overwrites() == 0


@pytest.mark.parametrize("outbox_url", ["sqlite"], indirect=True)
async def test_a_newer_status_has_the_same_number_in_the_new_file(workshop: Workshop, tmp_path: Path) -> None:
    host, outbox = workshop.host, workshop.gated
    async with workshop.worker(outbox) as pusher, workshop.client.spooler(workshop.outbox()) as spooler:
        first = await workshop.start_first(pusher, UNAVAILABLE)
        await workshop.replace_file(tmp_path)
        await outbox.stop_claims()
        host.open(1)
        await until(lambda: not pusher.stats().active_devices)
        assert await spooler.put(DEVICE, status(2)) == 1
        outbox.claiming.set()
        await host.until_applied(2)
        assert await told(first) == [("superseded", 1)]
        await workshop.until_no("")
    assert host.stale_overwrites() == 0

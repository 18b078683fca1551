"""An outbox in memory: what one pusher has not sent is the next one's, and sending takes nothing from the engine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from printos_async import MemoryOutbox, OutboxError, PrintOSClient, PusherClosedError
from tests.conftest import status
from tests.delivery.clock import run
from tests.delivery.host import SILENT, UNAVAILABLE, Host, client_of, client_over

from .seen import adds_up, pages

if TYPE_CHECKING:
    from printos_async.sandbox import Sandbox


class Counting(MemoryOutbox):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    async def put(self, *args: Any, **settings: Any) -> Any:
        self.calls += 1
        return await super().put(*args, **settings)

    async def finish(self, *args: Any, **settings: Any) -> Any:
        self.calls += 1
        return await super().finish(*args, **settings)


async def test_what_was_not_sent_is_the_next_pushers(sandbox: Sandbox, client: PrintOSClient) -> None:
    outbox = MemoryOutbox()
    async with client.status_pusher(outbox=outbox, min_interval_s=1.0) as first:
        for index in range(10):
            assert (await first.push(f"dev-{index}", status(index))).outcome == "sent"
            await first.put(f"dev-{index}", status(100 + index))
        await first.aclose()
        assert adds_up(first.stats())
        assert first.stats().pending == 10
        with pytest.raises(PusherClosedError):
            await first.put("dev-1", status(1))
    async with client.status_pusher(outbox=outbox, min_interval_s=1.0) as second:
        await second.put("dev-0", status(200))
        stats = await second.drain(timeout_s=20.0)
    assert adds_up(stats)
    assert (stats.accepted, stats.sent, stats.superseded) == (11, 10, 1)
    assert [pages(sandbox, f"dev-{index}") for index in range(10)] == [200, *range(101, 110)]


async def test_a_drained_pusher_leaves_nothing(sandbox: Sandbox, client: PrintOSClient) -> None:
    outbox = MemoryOutbox()
    async with client.status_pusher(outbox=outbox) as first:
        await first.put("dev-1", status(1))
    async with client.status_pusher(outbox=outbox) as second:
        stats = await second.drain()
    assert stats.accepted == 0
    assert sandbox.applied_count == 1


async def test_nothing_is_asked_of_the_outbox_while_statuses_are_sent(
    sandbox: Sandbox, client: PrintOSClient
) -> None:
    outbox = Counting()
    async with client.status_pusher(outbox=outbox) as pusher:
        await pusher.put("dev-0", status(0))
        before = outbox.calls
        for number in range(200):
            await pusher.put(f"dev-{number % 10}", status(number))
        await pusher.drain()
        assert outbox.calls == before


class FailingOnce(MemoryOutbox):
    """One of its methods fails at its first call."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.method: str | None = method

    def fail(self, method: str) -> None:
        if self.method == method:
            self.method = None
            raise OutboxError("out of order, for once")

    async def claim_all(self, owner: int) -> Any:
        self.fail("claim_all")
        return await super().claim_all(owner)

    async def finish(self, owner: int, finished: Any) -> Any:
        if finished:
            self.fail("finish")
        return await super().finish(owner, finished)

    async def release(self, owner: int, released: Any) -> None:
        self.fail("release")
        await super().release(owner, released)


@pytest.mark.parametrize("method", ["claim_all", "finish"])
async def test_an_outbox_that_fails_at_opening_serves_the_next_pusher(
    sandbox: Sandbox, client: PrintOSClient, method: str
) -> None:
    outbox = FailingOnce(method)
    async with client.spooler(outbox) as spooler:
        await spooler.put("dev-1", status(1))
    first = client.status_pusher(outbox=outbox)
    with pytest.raises(OutboxError, match="for once"):
        await first.__aenter__()
    await first.aclose()
    async with client.status_pusher(outbox=outbox) as second:
        assert (await second.drain()).sent == 1
    assert pages(sandbox, "dev-1") == 1


async def test_an_outbox_that_fails_at_closing_serves_the_next_pusher(
    sandbox: Sandbox, client: PrintOSClient
) -> None:
    outbox = FailingOnce("release")
    first = client.status_pusher(outbox=outbox)
    await first.push("dev-1", status(1))
    with pytest.raises(OutboxError, match="for once"):
        await first.aclose()
    async with client.status_pusher(outbox=outbox) as second:
        assert (await second.push("dev-1", status(2))).outcome == "sent"
    assert pages(sandbox, "dev-1") == 2


def test_what_a_closed_client_does_not_send_is_the_next_pushers() -> None:
    async def program() -> None:
        outbox, host = MemoryOutbox(), Host(latency_s=1.0)
        client = client_over(host)
        async with client.status_pusher(outbox=outbox, min_interval_s=60.0) as first:
            await first.put("dev-0", status(1))
            await asyncio.sleep(0.5)  # it is in flight
            await client.aclose()
            for number in (2, 3):
                for device in range(3):
                    await first.put(f"dev-{device}", status(number))
                await asyncio.sleep(100.0)
        stats = first.stats()
        assert adds_up(stats)
        assert (stats.sent, stats.failed, stats.pending) == (1, 6, 0)
        async with client_of(host) as other, other.status_pusher(outbox=outbox) as second:
            stats = await second.drain()
        assert (stats.accepted, stats.sent) == (3, 3)
        assert host.newest == dict.fromkeys(["dev-0", "dev-1", "dev-2"], 3)

    run(program())


def test_a_status_is_not_given_back_if_a_newer_one_needed_no_request() -> None:
    async def program() -> None:
        outbox, host = MemoryOutbox(), Host()
        client = client_over(host)
        async with client.status_pusher(outbox=outbox, skip_unchanged=True) as first:
            await first.push("dev-1", status(1))
            await client.aclose()
            assert (await first.push("dev-1", status(2))).outcome == "failed"
            assert (await first.push("dev-1", status(1))).outcome == "sent"
        async with client_of(host) as other, other.status_pusher(outbox=outbox) as second:
            assert (await second.drain()).accepted == 0
        assert host.newest == {"dev-1": 1}

    run(program())


def test_a_newer_status_is_given_back_without_the_attempts_of_the_one_in_flight() -> None:
    async def program() -> int:
        outbox = MemoryOutbox(lease_s=3600.0)
        host = Host(reply=lambda _: UNAVAILABLE if host.count <= 3 else SILENT)
        async with client_of(host, timeout_s=600.0) as client:
            async with client.status_pusher(outbox=outbox, drain_timeout_s=0.0) as pusher:
                await pusher.put("dev-1", status(1))
                await asyncio.sleep(60.0)
                assert host.count == 4  # the last one is in flight
                await pusher.put("dev-1", status(2))
            await outbox.open(client.account)
            [claim] = await outbox.claim_all(await outbox.join())
        assert b'"pagesTotal":2' in claim.body
        return claim.attempts

    assert run(program()) == 0

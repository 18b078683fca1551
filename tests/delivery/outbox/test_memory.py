"""An outbox in memory: what one pusher has not sent is the next one's, and sending takes nothing from the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from printos_async import MemoryOutbox, PrintOSClient, PusherClosedError
from tests.conftest import status

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

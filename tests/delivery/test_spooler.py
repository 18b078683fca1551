"""A spooler: concurrent puts reach the outbox together, in their order, and closing leaves none without an answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from printos_async import MemoryOutbox, OutboxError, PusherClosedError
from tests.conftest import status

if TYPE_CHECKING:
    from printos_async import PrintOSClient


class GatedOutbox(MemoryOutbox):
    """Notes how many statuses each put has, and answers once the gate is open; closing opens it."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()

    async def put(self, drafts: Any, **settings: Any) -> Any:
        self.sizes.append(len(drafts))
        self.begun.set()
        await self.gate.wait()
        return await super().put(drafts, **settings)

    async def aclose(self) -> None:
        self.gate.set()
        await super().aclose()


class SlowlyOpenedOutbox(MemoryOutbox):
    """Opens once the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()

    async def open(self, *tenant: Any, **details: Any) -> None:
        self.begun.set()
        await self.gate.wait()
        await super().open(*tenant, **details)


async def test_concurrent_puts_reach_the_outbox_together_and_in_order(client: PrintOSClient) -> None:
    outbox = GatedOutbox()
    async with client.spooler(outbox) as spooler:
        first = asyncio.create_task(spooler.put("dev-1", status(0)))
        await outbox.begun.wait()
        others = [asyncio.create_task(spooler.put("dev-1", status(number))) for number in range(1, 200)]
        await asyncio.sleep(0)
        outbox.gate.set()
        assert await asyncio.gather(first, *others) == list(range(1, 201))
    assert outbox.sizes == [1, 199]


async def test_closing_waits_for_every_put(client: PrintOSClient) -> None:
    outbox = GatedOutbox()
    spooler = client.spooler(outbox)
    puts = [asyncio.create_task(spooler.put("dev-1", status(0)))]
    await outbox.begun.wait()
    puts.append(asyncio.create_task(spooler.put("dev-2", status(0))))
    await asyncio.sleep(0)
    closing = asyncio.create_task(spooler.aclose())
    await asyncio.sleep(0)
    with pytest.raises(PusherClosedError):
        await spooler.put("dev-3", status(0))
    outbox.gate.set()
    await closing
    assert await asyncio.gather(*puts) == [1, 1]


async def test_a_put_that_a_hanging_outbox_keeps_waiting_gets_an_error_at_the_end(
    client: PrintOSClient,
) -> None:
    outbox = GatedOutbox()
    spooler = client.spooler(outbox)
    written = asyncio.create_task(spooler.put("dev-1", status(0)))
    await outbox.begun.wait()
    waiting = asyncio.create_task(spooler.put("dev-2", status(0)))
    await asyncio.sleep(0)
    await spooler.aclose()
    for put in (written, waiting):
        with pytest.raises(OutboxError, match="not open"):
            await put
    assert outbox.sizes == [1, 1]


@pytest.mark.parametrize("how", ["put", "enter"])
async def test_closing_while_the_outbox_opens_closes_it(client: PrintOSClient, how: str) -> None:
    outbox = SlowlyOpenedOutbox()
    spooler = client.spooler(outbox)
    opens = spooler.put("dev-1", status(0)) if how == "put" else spooler.__aenter__()
    opening = asyncio.ensure_future(opens)
    await outbox.begun.wait()
    closing = asyncio.create_task(spooler.aclose())
    await asyncio.sleep(0)
    outbox.gate.set()
    await closing
    with pytest.raises(PusherClosedError):
        await opening
    with pytest.raises(OutboxError, match="not open"):
        await outbox.stats()


async def test_a_closed_spooler_is_not_opened_again(client: PrintOSClient) -> None:
    outbox = MemoryOutbox()
    async with client.spooler(outbox) as spooler:
        pass
    with pytest.raises(PusherClosedError):
        await spooler.__aenter__()
    with pytest.raises(OutboxError, match="not open"):
        await outbox.stats()

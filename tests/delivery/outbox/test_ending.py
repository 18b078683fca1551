"""Draining a shared outbox after a bug: it ends with the bug, whichever part has it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from printos_async import HmacAuth
from tests.delivery.host import OK, Host, client_over, status

from .gated import GatedOutbox
from .site import WITHIN_S, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from printos_async import StatusPusher
    from printos_async.outbox import Claim


class StuckOutbox(GatedOutbox):
    """Holds back completions; the first one then fails with ``bug``."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.begun, self.finishing = asyncio.Event(), asyncio.Event()
        self.bug: Exception | None = None

    async def finish(self, *completed: Any) -> list[Claim]:
        self.begun.set()
        await self.finishing.wait()
        bug, self.bug = self.bug, None
        if bug is not None:
            raise bug
        return await super().finish(*completed)


@asynccontextmanager
async def stuck_pusher(
    outbox: StuckOutbox, reply: Callable[[Any], Any] = lambda _: OK
) -> AsyncIterator[StatusPusher]:
    """A pusher that has sent a status, and whose outbox does not answer to the completion."""
    async with (
        client_over(Host(reply=reply), auth=HmacAuth("k", "s")) as client,
        client.status_pusher(outbox=outbox) as pusher,
    ):
        await pusher.put("dev-1", status(1))
        await outbox.begun.wait()
        try:
            yield pusher
        finally:
            outbox.finishing.set()


async def test_a_drain_ends_with_the_bug_of_the_outbox(outbox_url: str) -> None:
    outbox = StuckOutbox(outbox_url)
    outbox.bug = ZeroDivisionError("in the outbox")
    async with stuck_pusher(outbox) as pusher:
        draining = asyncio.create_task(pusher.drain())
        await asyncio.sleep(0)  # it waits for the completion
        outbox.finishing.set()
        with pytest.raises(ZeroDivisionError, match="in the outbox"):
            await asyncio.wait_for(draining, WITHIN_S)


async def test_a_drain_that_waits_for_the_outbox_ends_with_the_bug_of_the_transport(outbox_url: str) -> None:
    outbox = StuckOutbox(outbox_url)
    async with stuck_pusher(outbox, lambda seen: OK if seen.device_id == "dev-1" else 1 // 0) as pusher:
        outbox.answering.clear()
        putting = asyncio.create_task(pusher.put("dev-2", status(2)))
        await until(lambda: outbox.writes == 2)
        draining = asyncio.create_task(pusher.drain())
        await asyncio.sleep(0)  # it waits for the completion
        outbox.answering.set()
        await putting
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(draining, WITHIN_S)

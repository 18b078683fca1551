"""Two workers on one outbox, and a host that refuses the credentials of some devices."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self

from printos_async import ConcurrencyLimit, PrintOSClient, SqlOutbox
from tests.delivery.host import OK, Host, Reply, Seen, client_over, status

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from printos_async import StatusPusher

LONG = bool(os.environ.get("PRINTOS_LONG_TESTS"))
WITHIN_S = 120.0 if LONG else 30.0
LIMIT = ConcurrencyLimit(initial=8, maximum=8)


async def until(predicate: Callable[[], object]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not predicate():  # noqa: ASYNC110  # a host in memory has nothing to wait for
            await asyncio.sleep(0.01)


class Site:
    """Two workers, each with a client of its own as another process has, and a host that refuses some devices."""

    def __init__(
        self,
        url: str,
        make_auth: Callable[[], httpx.Auth],
        code: int = 401,
        *,
        host: Host | None = None,
        **settings: Any,
    ) -> None:
        self.url = url
        self.code = code
        self.is_refused: Callable[[str], bool] = lambda _: False
        self.host = host or Host(latency_s=0.01)
        self.host.reply = self.reply
        self.clients = [client_over(self.host, auth=make_auth(), limit=LIMIT, **settings) for _ in range(2)]
        self.stack = AsyncExitStack()

    def reply(self, seen: Seen) -> Reply:
        return Reply(status=self.code, apply_after_s=None) if self.is_refused(seen.device_id) else OK

    async def __aenter__(self) -> Self:
        for client in self.clients:
            await self.stack.enter_async_context(client)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stack.aclose()

    async def worker(self, client: PrintOSClient, *, lease_s: float = 30.0, **settings: Any) -> StatusPusher:
        outbox = SqlOutbox(self.url, lease_s=lease_s)
        pusher = client.status_pusher(outbox=outbox, drain_timeout_s=0.0, **settings)
        return await self.stack.enter_async_context(pusher)

    async def put(self, pages: dict[str, int]) -> None:
        async with self.clients[0].spooler(SqlOutbox(self.url)) as spooler:
            await asyncio.gather(
                *(spooler.put(device_id, status(number)) for device_id, number in pages.items())
            )

    def mend(self) -> None:
        self.is_refused = lambda _: False
        for client in self.clients:
            client.refresh_credentials()

    async def dead_letters(self) -> int:
        async with AsyncExitStack() as stack:
            outbox = SqlOutbox(self.url)
            await outbox.open(self.clients[0].account)
            stack.push_async_callback(outbox.aclose)
            return (await outbox.stats()).failed

"""An outbox whose answers a test holds back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from printos_async import OutboxError, SqlOutbox

from .site import until

if TYPE_CHECKING:
    from printos_async import PushResult
    from printos_async.outbox import Claim, Kept, Progress


class GatedOutbox(SqlOutbox):
    """Holds back joining, claims, and the answers of puts, which are written before; may lose such an answer."""

    def __init__(self, url: str, **settings: Any) -> None:
        super().__init__(url, **settings)
        self.joining, self.claiming, self.answering = asyncio.Event(), asyncio.Event(), asyncio.Event()
        for gate in (self.joining, self.claiming, self.answering):
            gate.set()
        self.joins = self.claims = self.writes = self.lookups = 0
        self.loses_answers = False

    async def join(self) -> int:
        self.joins += 1
        await self.joining.wait()
        return await super().join()

    async def claim(self, *limits: Any) -> list[Claim]:
        self.claims += 1
        await self.claiming.wait()
        return await super().claim(*limits)

    async def put(self, *drafts: Any, **settings: Any) -> list[Kept]:
        kept = await super().put(*drafts, **settings)
        self.writes += 1
        await self.answering.wait()
        if self.loses_answers:
            raise OutboxError("the answer was lost")
        return kept

    async def progress(self, *asked: Any) -> list[Progress]:
        found = await super().progress(*asked)
        self.lookups += 1
        return found

    async def stop_claims(self) -> None:
        self.claiming.clear()
        claims = self.claims
        await until(lambda: self.claims > claims)

    async def until_looked_up(self, pushing: asyncio.Task[PushResult]) -> None:
        """Wait for an answer about progress that was asked for from now on, or until none is needed."""
        enough = self.lookups + 2
        await until(lambda: self.lookups >= enough or pushing.done())

"""A PrintOS host in memory, behind the seam that carries bytes; it shares the event loop's clock, fake or not."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from printos_async import DeviceStatusUpdate, DeviceStatusUpdateMetrics, RetryPolicy
from printos_async._transport import ExchangeError, RawResponse
from tests.clients import ClientOver, channel_over

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from printos_async import PrintOSClient
    from printos_async._transport import RawRequest


@frozen(kw_only=True)
class Reply:
    """What the host does with one request.

    ``status`` None: the connection is lost in place of an answer. ``after_s`` None: there is no answer at all.
    The write is applied ``apply_after_s`` after the answer, or never if that is None.
    """

    status: int | None = 200
    headers: tuple[tuple[str, str], ...] = ()
    after_s: float | None = 0.0
    apply_after_s: float | None = 0.0
    body: bytes = b""


OK = Reply()
UNAVAILABLE = Reply(status=503, apply_after_s=None)
DOWN = Reply(status=None, apply_after_s=None)
SILENT = Reply(after_s=None, apply_after_s=None)


@frozen
class Seen:
    at_s: float
    device_id: str
    pages: int


@define
class Host:
    """Answers as ``reply`` says, and remembers what came and what was applied, in order."""

    reply: Callable[[Seen], Reply] = lambda _: OK
    latency_s: float = 0.0
    seen: list[Seen] = field(factory=list)
    applied: list[Seen] = field(factory=list)
    newest: dict[str, int] = field(factory=dict)
    in_flight: Counter[str] = field(factory=Counter)
    max_in_flight: Counter[str] = field(factory=Counter)
    record: bool = True
    count: int = 0
    closed: bool = False
    secrets: tuple[str, ...] = ()

    async def send(self, request: RawRequest, *, deadline: float, max_body_bytes: int) -> RawResponse:
        loop = asyncio.get_running_loop()
        device_id = request.target.split("/")[2]
        seen = Seen(loop.time(), device_id, json.loads(request.body)["metrics"]["pagesTotal"])
        self.count += 1
        if self.record:
            self.seen.append(seen)
        self.in_flight[device_id] += 1
        self.max_in_flight[device_id] = max(self.max_in_flight[device_id], self.in_flight[device_id])
        try:
            return await self._answer(loop, seen, self.reply(seen), deadline)
        finally:
            self.in_flight[device_id] -= 1

    async def _answer(
        self, loop: asyncio.AbstractEventLoop, seen: Seen, reply: Reply, deadline: float
    ) -> RawResponse:
        answered_s = None if reply.after_s is None else loop.time() + self.latency_s + reply.after_s
        timed_out = answered_s is None or answered_s > deadline
        told_s = deadline if answered_s is None or timed_out else answered_s
        if reply.apply_after_s is not None:
            # Whatever becomes of the caller: what was written is written.
            when_s = told_s + reply.apply_after_s
            if when_s > loop.time():
                loop.call_at(when_s, self.apply, seen)
            else:
                self.apply(seen)
        if told_s > loop.time():
            await asyncio.sleep(told_s - loop.time())
        if timed_out:
            raise ExchangeError("no answer", may_have_arrived=True, timed_out=True)
        if reply.status is None:
            raise ExchangeError("connection lost", may_have_arrived=True)
        return RawResponse(reply.status, list(reply.headers), reply.body)

    def apply(self, seen: Seen) -> None:
        self.newest[seen.device_id] = seen.pages
        if self.record:
            self.applied.append(seen)

    async def aclose(self) -> None:
        self.closed = True

    def stale_overwrites(self) -> int:
        """How often an older status was applied over a newer one."""
        newest: dict[str, int] = {}
        stale = 0
        for write in self.applied:
            stale += write.pages < newest.get(write.device_id, -1)
            newest[write.device_id] = write.pages
        return stale


def status(pages: int = 0, word: Any = "DS_PRINTING") -> DeviceStatusUpdate:
    return DeviceStatusUpdate(status=word, metrics=DeviceStatusUpdateMetrics(pages_total=pages))


def times_of(host: Host, device_id: str | None = None) -> list[float]:
    return [seen.at_s for seen in host.seen if device_id in {None, seen.device_id}]


def pages_of(host: Host, device_id: str) -> list[int]:
    return [seen.pages for seen in host.seen if seen.device_id == device_id]


@asynccontextmanager
async def client_of(host: Host, **settings: Any) -> AsyncIterator[PrintOSClient]:
    settings.setdefault("retry", RetryPolicy(base_delay_s=0.01, max_delay_s=2.0))
    async with client_over(host, **settings) as client:
        yield client
        assert client._channel.executor.limiter.in_flight == 0 or sum(host.in_flight.values()) > 0


def client_over(host: Host, **settings: Any) -> PrintOSClient:
    return ClientOver(channel_over(host, **settings))

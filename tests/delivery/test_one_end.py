"""Every call ends soon after ``aclose``, and every accepted status has one end event, whatever comes together."""

from __future__ import annotations

import asyncio
import os
import random
from typing import TYPE_CHECKING, Any

import pytest

from printos_async import (
    HmacAuth,
    MemoryOutbox,
    PusherClosedError,
    PusherFullError,
    SqlOutbox,
    StatusSent,
    StatusWithdrawn,
)
from tests.outbox.conftest import url_of

from .clock import fake_loop, run
from .ends import Ends
from .host import SILENT, Host, Reply, Seen, client_of, client_over, status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from printos_async import StatusPusher
    from printos_async.outbox import Outbox

SEEDS = range(20 if os.environ.get("PRINTOS_LONG_TESTS") else 3)
WITHIN_S = 3.0
_STEPS = 60


@pytest.fixture(params=["none", "memory", "sqlite", "postgresql"])
def make_outbox(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Outbox | None]:
    if request.param in {"none", "memory"}:
        return MemoryOutbox if request.param == "memory" else lambda: None
    url = url_of(request.param, request, tmp_path)
    return lambda: SqlOutbox(url)


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_is_done_at_random_every_call_and_every_status_ends(
    make_outbox: Callable[[], Outbox | None], seed: int
) -> None:
    chance = random.Random(seed)

    def reply(seen: Seen) -> Reply:
        after_s = chance.choice((0.0, 0.002, 0.02))
        kind = chance.random()
        if kind < 0.2:
            return Reply(status=chance.choice((None, 503, 429)), after_s=after_s, apply_after_s=None)
        return SILENT if kind < 0.22 else Reply(after_s=after_s)

    ends = Ends()
    host = Host(reply=reply)
    async with client_over(host, auth=HmacAuth("key", "secret"), hooks=[ends]) as client:
        settings: dict[str, Any] = chance.choice(
            (
                {},
                {"min_interval_s": 0.05},
                {"skip_unchanged": True},
                {"ambiguity_s": 0.05},
                {"deadline_s": 0.1},
            )
        )
        pusher = client.status_pusher(outbox=make_outbox(), max_pending_devices=6, **settings)
        calls = await _at_random(pusher, chance)
        closing = [asyncio.create_task(pusher.aclose()) for _ in range(2)]
        if chance.random() < 0.5:
            await asyncio.sleep(0)
            closing[0].cancel()
        done, pending = await asyncio.wait([*calls, *closing], timeout=WITHIN_S)
        assert not pending
        for call in done:
            error = None if call.cancelled() else call.exception()
            assert error is None or isinstance(error, (PusherClosedError, PusherFullError)), repr(error)
        ends.check(pusher.stats())
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def _at_random(pusher: StatusPusher, chance: random.Random) -> list[asyncio.Task[Any]]:
    calls: list[asyncio.Task[Any]] = []
    for number in range(_STEPS):
        device_id = f"dev-{chance.randrange(8)}"
        what = chance.choices(("put", "push", "cancel", "wait", "drain"), (4, 5, 2, 3, 0.05))[0]
        if what in {"put", "push"}:
            accept = pusher.put if what == "put" else pusher.push
            calls.append(asyncio.create_task(accept(device_id, status(number))))
        elif what == "cancel" and calls:
            _cancel(chance.choice(calls))
        elif what == "drain":
            calls.append(asyncio.create_task(pusher.drain(timeout_s=chance.choice((0.01, None)))))
        elif what == "wait":
            await asyncio.sleep(chance.choice((0.0, 0.0, 0.001, 0.01)))
    if chance.random() < 0.5:  # in the same turn of the loop in which the pusher is closed
        for call in calls[-5:]:
            _cancel(call)
    return calls


def _cancel(call: asyncio.Task[Any]) -> None:
    # Once: a second time would leave behind the connection that opening the outbox has made.
    if not call.cancelling():
        call.cancel()


@pytest.mark.parametrize("turns", range(8))
async def test_a_push_whose_commit_is_under_way_while_the_pusher_is_closed_ends(
    make_outbox: Callable[[], Outbox | None], turns: int
) -> None:
    ends = Ends()
    async with client_over(Host(reply=lambda _: SILENT), auth=HmacAuth("k", "s"), hooks=[ends]) as client:
        async with client.status_pusher(outbox=make_outbox()) as pusher:
            pushes = [asyncio.create_task(pusher.push(f"dev-{index}", status(index))) for index in range(100)]
            for _ in range(turns * turns):
                await asyncio.sleep(0)
            await pusher.aclose()
            _, waiting = await asyncio.wait(pushes, timeout=WITHIN_S)
            assert not waiting
            assert {type(push.exception()) for push in pushes} == {PusherClosedError}
        ends.check(pusher.stats())


async def test_a_drain_that_has_no_end_ends_when_the_pusher_is_closed(
    make_outbox: Callable[[], Outbox | None],
) -> None:
    async with client_over(Host(reply=lambda _: SILENT), auth=HmacAuth("k", "s")) as client:
        pusher = client.status_pusher(outbox=make_outbox(), max_pending_devices=1)
        await pusher.put("dev-1", status(1))
        draining = asyncio.create_task(pusher.drain())
        await asyncio.sleep(0)
        async with asyncio.timeout(WITHIN_S):
            await pusher.aclose()
            assert (await draining).pending == 1


@pytest.mark.parametrize("outbox", [None, MemoryOutbox])
def test_a_push_that_is_cancelled_while_the_pusher_is_closed_is_withdrawn_once_and_wakes_nothing_up(
    outbox: Callable[[], Outbox] | None,
) -> None:
    async def program() -> None:
        ends, host = Ends(), Host()
        async with client_of(host, hooks=[ends], auth=HmacAuth("k", "s")) as client:
            pusher = client.status_pusher(min_interval_s=60.0, outbox=outbox and outbox())
            await pusher.push("dev-1", status(1))
            waiting = asyncio.create_task(pusher.push("dev-1", status(2)))
            await fake_loop().settle()
            closing = asyncio.create_task(pusher.aclose())
            await asyncio.sleep(0)
            waiting.cancel()
            await closing
            await fake_loop().settle()
            assert waiting.cancelled()
            ends.check(pusher.stats())
            assert ends.kinds == {StatusSent: 1, StatusWithdrawn: 1}
            await asyncio.sleep(3600.0)
            assert host.count == 1
            assert len(fake_loop()._scheduled) == 0  # type: ignore[attr-defined]  # no timer either

    run(program())


@pytest.mark.parametrize("outbox", [None, MemoryOutbox])
def test_an_answer_that_comes_while_the_pusher_is_closed_is_the_only_end(
    outbox: Callable[[], Outbox] | None,
) -> None:
    outcomes = set()

    async def program(turns: int) -> None:
        ends = Ends()
        async with client_of(Host(latency_s=1.0), hooks=[ends], auth=HmacAuth("k", "s")) as client:
            pusher = client.status_pusher(outbox=outbox and outbox())
            pushing = asyncio.create_task(pusher.push("dev-1", status(1)))
            await fake_loop().settle()
            assert (await pusher.drain(timeout_s=0.5)).pending == 1
            await asyncio.sleep(0.5 - 1e-9)
            for _ in range(turns):
                await asyncio.sleep(1e-10)
            closing = asyncio.create_task(pusher.aclose())
            await asyncio.sleep(0)
            closing.cancel()
            await pusher.aclose()
            await asyncio.wait({pushing})
            outcomes.add("closed" if pushing.exception() else pushing.result().outcome)
            ends.check(pusher.stats())

    for turns in range(20):
        run(program(turns))
    assert outcomes == {"closed", "sent"}

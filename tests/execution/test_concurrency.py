from __future__ import annotations

import asyncio
import os
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from attrs import frozen

from printos_async import (
    APIError,
    ConcurrencyLimit,
    Event,
    HmacAuth,
    LimitChanged,
    PrintOSClient,
    RetryPolicy,
)
from printos_async._execution.concurrency import OVERDUE_S, Limiter
from printos_async.sandbox import Faults, Sandbox
from tests.conftest import KEY, SECRET, status
from tests.delivery.clock import run
from tests.delivery.host import OK as REPLIED
from tests.delivery.host import SILENT, UNAVAILABLE, Host, Reply, Seen
from tests.delivery.host import client_of as client_of_host

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.types import ASGIApp, Receive, Scope, Send

    from printos_async._execution.adaptive_limit import Reason

ONCE = RetryPolicy(max_attempts=1)
LONG = bool(os.environ.get("PRINTOS_LONG_TESTS"))
FLEET_S = 120 if LONG else 15
INSISTENT = RetryPolicy(max_attempts=200, base_delay_s=0.005, max_delay_s=0.1, budget=100_000)


class Driver:
    """Moves a limiter's limit the way attempts do, a round-trip of a second for each step."""

    def __init__(self, limiter: Limiter) -> None:
        self.limiter = limiter
        self.now_s = 0.0
        self.record(latency_s=0.5)

    def record(self, *, latency_s: float | None = None, overloaded: bool = False) -> None:
        self.now_s += 1.0
        self.limiter.record(
            started_s=self.now_s - 0.5, now_s=self.now_s, latency_s=latency_s, overloaded=overloaded
        )

    def shrink(self) -> None:
        self.record(overloaded=True)

    def grow(self) -> None:
        self.record(latency_s=0.5)


@frozen
class Permit:
    """A permit of a limiter, for ``async with``."""

    limiter: Limiter

    async def __aenter__(self) -> None:
        await self.limiter.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.limiter.release()


def limiter_of(initial: int, *, maximum: int = 1_000) -> Limiter:
    return Limiter(ConcurrencyLimit(minimum=1, maximum=maximum, initial=initial))


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Holders:
    """Tasks that take a permit and keep it until they are told."""

    def __init__(self, limiter: Limiter) -> None:
        self.limiter = limiter
        self.entered: list[int] = []
        self.gates: dict[int, asyncio.Event] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}

    async def start(self, *names: int) -> None:
        for name in names:
            self.gates[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._hold(name))
        await turns(1)

    async def let_go(self, *names: int) -> None:
        for name in names:
            self.gates[name].set()
            await self.tasks[name]
        await turns(1)

    async def end(self) -> None:
        for name, task in self.tasks.items():
            self.gates[name].set()
            await task

    async def _hold(self, name: int) -> None:
        async with Permit(self.limiter):
            self.entered.append(name)
            await self.gates[name].wait()


async def test_permits_go_out_in_the_order_of_asking() -> None:
    holders = Holders(limiter_of(2))
    await holders.start(*range(6))
    await holders.let_go(1, 0)
    assert holders.entered == [0, 1, 2, 3]
    await holders.start(6)
    await holders.let_go(2, 3, 4)
    assert holders.entered == list(range(7))
    await holders.end()
    assert holders.limiter.in_flight == 0


async def test_a_limit_that_shrinks_below_what_is_in_flight_holds_permits_back() -> None:
    limiter = limiter_of(10)
    driver, holders = Driver(limiter), Holders(limiter)
    await holders.start(*range(14))
    for _ in range(3):
        driver.shrink()
    assert (limiter.limit, limiter.in_flight) == (7, 10)
    await holders.let_go(0, 1, 2)
    assert (limiter.in_flight, len(holders.entered)) == (7, 10)
    await holders.let_go(3)
    assert (limiter.in_flight, holders.entered[10:]) == (7, [10])
    await holders.end()
    assert limiter.in_flight == 0
    assert sorted(holders.entered) == list(range(14))


async def test_a_limit_that_grows_wakes_those_who_wait() -> None:
    limiter = limiter_of(2)
    driver, holders = Driver(limiter), Holders(limiter)
    await holders.start(0, 1, 2, 3)
    driver.grow()
    await turns(1)
    assert (limiter.limit, limiter.in_flight, holders.entered) == (3, 3, [0, 1, 2])
    driver.shrink()
    driver.grow()
    await turns(1)
    # Below, at and above: whoever is in flight stays, and nobody more comes in.
    assert (limiter.limit, limiter.in_flight, holders.entered) == (3, 3, [0, 1, 2])
    await holders.end()
    assert limiter.in_flight == 0


async def test_growth_passes_over_one_who_has_just_been_cancelled() -> None:
    limiter = limiter_of(1)
    driver, holders = Driver(limiter), Holders(limiter)
    await holders.start(0, 1, 2)
    holders.tasks.pop(1).cancel()
    driver.grow()
    await turns(1)
    assert (limiter.limit, limiter.in_flight, holders.entered) == (2, 2, [0, 2])
    await holders.end()


async def test_growth_with_nobody_left_waiting_leaves_the_permit_free() -> None:
    limiter = limiter_of(1)
    driver, holders = Driver(limiter), Holders(limiter)
    await holders.start(0, 1)
    holders.tasks.pop(1).cancel()
    driver.grow()
    assert (limiter.limit, limiter.in_flight) == (2, 1)
    await holders.end()
    assert limiter.in_flight == 0


async def test_the_limit_never_grows_while_it_is_not_reached() -> None:
    limiter = limiter_of(3)
    driver, holders = Driver(limiter), Holders(limiter)
    await holders.start(0, 1)
    for _ in range(20):
        driver.grow()
    assert limiter.limit == 3
    await holders.start(2)
    driver.grow()
    assert limiter.limit == 4
    await holders.end()


async def test_every_change_is_told_with_its_reason_after_it_took_effect() -> None:
    seen: list[tuple[int, int, Reason]] = []

    def on_change(old: int, new: int, reason: Reason) -> None:
        assert limiter.limit == new
        seen.append((old, new, reason))

    limiter = Limiter(ConcurrencyLimit(maximum=100, initial=10), on_change=on_change)
    driver = Driver(limiter)
    async with Permit(limiter):
        driver.shrink()
        driver.record(latency_s=None)
    for _ in range(9):
        await limiter.acquire()
    driver.grow()
    await limiter.acquire()
    driver.record(latency_s=2.0)
    assert seen == [(10, 9, "overload"), (9, 10, "steady"), (10, 9, "latency")]


async def test_a_fixed_limit_does_not_move_whatever_comes() -> None:
    changes: list[int] = []
    limiter = Limiter(
        ConcurrencyLimit(minimum=5, maximum=5), on_change=lambda _, new, __: changes.append(new)
    )
    driver = Driver(limiter)
    for _ in range(10):
        driver.shrink()
        driver.grow()
    assert (limiter.limit, limiter.maximum, changes) == (5, 5, [])


def test_the_default_sends_a_print_shop_at_once_and_adapts() -> None:
    limit = ConcurrencyLimit()
    assert limit.minimum < 50 <= limit.initial < limit.maximum


# Cancellation


async def use(limiter: Limiter, hold_turns: int) -> None:
    async with Permit(limiter):
        await turns(hold_turns)


@pytest.mark.parametrize("again", [None, 0, 1, 2])
@pytest.mark.parametrize("after", range(8))
async def test_cancelling_at_any_moment_leaks_no_permit(after: int, again: int | None) -> None:
    for ahead in range(4):  # the one that is cancelled gets a permit at once, or waits behind so many
        limiter = limiter_of(1)
        before = [asyncio.create_task(use(limiter, 1)) for _ in range(ahead)]
        cancelled = asyncio.create_task(use(limiter, 2))
        behind = asyncio.create_task(use(limiter, 1))
        await turns(after)
        cancelled.cancel()
        if again is not None:
            await turns(again)
            cancelled.cancel()
        async with asyncio.timeout(5):
            await asyncio.gather(*before, behind)
            with suppress(asyncio.CancelledError):
                await cancelled
        assert limiter.in_flight == 0


async def test_a_permit_handed_over_in_the_moment_of_cancellation_is_not_lost() -> None:
    limiter = Limiter(ConcurrencyLimit(maximum=1))
    await limiter.acquire()
    waiters = [asyncio.create_task(use(limiter, 0)) for _ in range(3)]
    await asyncio.sleep(0)
    limiter.release()  # handed to the first
    waiters[0].cancel()  # in the same moment
    await asyncio.gather(*waiters, return_exceptions=True)
    assert limiter.in_flight == 0


async def test_a_waiting_coroutine_that_is_thrown_away_leaks_no_permit() -> None:
    limiter = limiter_of(1)
    await limiter.acquire()
    waiting, handed_over = use(limiter, 0), use(limiter, 0)
    for coroutine in (handed_over, waiting):
        coroutine.send(None)
    limiter.release()
    assert limiter.in_flight == 1
    waiting.close()
    handed_over.close()
    assert limiter.in_flight == 0
    async with Permit(limiter):
        assert limiter.in_flight == 1


async def test_those_who_give_up_while_nobody_lets_go_leave_nothing_behind() -> None:
    limiter = limiter_of(1)
    async with Permit(limiter):
        waiting = [asyncio.create_task(use(limiter, 0)) for _ in range(1_000)]
        await turns(1)
        assert len(limiter._waiters) == 1_000
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert not limiter._waiters
    assert limiter.in_flight == 0


@pytest.mark.parametrize("seed", range(4))
async def test_ten_thousand_random_cancellations_leak_no_permit(seed: int) -> None:
    draw = random.Random(seed)
    limiter = limiter_of(8, maximum=16)
    driver = Driver(limiter)
    inside = most_inside = waited = cancellations = 0
    tasks: list[asyncio.Task[None]] = []  # not a set: its order would differ from run to run

    async def work(hold_turns: int) -> None:
        nonlocal inside, most_inside, waited
        waited += limiter.in_flight >= limiter.limit
        async with Permit(limiter):
            inside += 1
            most_inside = max(most_inside, inside)
            try:
                await turns(hold_turns)
            finally:
                inside -= 1

    while cancellations < 2_500:
        tasks += [asyncio.create_task(work(draw.randrange(4))) for _ in range(draw.randrange(8))]
        for task in draw.sample(tasks, min(len(tasks), draw.randrange(6))):
            task.cancel()
            if draw.random() < 0.3:
                task.cancel()
            cancellations += 1
        if draw.random() < 0.5:
            draw.choice([driver.shrink, driver.grow])()
        await turns(draw.randrange(3))
        tasks = [task for task in tasks if not task.done()]
        assert inside <= limiter.in_flight <= limiter.maximum
        # Nobody waits beside a free permit.
        assert limiter.in_flight >= limiter.limit or not limiter._waiters
    async with asyncio.timeout(10):
        await asyncio.gather(*tasks, return_exceptions=True)
    assert (limiter.in_flight, inside, len(limiter._waiters)) == (0, 0, 0)
    assert most_inside > 4
    assert waited > 100


# Requests that hang


def learn(limiter: Limiter, usual_s: float) -> None:
    limiter.record(started_s=0.0, now_s=usual_s, latency_s=usual_s, overloaded=False)


async def send(limiter: Limiter, took_s: float) -> None:
    async with Permit(limiter):
        number = limiter.begin()
        try:
            await asyncio.sleep(took_s)
        finally:
            limiter.end(number)


def test_a_request_that_hangs_does_not_hold_the_only_permit() -> None:
    async def program() -> None:
        limiter = limiter_of(1)
        learn(limiter, 0.01)
        now_s = asyncio.get_running_loop().time
        began_s = now_s()
        hanging = asyncio.create_task(send(limiter, 10.0))
        await turns(1)
        for _ in range(100):
            await send(limiter, 0.01)
        assert (limiter.limit, limiter.in_flight, limiter.overdue) == (1, 0, 1)
        assert OVERDUE_S < now_s() - began_s - 100 * 0.01 < 2 * OVERDUE_S
        await hanging
        assert (limiter.limit, limiter.in_flight, limiter.overdue) == (1, 0, 0)

    run(program())


@pytest.mark.parametrize(
    ("usual_s", "from_s", "until_s"), [(0.01, 0.25, 0.4), (0.2, 2.0, 2.2), (None, 10.0, 10.1)]
)
def test_overdue_is_what_lasts_much_longer_than_usual(
    usual_s: float | None, from_s: float, until_s: float
) -> None:
    async def program() -> None:
        limiter = limiter_of(1)
        if usual_s is not None:
            learn(limiter, usual_s)
        now_s = asyncio.get_running_loop().time
        began_s = now_s()
        hanging = asyncio.create_task(send(limiter, 10.0))
        await turns(1)
        await send(limiter, 0.0)
        assert from_s <= now_s() - began_s < until_s
        await hanging

    run(program())


def test_a_server_that_answers_nobody_gets_few_requests_more_than_the_limit() -> None:
    async def program() -> None:
        limiter = limiter_of(1)
        learn(limiter, 0.01)
        sending = [asyncio.create_task(send(limiter, 10.0)) for _ in range(100)]
        await asyncio.sleep(9.9)
        assert (limiter.in_flight, limiter.overdue) == (1, 5)
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        assert (limiter.in_flight, limiter.overdue) == (0, 0)

    run(program())


def test_with_equal_bounds_a_request_that_hangs_keeps_its_permit() -> None:
    async def program() -> None:
        limiter = Limiter(ConcurrencyLimit(minimum=2, maximum=2))
        learn(limiter, 0.01)
        sending = [asyncio.create_task(send(limiter, 10.0)) for _ in range(5)]
        await asyncio.sleep(9.9)
        assert (limiter.in_flight, limiter.overdue) == (2, 0)
        await asyncio.gather(*sending)

    run(program())


@pytest.mark.parametrize("seed", range(4))
def test_with_requests_that_hang_there_are_never_more_than_the_maximum(seed: int) -> None:
    async def program() -> None:
        draw = random.Random(seed)
        limiter = limiter_of(4, maximum=8)
        driver = Driver(limiter)
        inside = most_inside = most_overdue = 0

        async def work(took_s: float) -> None:
            nonlocal inside
            async with Permit(limiter):
                inside += 1
                number = limiter.begin()
                try:
                    await asyncio.sleep(took_s)
                finally:
                    limiter.end(number)
                    inside -= 1

        tasks: list[asyncio.Task[None]] = []
        for _ in range(1_000):
            # Half a second, the driver's round-trip, is usual.
            took_s = 20.0 if draw.random() < 0.1 else draw.random()
            tasks.append(asyncio.create_task(work(took_s)))
            if draw.random() < 0.1:
                draw.choice(tasks).cancel()
            draw.choice([driver.shrink, driver.grow])()
            await asyncio.sleep(draw.choice([0.0, 0.01, 0.3]))
            tasks = [task for task in tasks if not task.done()]
            most_inside, most_overdue = max(most_inside, inside), max(most_overdue, limiter.overdue)
            assert inside <= limiter.in_flight + limiter.overdue <= limiter.maximum
            room = min(limiter.limit, limiter.maximum - limiter.overdue)
            assert limiter.in_flight >= room or not limiter._waiters
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (limiter.in_flight, limiter.overdue, inside, len(limiter._waiters)) == (0, 0, 0, 0)
        assert most_inside == limiter.maximum
        assert most_overdue > 2

    run(program())


def refusing(seed: int) -> Callable[[Seen], Reply]:
    """Refuse two requests in five, and leave one in fifty without an answer."""
    draw = random.Random(seed)

    def reply(_: Seen) -> Reply:
        drawn = draw.random()
        return SILENT if drawn < 0.02 else UNAVAILABLE if drawn < 0.42 else REPLIED

    return reply


@pytest.mark.parametrize("seed", range(10 if LONG else 2))
def test_a_fleet_gets_through_where_many_are_refused_and_some_hang(seed: int) -> None:
    async def program() -> None:
        host = Host(refusing(seed), latency_s=0.001)
        # So many retries that no budget is what limits the rate.
        retry = RetryPolicy(budget=1_000_000)
        async with client_of_host(host, retry=retry) as client, client.status_pusher() as pusher:
            for second in range(FLEET_S):
                for number in range(500):
                    await pusher.put(f"dev-{number}", status(second))
                await asyncio.sleep(1.0)
                if second == 2:
                    sent_before = pusher.stats().sent
            assert (pusher.stats().sent - sent_before) / (FLEET_S - 3) >= 30

    run(program())


def test_a_batch_goes_on_behind_as_many_hanging_requests_as_the_limit() -> None:
    async def program() -> None:
        hangs = {f"dev-{number}" for number in (20, 21)}
        host = Host(lambda seen: SILENT if seen.device_id in hangs else REPLIED, latency_s=0.001)
        async with client_of_host(host, retry=ONCE, limit=ConcurrencyLimit(initial=2, maximum=4)) as client:
            done_s: dict[str, float] = {}
            now_s = asyncio.get_running_loop().time
            began_s = now_s()
            await client.push_statuses(
                ((f"dev-{number}", status()) for number in range(50)),
                on_result=lambda result: done_s.update({result.device_id: now_s() - began_s}),
            )
            assert max(done_s[device] for device in done_s if device not in hangs) < 2.0
            assert min(done_s[device] for device in hangs) >= 10.0

    run(program())


# What a client tells its limiter


def client_of(
    answer: Callable[[httpx.Request], httpx.Response], limit: ConcurrencyLimit | None = None
) -> PrintOSClient:
    transport = httpx.MockTransport(answer)
    return PrintOSClient("https://p.test", auth=None, transport=transport, retry=ONCE, limit=limit)


@pytest.mark.parametrize(
    ("answer", "limit"),
    [
        (429, 57),
        (503, 57),
        (504, 57),
        (httpx.ReadTimeout, 57),
        (httpx.ConnectTimeout, 57),
        (400, 64),
        (404, 64),
        (409, 64),
        (500, 64),
        (502, 64),
        (httpx.ConnectError, 64),
        (httpx.ReadError, 64),
    ],
)
async def test_overload_lowers_the_limit_and_other_failures_do_not(
    answer: int | type[httpx.RequestError], limit: int
) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, int):
            return httpx.Response(answer)
        raise answer("out of order", request=request)

    async with client_of(fail) as client:
        with pytest.raises(APIError):
            await client.update_device_status("dev-1", status())
        assert client._channel.executor.limiter.limit == limit
        assert client._channel.executor.limiter.in_flight == 0


async def test_only_the_time_of_a_success_that_depends_on_load_counts_as_latency() -> None:
    told: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if "lost" in request.url.path:
            return httpx.Response(404)
        return httpx.Response(200, json={"devices": []})

    async with client_of(answer) as client:
        limiter = client._channel.executor.limiter
        limiter.record = lambda **signal: told.append(signal)  # type: ignore[method-assign]
        await client.update_device_status("dev-1", status())
        await client.list_devices()
        with pytest.raises(APIError):
            await client.update_device_status("lost", status())
    update, listing, lost = told
    assert update["latency_s"] == update["now_s"] - update["started_s"] > 0
    assert listing["latency_s"] is None
    assert lost["latency_s"] is None
    assert not any(signal["overloaded"] for signal in told)


# Over a real socket


class Gateway:
    """Answers 429 to whatever would be more than ``most`` requests at once."""

    def __init__(self, app: ASGIApp, most: int, refused: list[int]) -> None:
        self.app = app
        self.most = most
        self.refused = refused
        self.inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self.inside >= self.most:
            self.refused.append(self.inside)
            while (await receive()).get("more_body"):
                pass
            await send({"type": "http.response.start", "status": 429, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return
        self.inside += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.inside -= 1


async def push_through_gateway(limit: ConcurrencyLimit) -> tuple[Limiter, int, int]:
    """Push in two halves through a gateway that takes 8 at once; give what each half had refused."""
    refused: list[int] = []
    sandbox = Sandbox(faults=Faults(latency_s=0.004))
    sandbox.app.add_middleware(Gateway, most=8, refused=refused)
    for number in range(400):
        sandbox.add_device(f"dev-{number}")
    async with (
        sandbox,
        PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), retry=INSISTENT, limit=limit) as client,
    ):
        halves = []
        for half in range(2):
            refused_before = len(refused)
            report = await client.push_statuses({f"dev-{n}": status(half) for n in range(400)})
            assert report.sent == 400
            halves.append(len(refused) - refused_before)
        assert sandbox.applied_count == 800
        assert client._channel.executor.limiter.in_flight == 0
        return client._channel.executor.limiter, halves[0], halves[1]


async def test_the_limit_settles_near_what_a_gateway_lets_through() -> None:
    limiter, refused_first, refused_then = await push_through_gateway(ConcurrencyLimit(initial=64))
    assert refused_first > 0
    assert refused_then < refused_first
    assert 1 <= limiter.limit <= 24


async def test_a_fixed_limit_stays_although_a_gateway_refuses() -> None:
    limit = ConcurrencyLimit(minimum=24, maximum=24)
    limiter, refused_first, refused_then = await push_through_gateway(limit)
    assert refused_first > 0
    assert refused_then > 0
    assert limiter.limit == 24


async def test_the_limit_grows_with_demand_on_a_server_that_keeps_up(sandbox: Sandbox) -> None:
    sandbox.set_faults(Faults(latency_s=0.004))
    limits: list[int] = []

    def watch(event: Event) -> None:
        if isinstance(event, LimitChanged):
            limits.append(event.new)

    limit = ConcurrencyLimit(initial=2, maximum=32)
    async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), limit=limit, hooks=[watch]) as client:
        calls: list[Coroutine[Any, Any, None]] = [
            client.update_device_status(f"dev-{n % 10}", status(n)) for n in range(1_000)
        ]
        await asyncio.gather(*calls)
    assert max(limits) > 2
    assert max(limits) >= sandbox.max_concurrency > 2

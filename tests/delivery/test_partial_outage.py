"""Hosts that refuse for a while, or fail at random: how many requests a fleet makes, and how soon it is served."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter, defaultdict
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest

from printos_async import (
    AttemptFinished,
    CircuitChanged,
    ConcurrencyLimit,
    MemoryOutbox,
    PusherStats,
    RetryPolicy,
)

from .clock import fake_loop, run
from .host import OK, SILENT, UNAVAILABLE, Host, Reply, Seen, client_of, status, times_of

if TYPE_CHECKING:
    from printos_async import Event

# PRINTOS_LONG_TESTS=1 plays more seeds and larger fleets.
LONG = bool(os.environ.get("PRINTOS_LONG_TESTS"))
SEEDS = range(20) if LONG else range(2)
DEVICES = 500
LATENCY_S = 0.02
FAULT = Reply(status=500, apply_after_s=None)
REFUSALS = {
    "429": Reply(status=429, apply_after_s=None),
    "408": Reply(status=408, apply_after_s=None),
    "503": UNAVAILABLE,
    "Retry-After 0": Reply(status=429, headers=(("retry-after", "0"),), apply_after_s=None),
    "Retry-After 1": Reply(status=503, headers=(("retry-after", "1"),), apply_after_s=None),
    "HTML": Reply(body=b"<html>maintenance</html>", apply_after_s=None),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("puts", ["each second", "once"])
def test_a_fleet_is_at_its_newest_within_seconds_of_the_last_refusal(refusal: Reply, puts: str) -> None:
    async def program() -> None:
        random.seed(1)
        loop = fake_loop()
        started_s = loop.time()
        refused = started_s + 1.0, started_s + 21.0
        host = Host(reply=lambda seen: refusal if refused[0] <= seen.at_s < refused[1] else OK)
        host.latency_s = LATENCY_S
        async with client_of(host, retry=RetryPolicy()) as client:
            pusher = client.status_pusher()
            for second in range(26):
                if puts == "each second" or second == 2:
                    newest = second
                    for device in range(DEVICES):
                        await pusher.put(f"dev-{device}", status(second))
                await asyncio.sleep(1.0)
            await asyncio.sleep(2.0)
            assert len(host.newest) == DEVICES
            assert set(host.newest.values()) == {newest}
            assert (pusher.stats().failed, pusher.stats().circuit) == (0, "closed")
            await pusher.aclose()
        # The first ones, and a probe or a handful a second.
        during = sum(refused[0] <= seen.at_s < refused[1] for seen in host.seen)
        assert during <= DEVICES + 250

    run(program())


class RandomFailures:
    """A fleet that pushes into a host that fails a share of its requests."""

    def __init__(self, share: float, *, failure: Reply = FAULT, hangs: float = 0.0, seed: int = 0) -> None:
        self._share = share
        self._failure = failure
        self._hangs = hangs
        self._seed = seed
        self.opened = 0
        self.open_s = 0.0
        self.spans_s: list[float] = []
        self.requests = 0
        self._opened_s: float | None = None
        self._started_s: dict[str | None, float] = {}

    async def play(
        self, *, devices: int, window_s: float, put_each_s: float | None = None, **settings: Any
    ) -> PusherStats:
        draws, loop = random.Random(self._seed), fake_loop()
        random.seed(self._seed)

        def reply(_: Seen) -> Reply:
            draw = draws.random()
            if draw < self._share:
                return self._failure
            return SILENT if draw < self._share + self._hangs else OK

        host = Host(reply=reply, latency_s=LATENCY_S, record=False)
        settings.setdefault("retry", RetryPolicy())
        async with client_of(host, hooks=[self._watch], **settings) as client:
            pusher = client.status_pusher()
            ends_s = loop.time() + window_s
            number = 0
            while loop.time() < ends_s:
                for device in range(devices):
                    await pusher.put(f"dev-{device}", status(number))
                await asyncio.sleep(window_s if put_each_s is None else put_each_s)
                number += 1
            stats = pusher.stats()
            await pusher.aclose()
        if self._opened_s is not None:
            self.open_s += loop.time() - self._opened_s
        self.requests = host.count
        return stats

    def _watch(self, event: Event) -> None:
        now_s = fake_loop().time()
        match event:
            case CircuitChanged(circuit="open"):
                self.opened, self._opened_s = self.opened + 1, now_s
            case CircuitChanged() if self._opened_s is not None:
                self.open_s, self._opened_s = self.open_s + now_s - self._opened_s, None
            case AttemptFinished(device_id=device_id, attempt=1):
                self._started_s[device_id] = now_s
            case AttemptFinished(device_id=device_id, attempt=5):
                self.spans_s.append(now_s - self._started_s[device_id])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_host_that_fails_85_percent_gets_few_requests_for_each_status(seed: int) -> None:
    failures = RandomFailures(0.85, seed=seed)
    stats = run(failures.play(devices=2_000, window_s=600.0))
    assert failures.requests <= 2.2 * stats.accepted
    assert median(failures.spans_s) >= 3.0
    assert failures.opened <= 60
    assert stats.failed <= 200
    # The retry budget alone lets 1.67 retries go each second, of which 15 % succeed.
    assert stats.sent >= 450


@pytest.mark.parametrize("seed", SEEDS)
def test_newer_statuses_need_no_retry_token_from_a_host_that_fails_85_percent(seed: int) -> None:
    failures = RandomFailures(0.85, seed=seed)
    stats = run(failures.play(devices=DEVICES, window_s=10.0, put_each_s=1.0))
    assert failures.requests <= 2.2 * stats.accepted
    assert stats.sent >= 0.1 * stats.accepted
    assert failures.open_s < 5.0


@pytest.mark.parametrize("seed", SEEDS)
def test_five_attempts_take_their_backoff_however_many_tokens_there_are(seed: int) -> None:
    failures = RandomFailures(0.85, seed=seed)
    run(failures.play(devices=2_000, window_s=20.0, retry=RetryPolicy(budget=100_000)))
    assert len(failures.spans_s) > 500
    assert median(failures.spans_s) >= 3.0
    assert failures.opened <= 1


@pytest.mark.parametrize(("share", "given_up"), [(0.1, 0), (0.5, 94)], ids=["10 %", "50 %"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_host_that_fails_now_and_then_costs_no_more_statuses_than_the_attempts_say(
    share: float, given_up: int, seed: int
) -> None:
    failures = RandomFailures(share, seed=seed)
    stats = run(failures.play(devices=2_000, window_s=600.0))
    # 2,000 times share ** 5 are 0.02 and 62, with a standard deviation of 8.
    assert stats.failed <= given_up
    assert stats.pending == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_hangs_at_a_small_limit_do_not_open_the_circuit_for_long(seed: int) -> None:
    failures = RandomFailures(0.4, failure=UNAVAILABLE, hangs=0.02, seed=seed)
    limit = ConcurrencyLimit(minimum=1, maximum=4, initial=4)
    run(failures.play(devices=2_000, window_s=120.0, limit=limit))
    assert failures.open_s < 12.0


def test_a_status_that_fails_by_itself_keeps_its_backoff_and_its_end_beside_an_outage() -> None:
    """One device is refused always; the others go through an outage that opens and closes the circuit."""

    async def program() -> None:
        random.seed(1)
        is_down = False

        def reply(seen: Seen) -> Reply:
            return FAULT if is_down or seen.device_id == "dev-0" else OK

        host = Host(reply=reply, latency_s=LATENCY_S)
        async with client_of(host, retry=RetryPolicy(base_delay_s=2.0)) as client:
            pusher = client.status_pusher()
            await pusher.put("dev-0", status(0))
            for number in range(40):
                is_down = 5 <= number < 10
                for device in range(1, 50):
                    await pusher.put(f"dev-{device}", status(number))
                await asyncio.sleep(1.0)
            stats = pusher.stats()
            assert stats.failed == 1
            await pusher.aclose()
        alone = [seen.at_s for seen in host.seen if seen.device_id == "dev-0"]
        assert len(alone) >= 5
        assert alone[-1] - alone[0] >= 8.0
        assert {pages for device, pages in host.newest.items() if device != "dev-0"} == {39}

    run(program())


def test_attempts_that_fail_with_the_whole_host_do_not_count() -> None:
    async def program() -> None:
        random.seed(1)
        is_down = False
        own = Counter(f"dev-{device:02}" for device in range(10))

        def reply(seen: Seen) -> Reply:
            if is_down or own[seen.device_id]:
                own[seen.device_id] -= not is_down
                return FAULT
            return OK

        host = Host(reply=reply, latency_s=LATENCY_S)
        async with client_of(host, retry=RetryPolicy(base_delay_s=0.01, max_attempts=4)) as client:
            pusher = client.status_pusher()
            for device in range(100):
                await pusher.put(f"dev-{device:02}", status(1))
            await asyncio.sleep(LATENCY_S / 2)
            is_down = True
            await asyncio.sleep(100.0)
            is_down = False
            for device in range(10):  # and once more by itself, beside the successes of the others
                own[f"dev-{device:02}"] = 1
            await asyncio.sleep(30.0)
            assert not +own
            assert (pusher.stats().sent, pusher.stats().failed) == (100, 0)
            await pusher.aclose()

    run(program())


def test_attempts_that_failed_with_the_whole_host_do_not_count_for_the_next_pusher_either() -> None:
    async def program() -> None:
        random.seed(1)
        outbox = MemoryOutbox()
        retry = RetryPolicy(base_delay_s=0.1, max_attempts=4)
        down = Host(reply=lambda _: UNAVAILABLE)
        async with (
            client_of(down, retry=retry) as client,
            client.status_pusher(outbox=outbox, drain_timeout_s=60.0) as pusher,
        ):
            await pusher.put("dev-1", status(1))
        assert down.count > 20
        host = Host(reply=lambda seen: UNAVAILABLE if seen.device_id == "dev-1" else OK)
        async with (
            client_of(host, retry=retry) as client,
            client.status_pusher(outbox=outbox) as pusher,
        ):
            while not pusher.stats().failed:
                await pusher.push("dev-2", status(1))
                await asyncio.sleep(0.01)
        assert (
            len(times_of(host, "dev-1")) == 3
        )  # the first request of all counts: it may have been the status

    run(program())


def test_a_page_of_something_between_is_no_dead_letter_even_beside_successes() -> None:
    async def program() -> None:
        random.seed(1)
        until_s = fake_loop().time() + 60.0
        seen_by: dict[str, int] = defaultdict(int)

        def reply(seen: Seen) -> Reply:
            seen_by[seen.device_id] += 1
            return REFUSALS["HTML"] if seen.device_id == "dev-0" and seen.at_s < until_s else OK

        host = Host(reply=reply, latency_s=LATENCY_S)
        async with client_of(host, retry=RetryPolicy(max_attempts=2)) as client:
            pusher = client.status_pusher()
            for second in range(61):
                await pusher.put("dev-0" if not second else "dev-1", status(second))
                await asyncio.sleep(1.0)
            await asyncio.sleep(60.0)
            stats = pusher.stats()
            assert (stats.failed, stats.pending) == (0, 0)
            await pusher.aclose()
        assert 3 <= seen_by["dev-0"] <= 20

    run(program())

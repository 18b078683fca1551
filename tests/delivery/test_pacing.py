"""Minimum intervals, unchanged statuses and deadlines, on a clock that jumps."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from printos_async import RequestTimeoutError, RetryPolicy, ServerError

from .clock import fake_loop, run
from .host import DOWN, OK, SILENT, UNAVAILABLE, Host, Reply, client_of, pages_of, status, times_of


def test_what_comes_within_the_minimum_interval_is_coalesced() -> None:
    async def program() -> None:
        host = Host(latency_s=0.5)
        async with client_of(host) as client, client.status_pusher(min_interval_s=60.0) as pusher:
            for number in range(600):
                await pusher.put("dev-1", status(number))
                await asyncio.sleep(1.0)
            stats = await pusher.drain()
        times_s = times_of(host)
        assert len(times_s) == 11
        assert [later_s - earlier_s for earlier_s, later_s in pairwise(times_s)] == pytest.approx([60.0] * 10)
        assert pages_of(host, "dev-1")[-1] == 599
        assert (stats.sent, stats.superseded, stats.failed) == (11, 589, 0)

    run(program())


@pytest.mark.parametrize("when_lost", ["after", "in flight"])
def test_an_unchanged_status_is_sent_again_after_a_lost_lease(when_lost: str) -> None:
    async def program() -> None:
        host = Host(latency_s=1.0)
        async with client_of(host) as client, client.status_pusher(skip_unchanged=True) as pusher:
            pushed = asyncio.create_task(pusher.push("dev-1", status(1)))
            await asyncio.sleep(0.5 if when_lost == "in flight" else 1.5)
            assert pusher._engine.drop() == []  # as a lost lease does: another worker may send something else
            assert (await pushed).outcome == "sent"
            results = [await pusher.push("dev-1", status(1)) for _ in range(2)]
            assert [result.attempts for result in results] == [1, 0]
        assert pages_of(host, "dev-1") == [1, 1]

    run(program())


@pytest.mark.parametrize("refusal", [404, 400, 500], ids=str)  # 401 holds the account: test_held_accounts.py
def test_what_is_refused_keeps_the_interval_like_what_is_sent(refusal: int) -> None:
    async def program() -> None:
        host = Host(reply=lambda _: Reply(status=refusal, apply_after_s=None), latency_s=0.1)
        retry = RetryPolicy(budget=0)  # the first answer is the last
        async with (
            client_of(host, retry=retry) as client,
            client.status_pusher(min_interval_s=2.0) as pusher,
        ):
            for number in range(30):
                await pusher.put("dev-1", status(number))
                await asyncio.sleep(0.1)
            await pusher.drain()
        times_s = times_of(host)
        assert [later_s - earlier_s for earlier_s, later_s in pairwise(times_s)] == pytest.approx([2.0, 2.0])

    run(program())


def test_the_first_status_of_a_device_waits_for_no_interval_nor_does_any_other_device() -> None:
    async def program() -> None:
        host = Host()
        async with client_of(host) as client, client.status_pusher(min_interval_s=60.0) as pusher:
            for device in range(100):
                assert (await pusher.push(f"dev-{device}", status(device))).latency_s < 0.001
            await asyncio.sleep(60.0)
            assert (await pusher.push("dev-1", status(1))).latency_s < 0.001

    run(program())


def test_a_device_that_waits_for_its_interval_is_forgotten_afterwards() -> None:
    async def program() -> None:
        async with client_of(Host()) as client, client.status_pusher(min_interval_s=60.0) as pusher:
            await pusher.push("dev-1", status(1))
            assert pusher.stats().active_devices == 0
            await asyncio.sleep(61.0)
            assert not pusher._engine._devices

    run(program())


def test_a_status_equal_to_the_last_one_sent_is_not_sent_until_that_is_too_old() -> None:
    async def program() -> None:
        host = Host(latency_s=0.01)
        async with (
            client_of(host) as client,
            client.status_pusher(skip_unchanged=True, unchanged_max_age_s=3_600.0) as pusher,
        ):
            first = await pusher.push("dev-1", status(1))
            again = await pusher.push("dev-1", status(1))
            assert (first.outcome, first.attempts) == ("sent", 1)
            assert (again.outcome, again.attempts) == ("sent", 0)
            for _ in range(7_300):
                await asyncio.sleep(1.0)
                await pusher.put("dev-1", status(1))
            await fake_loop().settle()
            assert len(host.seen) == 3  # at the start, after one hour, after two
            await pusher.push("dev-1", status(2))
            await pusher.push("dev-1", status(1))
            await pusher.push("dev-2", status(1))
            stats = await pusher.drain()
        assert pages_of(host, "dev-1") == [1, 1, 1, 2, 1]
        assert stats.sent == stats.accepted == 7_305

    run(program())


def test_equal_statuses_are_sent_unless_asked_otherwise() -> None:
    async def program() -> None:
        host = Host()
        async with client_of(host) as client, client.status_pusher() as pusher:
            for _ in range(3):
                await pusher.push("dev-1", status(1))
        assert host.count == 3

    run(program())


def test_a_status_back_to_the_one_sent_cancels_what_waited_between() -> None:
    async def program() -> None:
        host = Host()
        async with (
            client_of(host) as client,
            client.status_pusher(skip_unchanged=True, min_interval_s=60.0) as pusher,
        ):
            await pusher.push("dev-1", status(1))
            await pusher.put("dev-1", status(2))
            await pusher.put("dev-1", status(1))
            stats = await pusher.drain()
        assert pages_of(host, "dev-1") == [1]
        assert (stats.sent, stats.superseded) == (2, 1)

    run(program())


@pytest.mark.parametrize(("reply", "cause"), [(UNAVAILABLE, ServerError), (SILENT, RequestTimeoutError)])
def test_what_cannot_be_delivered_in_time_fails_with_the_last_cause(
    reply: Reply, cause: type[Exception]
) -> None:
    async def program() -> None:
        host = Host(reply=lambda _: reply)
        async with (
            client_of(host, timeout_s=2.0, retry=RetryPolicy(base_delay_s=0.5, max_attempts=100)) as client,
            client.status_pusher(deadline_s=10.0) as pusher,
        ):
            started_s = fake_loop().time()
            result = await pusher.push("dev-1", status(1))
            took_s = fake_loop().time() - started_s
            stats = await pusher.drain()
        assert result.outcome == "failed"
        assert isinstance(result.error, cause)
        assert result.error.attempts == result.attempts >= 2  # type: ignore[attr-defined]
        assert 10.0 - 0.001 <= took_s <= 10.0 + 2.0  # an attempt in flight ends by itself
        assert (stats.failed, stats.pending) == (1, 0)

    run(program())


def test_a_deadline_is_that_of_each_status_and_not_of_the_first() -> None:
    async def program() -> None:
        is_down = True
        host = Host(reply=lambda _: DOWN if is_down else OK)
        async with client_of(host) as client, client.status_pusher(deadline_s=10.0) as pusher:
            await pusher.put("dev-1", status(1))
            await asyncio.sleep(6.0)
            await pusher.put("dev-1", status(2))
            await asyncio.sleep(6.0)
            is_down = False
            stats = await pusher.drain()
        assert (stats.sent, stats.superseded, stats.failed) == (1, 1, 0)

    run(program())


def test_a_status_that_never_got_its_turn_fails_as_too_late() -> None:
    async def program() -> None:
        async with (
            client_of(Host()) as client,
            client.status_pusher(min_interval_s=60.0, deadline_s=10.0) as pusher,
        ):
            await pusher.push("dev-1", status(1))
            started_s = fake_loop().time()
            result = await pusher.push("dev-1", status(2))
            assert fake_loop().time() - started_s == pytest.approx(10.0)
            assert (result.outcome, result.attempts) == ("failed", 0)
            assert isinstance(result.error, RequestTimeoutError)
            assert not result.error.may_have_arrived
            await asyncio.sleep(60.0)
            assert (await pusher.push("dev-1", status(3))).outcome == "sent"

    run(program())


def test_a_late_status_does_not_inherit_the_cause_of_an_earlier_one() -> None:
    async def program() -> None:
        host = Host(reply=lambda _: UNAVAILABLE if host.count <= 2 else OK)
        async with (
            client_of(host, retry=RetryPolicy(base_delay_s=0.001, max_delay_s=100.0, budget=1)) as client,
            client.status_pusher(min_interval_s=60.0, deadline_s=10.0) as pusher,
        ):
            first = await pusher.push("dev-1", status(1))
            assert isinstance(first.error, ServerError)
            await asyncio.sleep(100.0)
            await pusher.push("dev-1", status(2))
            third = await pusher.push("dev-1", status(3))
            assert isinstance(third.error, RequestTimeoutError)

    run(program())


def test_deadlines_hold_while_the_host_asks_for_a_long_pause() -> None:
    async def program() -> None:
        pause = Reply(status=429, headers=(("retry-after", "3600"),), apply_after_s=None)
        host = Host(reply=lambda _: pause if host.count == 1 else OK)
        async with client_of(host) as client, client.status_pusher(deadline_s=10.0) as pusher:
            for device in range(100):
                await pusher.put(f"dev-{device}", status(device))
            await asyncio.sleep(10.1)
            stats = pusher.stats()
            # Those that went out in the same moment as the first one were answered.
            assert (stats.pending, stats.sent + stats.failed) == (0, 100)
            assert stats.failed >= 100 - stats.limit
            await pusher.put("dev-1", status(1))
            await asyncio.sleep(3_590.0)
            assert pusher.stats().failed == stats.failed + 1
            assert (await pusher.push("dev-1", status(2))).outcome == "sent"

    run(program())


@pytest.mark.parametrize("older", ["failed", "superseded", "withdrawn"])
def test_a_result_has_no_error_of_an_older_status(older: str) -> None:
    async def program() -> None:
        reply = UNAVAILABLE
        host = Host(reply=lambda _: reply)
        async with (
            client_of(host) as client,
            client.status_pusher(deadline_s=5.0, min_interval_s=1e-3, drain_timeout_s=0.0) as pusher,
        ):
            first = asyncio.create_task(pusher.push("dev-1", status(1)))
            await asyncio.sleep(0.2)
            reply = Reply(status=429, headers=(("retry-after", "600"),), apply_after_s=None)
            if older == "failed":
                await first
            await pusher.put("dev-2", status(1))  # nothing more is sent
            await asyncio.sleep(1.0)
            if older == "withdrawn":
                first.cancel()
                await fake_loop().settle()
            requests = host.count
            result = await pusher.push("dev-1", status(2))
            assert host.count == requests
            assert (result.outcome, result.attempts) == ("failed", 0)
            assert isinstance(result.error, RequestTimeoutError)
            assert (result.error.attempts, result.error.may_have_arrived) == (0, False)
            await asyncio.wait([first])

    run(program())


def test_unchanged_statuses_take_no_turns_of_the_rate_cap() -> None:
    async def program() -> None:
        host = Host()
        async with (
            client_of(host, max_rate_per_s=10) as client,
            client.status_pusher(skip_unchanged=True) as pusher,
        ):
            for number in range(2):
                for device in range(100):
                    await pusher.put(f"dev-{device}", status(1))
                result = await pusher.push("changed", status(number))
            assert result.latency_s < 0.2
        assert host.count == 102

    run(program())

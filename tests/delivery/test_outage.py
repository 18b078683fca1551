"""What a host that is down, or asks for a pause, gets to see of a fleet, and how soon it is served again."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from email.utils import formatdate
from itertools import pairwise

import pytest

from printos_async import (
    CircuitChanged,
    ConcurrencyLimit,
    RateLimitError,
    RetryAfterCapped,
    RetryPolicy,
    ServerError,
)

from .clock import fake_loop, run
from .host import DOWN, OK, SILENT, UNAVAILABLE, Host, Reply, Seen, client_of, pages_of, status, times_of

MIB = 1024 * 1024
LOST = Reply(status=500, apply_after_s=None)
HOUR_S = 3_600.0
YEAR_S = 365 * 86_400.0


async def outage(failure: Reply, *, devices: int, timeout_s: float = 10.0) -> int:
    """Play an outage of a minute, judge it, and give the bytes by which memory grew in it."""
    loop = fake_loop()
    is_down = False
    host = Host(reply=lambda _: failure if is_down else OK, latency_s=0.02)
    changes: list[tuple[float, str]] = []

    def watch(event: object) -> None:
        if isinstance(event, CircuitChanged):
            changes.append((loop.time(), event.circuit))

    async with client_of(host, retry=RetryPolicy(), hooks=[watch], timeout_s=timeout_s) as client:
        pusher = client.status_pusher()
        for device in range(devices):
            await pusher.put(f"dev-{device}", status(0))
        await asyncio.sleep(3.0)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        is_down, down_s = True, loop.time()
        for second in range(3, 61, 3):
            for device in range(devices):
                await pusher.put(f"dev-{device}", status(second))
            await asyncio.sleep(3.0)
        grown = tracemalloc.get_traced_memory()[0] - before
        is_down, up_s = False, loop.time()
        await asyncio.sleep(5.0)
        assert len(host.newest) == devices
        assert set(host.newest.values()) == {60}
        assert (pusher.stats().circuit, pusher.stats().failed) == ("closed", 0)
        await pusher.aclose()

    [(opened_s, opened), (_, closed)] = changes
    assert (opened, closed) == ("open", "closed")
    assert opened_s <= down_s + 5 * timeout_s + 5.0  # a single device needs five requests that fail
    # Those that were in flight when it opened went before.
    probes = [at_s for at_s in times_of(host) if opened_s < at_s < up_s]
    assert probes
    assert all(later_s - earlier_s >= 0.999 for earlier_s, later_s in pairwise(probes))
    assert max(host.max_in_flight.values()) == 1
    return grown


def test_an_outage_of_a_minute_gets_a_probe_a_second_and_is_over_within_five() -> None:
    tracemalloc.start()
    try:
        grown = run(outage(DOWN, devices=1_000))
    finally:
        tracemalloc.stop()
    assert grown < 20 * MIB


@pytest.mark.parametrize("failure", [UNAVAILABLE, LOST, SILENT], ids=["503", "500", "silent"])
@pytest.mark.parametrize("devices", [1, 50])
def test_every_kind_of_outage_is_over_within_five_seconds(failure: Reply, devices: int) -> None:
    # A device whose probe hangs waits for its end, for two requests of one device are never in flight.
    run(outage(failure, devices=devices, timeout_s=4.0))


def test_probes_that_waited_for_a_permit_do_not_go_all_at_once() -> None:
    async def program() -> None:
        slow = Reply(status=500, after_s=10.0, apply_after_s=None)
        host = Host(reply=lambda seen: slow if seen.device_id == "slow" else UNAVAILABLE)
        async with (
            client_of(
                host,
                retry=RetryPolicy(max_attempts=1),
                limit=ConcurrencyLimit(minimum=3, maximum=3),
                timeout_s=20.0,
            ) as client,
            client.status_pusher(drain_timeout_s=0.0) as pusher,
        ):
            for device in range(5):
                await pusher.put(f"dev-{device}", status(device))
            await asyncio.sleep(5.0)
            assert pusher.stats().circuit == "open"
            calls = [client.update_device_status("slow", status(0)) for _ in range(3)]  # all permits
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(answer) for answer in answers] == [ServerError] * 3
            over_s = fake_loop().time()
            await asyncio.sleep(5.0)
            probes = [at_s for at_s in times_of(host) if at_s >= over_s - 0.001]
            assert 5 <= len(probes) <= 6
            assert all(later_s - earlier_s >= 0.999 for earlier_s, later_s in pairwise(probes))

    run(program())


def test_probes_that_hang_leave_the_concurrency_limit_as_it_was() -> None:
    async def program() -> None:
        is_down = True
        host = Host(reply=lambda _: SILENT if is_down else OK, latency_s=0.02)
        async with client_of(host, timeout_s=10.0) as client:
            pusher = client.status_pusher()
            for device in range(1_000):
                await pusher.put(f"dev-{device}", status(device))
            await asyncio.sleep(60.0)
            assert pusher.stats().circuit == "open"
            assert pusher.stats().in_flight == 10
            assert pusher.stats().limit >= 50
            is_down = False
            await asyncio.sleep(5.0)
            assert len(host.newest) >= 990
            await asyncio.sleep(10.0)
            assert len(host.newest) == 1_000
            await pusher.aclose()

    run(program())


def test_devices_that_are_gone_do_not_keep_the_circuit_open() -> None:
    async def program() -> None:
        is_down = True

        def reply(seen: Seen) -> Reply:
            if is_down:
                return DOWN
            return Reply(status=404, apply_after_s=None) if seen.device_id.startswith("gone") else OK

        host = Host(reply=reply)
        async with client_of(host) as client, client.status_pusher() as pusher:
            for device in range(9):  # from ten in a row on, it is the account that is refused
                await pusher.put(f"gone-{device}", status(device))
            await pusher.put("dev-1", status(1))
            await asyncio.sleep(30.0)
            assert pusher.stats().circuit == "open"
            is_down = False
            await asyncio.sleep(5.0)
            stats = pusher.stats()
            assert (stats.circuit, stats.sent, stats.failed) == ("closed", 1, 9)

    run(program())


def test_a_status_put_while_the_circuit_is_open_replaces_the_waiting_one() -> None:
    async def program() -> None:
        is_down = True
        host = Host(reply=lambda _: DOWN if is_down else OK)
        async with client_of(host) as client, client.status_pusher() as pusher:
            for number in range(100):
                await pusher.put("dev-1", status(number))
                await asyncio.sleep(0.5)
            is_down = False
            stats = await pusher.drain()
        assert pages_of(host, "dev-1")[-1] == 99
        assert (stats.sent, stats.superseded, stats.failed) == (1, 99, 0)

    run(program())


# Pauses that the host asks for


def in_30_s() -> str:
    return formatdate(time.time() + 30.5, usegmt=True)


@pytest.mark.parametrize("refusal", [429, 503])
@pytest.mark.parametrize(
    ("form", "pause_s"),
    [("7", 7.0), ("0.5", 0.5), ("date", 29.0), ("0", 0.0), (str(int(YEAR_S)), HOUR_S), ("9" * 30, HOUR_S)],
)
def test_retry_after_holds_the_whole_host(refusal: int, form: str, pause_s: float) -> None:
    async def program() -> None:
        loop = fake_loop()
        header = in_30_s() if form == "date" else form
        refused = Reply(status=refusal, headers=(("retry-after", header),), apply_after_s=None)
        host = Host(reply=lambda _: refused if host.count == 3 else OK, latency_s=0.01)
        async with client_of(host) as client:
            pusher = client.status_pusher()
            for device in range(3):
                await pusher.put(f"dev-{device}", status(device))
            await fake_loop().settle()
            assert host.count == 3
            await asyncio.sleep(0.02)
            told_s = loop.time() - 0.01
            for device in range(3, 200):
                await pusher.put(f"dev-{device}", status(device))
            stats = await pusher.drain()
            assert (stats.sent, stats.failed) == (200, 0)
            after = [at_s for at_s in times_of(host) if at_s >= told_s]
            assert len(after) == 198
            assert min(after) >= told_s + pause_s - 1e-6
            assert max(after) <= told_s + pause_s + 2.0
            await pusher.aclose()

    run(program())


@pytest.mark.parametrize("devices", [1, 500])
def test_a_pause_of_years_is_probed_once_a_minute_after_an_hour(devices: int) -> None:
    async def program() -> None:
        loop = fake_loop()
        started_s = loop.time()
        pause = Reply(status=429, headers=(("retry-after", str(int(YEAR_S))),), apply_after_s=None)
        host = Host(reply=lambda seen: pause if seen.at_s < started_s + 2 * HOUR_S else OK, latency_s=0.01)
        events: list[RetryAfterCapped] = []

        def watch(event: object) -> None:
            if isinstance(event, RetryAfterCapped):
                events.append(event)

        async with client_of(host, retry=RetryPolicy(), hooks=[watch]) as client:
            pusher = client.status_pusher()
            for device in range(devices):
                await pusher.put(f"dev-{device}", status(device))
            await asyncio.sleep(1.0)
            with pytest.raises(RateLimitError):
                await client.update_device_status("dev-1", status(1))
            report = await client.push_statuses({"dev-1": status(1)})
            assert (report.failed, report.elapsed_s < 1.0) == (1, True)
            await asyncio.sleep(2 * HOUR_S - 2.0)
            probes = [at_s - started_s for at_s in times_of(host) if at_s > started_s + 1.0]
            assert 59 <= len(probes) <= 60
            assert HOUR_S <= probes[0] < HOUR_S + 1.0
            assert all(60.0 <= later_s - earlier_s < 61.0 for earlier_s, later_s in pairwise(probes))
            await asyncio.sleep(65.0)
            stats = pusher.stats()
            assert (stats.sent, stats.failed) == (devices, 0)
            assert (await pusher.push("dev-0", status(1))).outcome == "sent"
            await pusher.aclose()
        assert events == [RetryAfterCapped(YEAR_S, HOUR_S, "printos.test")]

    run(program())


def test_statuses_that_expired_in_an_outage_take_no_probe_of_those_that_wait() -> None:
    async def program() -> None:
        is_down = True
        host = Host(reply=lambda _: DOWN if is_down else OK, latency_s=0.02)
        async with client_of(host, retry=RetryPolicy()) as client:
            pusher = client.status_pusher(deadline_s=30.0)
            for device in range(1_000):
                await pusher.put(f"dev-{device}", status(1))
            await asyncio.sleep(60.0)
            assert (pusher.stats().failed, pusher.stats().circuit) == (1_000, "open")
            is_down, up_s = False, fake_loop().time()
            assert (await pusher.push("other", status(2))).outcome == "sent"
            assert fake_loop().time() - up_s < 3.0
            await pusher.aclose()

    run(program())


@pytest.mark.parametrize("header", ["soon", "-5", "", "Thu, 99 Xyz 2026 00:00:00 GMT", "١٢"])
def test_a_retry_after_that_says_nothing_holds_nobody_else(header: str) -> None:
    async def program() -> None:
        refused = Reply(status=429, headers=(("retry-after", header),), apply_after_s=None)
        host = Host(reply=lambda _: refused if host.count == 1 else OK)
        async with client_of(host) as client, client.status_pusher() as pusher:
            for device in range(10):
                await pusher.put(f"dev-{device}", status(device))
            started_s = fake_loop().time()
            stats = await pusher.drain()
            assert (stats.sent, stats.requests) == (10, 11)
            assert fake_loop().time() - started_s < 1.0

    run(program())


def test_a_pause_holds_pushes_and_single_calls_alike() -> None:
    async def program() -> None:
        refused = Reply(status=429, headers=(("retry-after", "20"),), apply_after_s=None)
        host = Host(reply=lambda _: refused if host.count == 1 else OK)
        started_s = fake_loop().time()
        async with (
            client_of(host, retry=RetryPolicy(base_delay_s=0.01)) as client,
            client.status_pusher() as pusher,
        ):
            await pusher.put("dev-1", status(1))
            await fake_loop().settle()
            await asyncio.gather(
                client.update_device_status("dev-2", status(2)),
                client.push_statuses({"dev-3": status(3)}),
                pusher.push("dev-4", status(4)),
            )
        assert len(host.seen) == 5
        assert all(at_s >= started_s + 20.0 for at_s in times_of(host)[1:])

    run(program())


def test_pushing_all_gives_up_on_a_pause_longer_than_the_policy_waits() -> None:
    async def program() -> None:
        refused = Reply(status=429, headers=(("retry-after", "3600"),), apply_after_s=None)
        host = Host(reply=lambda _: refused)
        started_s = fake_loop().time()
        async with client_of(host) as client:
            report = await client.push_statuses({f"dev-{device}": status(device) for device in range(500)})
        assert (report.sent, report.failed) == (0, 500)
        assert fake_loop().time() - started_s < 1.0
        assert host.count <= 64
        error = report.failures[-1].error
        assert isinstance(error, RateLimitError)
        assert error.retry_after_s == pytest.approx(3600.0)

    run(program())

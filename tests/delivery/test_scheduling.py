"""Whose turn it is: nobody starves, nothing is taken twice, and memory follows devices, not statuses."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from typing import Any

import pytest

from printos_async import ConcurrencyLimit, RetryPolicy

from .clock import fake_loop, run
from .host import OK, UNAVAILABLE, Host, Reply, Seen, client_of, pages_of, status, times_of

# Two tokens, and practically none that come back with time.
POOR = RetryPolicy(base_delay_s=0.01, max_delay_s=1e6, budget=2)


def test_a_withdrawn_retry_leaves_nothing_that_could_take_its_devices_next_status() -> None:
    async def program() -> None:
        host = Host(reply=lambda seen: UNAVAILABLE if seen.device_id != "dev-9" else OK, latency_s=0.2)
        async with client_of(host, retry=POOR) as client, client.status_pusher() as pusher:
            await pusher.push("dev-9", status(0))
            for number in range(10):
                waiting = asyncio.create_task(pusher.push("dev-1", status(number)))
                await asyncio.sleep(2.0)  # by now it waits for a token
                waiting.cancel()
                await fake_loop().settle()
            host.reply = lambda _: OK
            for number in range(10, 20):
                await pusher.put("dev-1", status(number))
                await asyncio.sleep(0.05)
            stats = await pusher.drain()
        assert host.newest["dev-1"] == 19
        assert host.max_in_flight["dev-1"] == 1
        assert stats.pending == stats.failed == 0

    run(program())


def test_retries_without_a_token_hold_up_nobody_else() -> None:
    async def program() -> None:
        host = Host(reply=lambda seen: UNAVAILABLE if seen.device_id.startswith("bad") else OK)
        async with client_of(host, retry=POOR) as client, client.status_pusher(min_interval_s=10.0) as pusher:
            for number in range(1_000):
                if number % 5 == 0:
                    await pusher.put(
                        f"fine-{number}", status(number)
                    )  # their successes keep the circuit closed
                await pusher.put(f"bad-{number}", status(number))
            await pusher.push("dev-1", status(1))
            await asyncio.sleep(5.0)
            await pusher.push("dev-1", status(2))
            first_s, second_s = times_of(host, "dev-1")
            assert second_s - first_s == pytest.approx(10.0, abs=0.01)
            await pusher.aclose()

    run(program())


def test_tokens_go_to_retries_in_the_order_in_which_they_came() -> None:
    async def program() -> None:
        bad = True

        def reply(seen: Seen) -> Reply:
            return UNAVAILABLE if bad and seen.device_id != "dev-0" else OK

        host = Host(reply=reply)
        retry = RetryPolicy(base_delay_s=0.0, max_delay_s=100.0, budget=2, max_attempts=100)
        async with client_of(host, retry=retry) as client, client.status_pusher() as pusher:
            for number in range(6):
                await pusher.put(f"dev-{number}", status(number))
                await fake_loop().settle()
            bad = False
            await pusher.drain()
        late = [seen.device_id for seen in host.seen if seen.at_s > 1_001.0]
        assert late == sorted(late)
        assert len(host.newest) == 6

    run(program())


async def _grow(settings: dict[str, Any], *, cancelling: bool = False) -> int:
    """Return the bytes by which memory grows from the 400th to the 1,200th status of each of five devices."""
    host = Host(record=False)
    before = 0
    async with client_of(host) as client:
        pusher = client.status_pusher(**settings)
        for number in range(1_200):
            if number == 400:
                gc.collect()
                before = tracemalloc.get_traced_memory()[0]
            for device in range(5):
                if cancelling:
                    waiting = asyncio.create_task(pusher.push(f"dev-{device}", status(number)))
                    await asyncio.sleep(0.001)
                    waiting.cancel()
                else:
                    await pusher.put(f"dev-{device}", status(number))
            await asyncio.sleep(0.1)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        await pusher.aclose()
    return grown


@pytest.mark.parametrize(
    ("settings", "cancelling"),
    [
        ({}, False),
        ({"skip_unchanged": True, "unchanged_max_age_s": 1e6}, False),
        ({"deadline_s": 1e6}, False),
        ({"deadline_s": 1e6, "min_interval_s": 1e6}, False),
        ({"min_interval_s": 1e6}, True),
    ],
)
def test_memory_does_not_grow_with_statuses(settings: dict[str, Any], cancelling: bool) -> None:  # noqa: FBT001
    tracemalloc.start()
    try:
        grown = run(_grow(settings, cancelling=cancelling))
    finally:
        tracemalloc.stop()
    assert grown < 100_000  # 4,000 statuses


def test_no_device_starves_behind_one_that_is_always_busy() -> None:
    async def program() -> None:
        host = Host(latency_s=0.1)
        limit = ConcurrencyLimit(minimum=2, maximum=2)
        async with client_of(host, limit=limit) as client, client.status_pusher() as pusher:

            async def busy() -> None:
                for number in range(200):
                    await pusher.put("busy", status(number))
                    await asyncio.sleep(0.01)

            talking = asyncio.create_task(busy())
            await asyncio.sleep(0.5)
            for device in range(10):
                await pusher.put(f"dev-{device}", status(device))
            await asyncio.sleep(1.0)
            assert all(pages_of(host, f"dev-{device}") == [device] for device in range(10))
            await talking

    run(program())

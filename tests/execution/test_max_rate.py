"""Cap on the rate of requests: never more in a second, and hardly less, whatever makes the requests."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from contextlib import suppress
from itertools import pairwise

import pytest

from printos_async import ConcurrencyLimit, ConfigurationError, PrintOSClient, RetryPolicy
from tests.delivery.clock import run
from tests.delivery.host import Host, Reply, client_of, status, times_of


def most_in_a_second(times: list[float]) -> int:
    return max(bisect_right(times, start_s + 1.0) - index for index, start_s in enumerate(times))


@pytest.mark.parametrize("rate", [1.0, 25.0, 500.0])
def test_a_bulk_push_a_pusher_and_single_calls_keep_to_one_rate(rate: float) -> None:
    async def program() -> None:
        host = Host(latency_s=0.05)
        limit = ConcurrencyLimit(initial=100, maximum=100)
        async with client_of(host, max_rate_per_s=rate, limit=limit) as client:
            count = int(4 * rate)
            async with client.status_pusher() as pusher, asyncio.TaskGroup() as group:
                group.create_task(
                    client.push_statuses({f"bulk-{each}": status(each) for each in range(count)})
                )
                for each in range(count):
                    await pusher.put(f"dev-{each}", status(each))
                for each in range(int(rate)):
                    group.create_task(client.update_device_status(f"single-{each}", status(each)))
            times = times_of(host)
            assert len(times) == 2 * count + int(rate)
            assert most_in_a_second(times) <= 1.02 * rate + 1
            assert times[-1] - times[0] <= 1.1 * len(times) / rate + 1

    run(program())


@pytest.mark.parametrize("way", ["single calls", "push_statuses", "pusher"])
def test_what_waited_for_a_permit_does_not_go_all_at_once(way: str) -> None:
    async def program() -> None:
        host = Host(reply=lambda seen: Reply(after_s=3.0 if seen.device_id.startswith("slow") else 0.0))
        async with client_of(host, max_rate_per_s=10, limit=ConcurrencyLimit(minimum=5, maximum=5)) as client:
            async with asyncio.TaskGroup() as group:
                for each in range(5):  # all permits
                    group.create_task(client.update_device_status(f"slow-{each}", status(each)))
                await asyncio.sleep(1.0)
                statuses = {f"dev-{each}": status(each) for each in range(20)}
                match way:
                    case "single calls":
                        for device_id, update in statuses.items():
                            group.create_task(client.update_device_status(device_id, update))
                    case "push_statuses":
                        await client.push_statuses(statuses)
                    case "pusher":
                        async with client.status_pusher() as pusher:
                            for device_id, update in statuses.items():
                                await pusher.put(device_id, update)
            times = times_of(host)
            assert len(times) == 25
            # The interval, less the lateness of a timer that is made up for.
            assert min(later_s - earlier_s for earlier_s, later_s in pairwise(times)) >= 0.0799

    run(program())


def test_single_calls_that_are_cancelled_give_their_turns_back() -> None:
    async def program() -> None:
        host = Host()
        loop = asyncio.get_running_loop()
        async with client_of(host, max_rate_per_s=10) as client:

            async def impatient(device: int) -> None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await client.update_device_status(f"dev-{device}", status(device))

            await asyncio.gather(*(impatient(device) for device in range(1_000)))
            assert 10 <= host.count <= 11
            started_s = loop.time()
            report = await client.push_statuses({"bulk": status(1)})
            assert report.sent == 1
            async with client.status_pusher() as pusher:
                await pusher.push("dev-1", status(1))
            assert loop.time() - started_s < 0.3

    run(program())


def test_pushes_that_are_cancelled_take_no_turn() -> None:
    async def program() -> None:
        host = Host()
        loop = asyncio.get_running_loop()
        async with client_of(host, max_rate_per_s=1.0) as client, client.status_pusher() as pusher:

            async def impatient(device: int) -> None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(5.0):
                        await pusher.push(f"dev-{device}", status(device))

            await asyncio.gather(*(impatient(device) for device in range(100)))
            assert 5 <= host.count <= 6
            started_s = loop.time()
            assert (await pusher.push("other", status(1))).outcome == "sent"
            assert loop.time() - started_s <= 1.0

    run(program())


def test_a_rate_below_the_longest_pause_is_no_reason_to_give_up() -> None:
    async def program() -> None:
        retry = RetryPolicy(max_delay_s=0.5)
        async with client_of(Host(), max_rate_per_s=1.0, retry=retry) as client:
            report = await client.push_statuses({f"dev-{each}": status(each) for each in range(5)})
            assert (report.sent, report.failed) == (5, 0)

    run(program())


@pytest.mark.parametrize("rate", [10.0, 100.0])
def test_single_calls_and_pushers_share_the_rate(rate: float) -> None:
    async def program() -> None:
        host = Host(latency_s=0.01)
        over = False

        async def call(device_id: str) -> None:
            while not over:
                await client.update_device_status(device_id, status(1))

        async with client_of(host, max_rate_per_s=rate) as client:
            async with (
                client.status_pusher(drain_timeout_s=0.0) as first,
                client.status_pusher(drain_timeout_s=0.0) as second,
            ):
                callers = [asyncio.create_task(call(f"single-{each}")) for each in range(5)]
                await asyncio.sleep(1.0)
                at_first = host.count
                for each in range(int(15 * rate)):
                    await first.put(f"dev-{each}", status(1))
                    await second.put(f"dev-{each}", status(1))
                await asyncio.sleep(15.0)
                third = 5.0 * rate
                assert host.count - at_first >= 2.9 * third
                assert first.stats().sent >= 0.9 * third
                assert second.stats().sent >= 0.9 * third
                assert host.count - at_first - first.stats().sent - second.stats().sent >= 0.9 * third
            over = True
            await asyncio.gather(*callers)

    run(program())


def test_without_a_cap_nothing_waits() -> None:
    async def program() -> None:
        host = Host()
        async with client_of(host) as client:
            await client.push_statuses({f"dev-{each}": status(each) for each in range(1_000)})
            assert times_of(host)[-1] - times_of(host)[0] < 0.001

    run(program())


@pytest.mark.parametrize("rate", [0, -1.0, 0.01, float("nan"), float("inf"), "5"])
def test_a_cap_that_is_no_rate_is_refused(rate: float) -> None:
    with pytest.raises(ConfigurationError, match=r"max_rate_per_s must be a number of at least 0\.1"):
        PrintOSClient("https://printos.test", auth=None, max_rate_per_s=rate)

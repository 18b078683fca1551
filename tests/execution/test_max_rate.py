"""Cap on the rate of requests: never more in a second, and hardly less, whatever makes the requests."""

from __future__ import annotations

import asyncio
from bisect import bisect_right

import pytest

from printos_async import ConcurrencyLimit, ConfigurationError, PrintOSClient
from tests.delivery.clock import run
from tests.delivery.host import Host, client_of, status, times_of


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

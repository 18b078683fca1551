"""Back-pressure: the limit of pending devices, and the order in which waiting callers are admitted."""

from __future__ import annotations

import asyncio
import os
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from printos_async import InvalidDeviceIdError, InvalidStatusError, PusherFullError
from printos_async._delivery.backpressure import Occupancy

from .clock import fake_loop, run
from .host import Host, client_of, pages_of, status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from printos_async import DeviceStatusUpdate

MIB = 1024 * 1024
LONG = bool(os.environ.get("PRINTOS_LONG_TESTS"))


def test_no_more_devices_are_pending_than_allowed() -> None:
    async def program() -> None:
        host = Host(latency_s=1.0)
        async with client_of(host) as client, client.status_pusher(max_pending_devices=10) as pusher:
            most = 0

            async def put(device: int) -> None:
                nonlocal most
                await pusher.put(f"dev-{device}", status(device))
                most = max(most, pusher.stats().active_devices)

            await asyncio.gather(*(put(device) for device in range(100)))
            assert most == 10
            assert (await pusher.drain()).sent == 100
        assert [seen.pages for seen in host.seen] == list(range(100))  # first come, first served

    run(program())


def test_a_device_that_is_pending_needs_no_room_for_its_newer_status() -> None:
    async def program() -> None:
        host = Host(latency_s=1.0)
        async with (
            client_of(host) as client,
            client.status_pusher(max_pending_devices=1, on_full="raise") as pusher,
        ):
            for number in range(10):
                await pusher.put("dev-1", status(number))
            with pytest.raises(PusherFullError):
                await pusher.put("dev-2", status(1))
            with pytest.raises(PusherFullError):
                await pusher.push("dev-2", status(1))
            await asyncio.sleep(3.0)
            await pusher.put("dev-2", status(1))
            stats = await pusher.drain()
        assert (stats.accepted, stats.sent) == (11, 2)

    run(program())


def test_statuses_of_one_device_keep_their_order_while_they_wait_for_room() -> None:
    async def program() -> None:
        host = Host(latency_s=1.0)
        async with client_of(host) as client, client.status_pusher(max_pending_devices=1) as pusher:
            await pusher.put("dev-0", status(0))
            await fake_loop().settle()
            waiting = [asyncio.create_task(pusher.put("dev-1", status(number))) for number in range(3)]
            late: list[asyncio.Task[None]] = []

            async def come_late() -> None:
                # There is room at this moment: a new caller must not overtake the waiting ones.
                await asyncio.sleep(0.999_999)
                for _ in range(100):
                    late.append(asyncio.create_task(pusher.put("dev-1", status(len(late) + 3))))
                    await asyncio.sleep(0)
                await asyncio.sleep(0.000_001)
                for _ in range(100):
                    late.append(asyncio.create_task(pusher.put("dev-1", status(len(late) + 3))))
                    await asyncio.sleep(0)

            await come_late()
            await asyncio.gather(*waiting, *late)
            await pusher.drain()
        assert host.newest["dev-1"] == 202
        assert pages_of(host, "dev-1") == sorted(pages_of(host, "dev-1"))

    run(program())


def test_a_status_is_taken_as_it_was_when_put_was_called() -> None:
    async def program() -> None:
        host = Host(latency_s=1.0)
        async with client_of(host) as client, client.status_pusher(max_pending_devices=1) as pusher:
            await pusher.put("dev-0", status(0))
            reused = status(1)
            waiting = asyncio.create_task(pusher.put("dev-1", reused))
            await fake_loop().settle()
            reused.metrics = status(2).metrics
            await waiting
            await pusher.drain()
        assert host.newest["dev-1"] == 1

    run(program())


def test_what_cannot_be_sent_is_refused_at_once_even_when_there_is_no_room() -> None:
    async def program() -> None:
        host = Host(latency_s=1.0)
        async with client_of(host) as client, client.status_pusher(max_pending_devices=1) as pusher:
            await pusher.put("dev-0", status(0))
            started_s = fake_loop().time()
            with pytest.raises(InvalidDeviceIdError):
                await pusher.put("..", status(1))
            with pytest.raises(InvalidDeviceIdError):
                await pusher.put([], status(1))  # type: ignore[arg-type]
            with pytest.raises(InvalidStatusError):
                await pusher.put("dev-1", None)  # type: ignore[arg-type]
            assert fake_loop().time() == pytest.approx(started_s)
            assert pusher.stats().accepted == 1

    run(program())


def test_many_who_wait_for_room_are_not_all_woken_for_one_who_gets_it() -> None:
    async def program() -> int:
        host = Host(latency_s=1.0, record=False)
        async with client_of(host) as client, client.status_pusher(max_pending_devices=10) as pusher:
            putting = [
                asyncio.create_task(pusher.put(f"dev-{device}", status(device))) for device in range(2_000)
            ]
            await asyncio.gather(*putting)
            return fake_loop().steps

    # To wake all of them each time would be 200,000 steps and more.
    assert run(program()) < 80_000


@pytest.mark.parametrize("held", [90, 99])
def test_a_status_takes_a_place_that_is_free_although_most_devices_are_held(held: int) -> None:
    async def program() -> None:
        host = Host(latency_s=0.02)
        async with (
            client_of(host) as client,
            client.status_pusher(
                max_pending_devices=100, min_interval_s=100_000.0, drain_timeout_s=0.0
            ) as pusher,
        ):
            for number in range(2):
                for device in range(held):
                    await pusher.put(f"held-{device}", status(number))
                await asyncio.sleep(5.0)
            assert pusher.stats().active_devices == held
            async with asyncio.timeout(60.0):
                await asyncio.gather(*(pusher.put(f"dev-{device}", status(1)) for device in range(100)))

    run(program())


@pytest.mark.parametrize("number", [200_000 if LONG else 20_000])
def test_memory_stays_bounded_for_an_async_iterator_of_any_length(number: int) -> None:
    async def source(length: int) -> AsyncIterator[tuple[str, DeviceStatusUpdate]]:
        for index in range(length):
            yield f"dev-{index}", status(index)

    async def program() -> int:
        host = Host(record=False)
        async with client_of(host) as client:
            await client.push_statuses(source(3_000))
            host.newest.clear()
            host.in_flight.clear()
            host.max_in_flight.clear()
            tracemalloc.start()
            try:
                report = await client.push_statuses(source(number), on_result=lambda _: host_clear(host))
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert report.sent == number
        return peak

    # 1,024 devices that wait, each with its encoded request.
    assert run(program()) < 4 * MIB


def host_clear(host: Host) -> None:
    # The host's own memory is not what is measured.
    if len(host.newest) > 1_000:
        host.newest.clear()
        host.max_in_flight.clear()
        for device_id in [device_id for device_id, number in host.in_flight.items() if not number]:
            del host.in_flight[device_id]


async def test_the_traceback_of_a_bug_does_not_grow_with_the_statuses_that_it_refuses() -> None:
    occupancy = Occupancy()
    try:
        int("a bug")
    except ValueError as error:
        occupancy.end(error)
    frames = []
    for _ in range(5):
        with pytest.raises(ValueError, match="a bug") as caught:
            occupancy.require_open()
        with pytest.raises(ValueError, match="a bug") as caught:
            await occupancy.wait_until_below(1)
        frames.append(len(caught.traceback))
    assert len(set(frames)) == 1

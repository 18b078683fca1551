"""Draining and closing: they end in time, nobody waits for ever, and every accepted status is accounted for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from printos_async import (
    ConcurrencyLimit,
    DeviceCredentials,
    HmacAuth,
    MemoryOutbox,
    PrintOSClient,
    PusherClosedError,
    PusherStats,
)

from .clock import fake_loop, run
from .host import DOWN, SILENT, UNAVAILABLE, Host, Reply, client_of, client_over, status


def adds_up(stats: PusherStats, accepted: int) -> bool:
    total = stats.sent + stats.superseded + stats.failed + stats.pending
    return stats.accepted == accepted == total and min(stats.pending, stats.sent, stats.failed) >= 0


def test_draining_waits_for_everything_and_then_accepts_no_more() -> None:
    async def program() -> None:
        host = Host(latency_s=0.1)
        async with client_of(host) as client, client.status_pusher() as pusher:
            for number in range(100):
                await pusher.put(f"dev-{number % 50}", status(number))
            stats = await pusher.drain()
            assert (stats.sent, stats.superseded, stats.pending, stats.active_devices) == (50, 50, 0, 0)
            with pytest.raises(PusherClosedError):
                await pusher.put("dev-1", status())
            with pytest.raises(PusherClosedError):
                await pusher.push("dev-1", status())

    run(program())


@pytest.mark.parametrize("reply", [SILENT, DOWN, UNAVAILABLE])
def test_draining_and_closing_end_in_time_whatever_the_host_does(reply: Reply) -> None:
    async def program() -> None:
        host = Host(reply=lambda _: reply)
        loop = fake_loop()
        async with client_of(host, timeout_s=3600.0) as client:
            pusher = client.status_pusher()
            for number in range(2_000):
                await pusher.put(f"dev-{number % 1000}", status(number))
            await asyncio.sleep(1.0)
            started_s = loop.time()
            stats = await pusher.drain(timeout_s=5.0)
            assert loop.time() - started_s == pytest.approx(5.0)
            assert adds_up(stats, 2_000)
            assert stats.pending == 1_000
            assert stats.superseded == 1_000
            await pusher.aclose()
            assert loop.time() - started_s <= 5.5
            assert client._channel.executor.limiter.in_flight == 0
            assert adds_up(pusher.stats(), 2_000)

    run(program())


async def test_draining_and_closing_end_in_time_with_a_real_server_that_hangs() -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    async with PrintOSClient(f"http://127.0.0.1:{port}", auth=None, timeout_s=600.0) as client:
        started_s = loop.time()
        pusher = client.status_pusher()
        for number in range(100):
            await pusher.put(f"dev-{number}", status(number))
        stats = await pusher.drain(timeout_s=0.2)
        assert (stats.accepted, stats.pending) == (100, 100)
        await pusher.aclose()
        assert loop.time() - started_s < 0.2 + 0.5
        assert client._channel.executor.limiter.in_flight == 0
    server.close()
    await server.wait_closed()


def test_leaving_by_an_exception_does_not_drain() -> None:
    async def program() -> None:
        host = Host(reply=lambda _: SILENT)
        async with client_of(host, timeout_s=3600.0) as client:
            started_s = fake_loop().time()

            async def broken() -> None:
                async with client.status_pusher() as pusher:
                    await pusher.put("dev-1", status(1))
                    raise LookupError

            with pytest.raises(LookupError):
                await broken()
            assert fake_loop().time() == pytest.approx(started_s)
            assert host.count <= 1

    run(program())


def test_closing_tells_everybody_who_waits() -> None:
    async def program() -> None:
        host = Host(reply=lambda _: SILENT)
        async with client_of(host) as client:
            pusher = client.status_pusher(max_pending_devices=1)
            waiting: list[asyncio.Task[Any]] = [
                asyncio.create_task(pusher.push("dev-1", status(1)))
            ]  # in flight
            await fake_loop().settle()
            waiting += [
                asyncio.create_task(pusher.push("dev-1", status(2))),  # behind it
                asyncio.create_task(pusher.put("dev-2", status(3))),  # for room
                asyncio.create_task(pusher.push("dev-3", status(4))),  # for room
            ]
            await fake_loop().settle()
            draining = asyncio.create_task(pusher.drain())
            await fake_loop().settle()
            await pusher.aclose()
            await fake_loop().settle()
            for task in waiting:
                assert isinstance(task.exception(), PusherClosedError)
            assert adds_up(draining.result(), 2)
            assert draining.result().pending == 2
            await pusher.aclose()  # the second time does nothing

    run(program())


def test_closing_that_is_cancelled_still_tells_everybody_and_ends_the_work() -> None:
    async def program() -> None:
        async with client_of(Host(reply=lambda _: SILENT)) as client:
            pusher = client.status_pusher()
            waiting = asyncio.create_task(pusher.push("dev-1", status(1)))
            await fake_loop().settle()
            closing = asyncio.create_task(pusher.aclose())
            await asyncio.sleep(0)
            closing.cancel()
            await fake_loop().settle()
            assert closing.done()
            assert isinstance(waiting.exception(), PusherClosedError)
            assert client._channel.executor.limiter.in_flight == 0
            assert asyncio.all_tasks() == {asyncio.current_task()}

    run(program())


def test_a_bug_in_the_transport_ends_the_waiting_with_that_bug() -> None:
    async def program() -> None:
        async with client_of(Host(reply=lambda _: Reply(status=1 // 0))) as client:
            pusher = client.status_pusher()
            waiting = asyncio.create_task(pusher.push("dev-1", status(1)))
            await fake_loop().settle()
            assert isinstance(waiting.exception(), ZeroDivisionError)
            with pytest.raises(ZeroDivisionError):
                await pusher.put("dev-2", status(2))
            with pytest.raises(ZeroDivisionError):
                await pusher.drain()
            await pusher.aclose()
            assert adds_up(pusher.stats(), 1)

    run(program())


@pytest.mark.parametrize("kind", ["none", "memory"])
def test_a_closed_pusher_is_not_entered_again(kind: str) -> None:
    async def program() -> None:
        outbox = MemoryOutbox() if kind == "memory" else None
        async with client_of(Host()) as client:
            async with client.status_pusher(outbox=outbox) as pusher:
                await pusher.push("dev-1", status(1))
            with pytest.raises(PusherClosedError):
                await pusher.__aenter__()
            # Nothing has the outbox: it serves the next pusher.
            async with client.status_pusher(outbox=outbox) as another:
                assert (await another.push("dev-1", status(2))).outcome == "sent"

    run(program())


def test_closing_ends_although_a_lookup_of_credentials_swallows_the_cancellation() -> None:
    async def lookup(_: str) -> HmacAuth:
        try:
            await asyncio.sleep(3.0)
        except asyncio.CancelledError:
            raise RuntimeError("the vault does not answer") from None
        return HmacAuth("k", "s")

    async def program() -> None:
        host = Host()
        limit = ConcurrencyLimit(minimum=1, maximum=2, initial=2)
        async with client_over(host, auth=DeviceCredentials(lookup), limit=limit) as client:
            pusher = client.status_pusher()
            for device in range(5):
                await pusher.put(f"dev-{device}", status(1))
            await asyncio.sleep(0.1)
            async with asyncio.timeout(1.0):
                await pusher.aclose()
            assert pusher.stats().pending == 5
        assert not host.count

    run(program())

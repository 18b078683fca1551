"""A lease that is lost: nothing is sent that another worker may own, and everything is delivered in the end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from printos_async import (
    AttemptFinished,
    HmacAuth,
    LeaseLost,
    PrintOSClient,
    RequestTimeoutError,
    SessionTokenAuth,
)
from printos_async._common.clock import steady_s
from printos_async._delivery.device_state import DeliveryPolicy
from printos_async._delivery.engine import Engine
from printos_async.sandbox import Faults
from tests.clients import channel_over
from tests.conftest import KEY, QUICK_RETRY, SECRET, status
from tests.delivery.clock import run
from tests.delivery.host import OK, SILENT, UNAVAILABLE, Host, Reply, Seen, client_over, pages_of, times_of
from tests.delivery.host import status as host_status

from .conftest import Workplace
from .seen import adds_up, applied, pages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from printos_async.sandbox import Sandbox

LEASE_S, TIMEOUT_S = 2.0, 0.8
EXPIRE = "UPDATE printos_worker SET lease_until = 0"


@pytest.fixture
def losses() -> list[LeaseLost]:
    return []


@pytest.fixture
async def place(sandbox: Sandbox, outbox_url: str, losses: list[LeaseLost]) -> AsyncIterator[Workplace]:
    def hook(event: object) -> None:
        if isinstance(event, LeaseLost):
            losses.append(event)

    auth = HmacAuth(KEY, SECRET)
    async with PrintOSClient(
        sandbox.url, auth=auth, timeout_s=TIMEOUT_S, retry=QUICK_RETRY, hooks=[hook]
    ) as client:
        yield Workplace(client, outbox_url)


async def until_lost(losses: list[LeaseLost], times: int = 1) -> None:
    async with asyncio.timeout(10.0):
        while len(losses) < times:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_lost_lease_is_joined_anew_and_everything_is_delivered(
    sandbox: Sandbox, place: Workplace, losses: list[LeaseLost]
) -> None:
    sandbox.set_faults(Faults(server_error=1.0))
    async with place.pusher(lease_s=LEASE_S, ambiguity_s=0.1) as pusher:
        for index in range(10):
            await pusher.put(f"dev-{index}", status(index))
        pushing = asyncio.create_task(pusher.push("dev-0", status(100)))
        await sandbox.wait_for(lambda: sandbox.request_count > 0)
        await place.execute(EXPIRE)
        await until_lost(losses)
        assert losses[0].devices == 10
        sandbox.set_faults(Faults())
        assert (await pushing).outcome == "sent"
        stats = await pusher.drain()
    assert adds_up(stats)
    assert (stats.pending, stats.failed) == (0, 0)
    assert [pages(sandbox, f"dev-{index}") for index in range(1, 10)] == list(range(1, 10))
    assert pages(sandbox, "dev-0") == 100
    assert (await place.stats()).waiting == 0


async def test_what_was_in_flight_when_the_lease_was_lost_is_not_tried_again_without_one(
    outbox_url: str, losses: list[LeaseLost]
) -> None:
    def hook(event: object) -> None:
        if isinstance(event, LeaseLost):
            losses.append(event)

    def reply(seen: Seen) -> Reply:
        times = len(times_of(host, "dev-1")) if seen.device_id == "dev-1" else 0
        if times == 1:
            return Reply(status=503, after_s=1.8, apply_after_s=None)
        return UNAVAILABLE if times == 2 else OK  # so that it has to try again what it has claimed anew

    host = Host(reply=reply)
    async with client_over(
        host, auth=HmacAuth(KEY, SECRET), timeout_s=2.0, retry=QUICK_RETRY, hooks=[hook]
    ) as client:
        place = Workplace(client, outbox_url)
        async with place.pusher(lease_s=4.0, ambiguity_s=0.1) as pusher:
            result = asyncio.create_task(pusher.push("dev-1", host_status(1)))
            while not host.in_flight["dev-1"]:  # noqa: ASYNC110
                await asyncio.sleep(0)
            # The database's clock was put forward. Nobody may send anything for the device for now.
            await place.execute("UPDATE printos_outbox SET due_at = due_at + 3600")
            await place.execute(EXPIRE)
            await until_lost(losses)
            assert host.in_flight["dev-1"] == 1
            while host.in_flight["dev-1"]:
                await pusher.push("dev-2", host_status(1))
            for number in range(20):  # longer than a retry would take
                await pusher.push("dev-2", host_status(number))
            await asyncio.sleep(0.1)
            assert pages_of(host, "dev-1") == [1]
            await place.execute("UPDATE printos_outbox SET due_at = 0")
            async with asyncio.timeout(20.0):
                assert (await result).outcome == "sent"
            stats = await pusher.drain(timeout_s=20.0)
        assert adds_up(stats)
        assert stats.pending == stats.failed == 0
    assert pages_of(host, "dev-1")[:3] == [1, 1, 1]


async def test_an_unchanged_status_is_sent_again_if_another_worker_has_sent_a_different_one(
    sandbox: Sandbox, place: Workplace, losses: list[LeaseLost]
) -> None:
    async with place.pusher(lease_s=LEASE_S, skip_unchanged=True) as pusher:
        await pusher.push("dev-1", status(1))
        await place.execute(EXPIRE)
        await until_lost(losses)
        async with place.pusher(lease_s=LEASE_S) as other:
            await other.push("dev-1", status(2))
        assert (await pusher.push("dev-1", status(1))).outcome == "sent"
    assert applied(sandbox, "dev-1") == [1, 2, 1]


@pytest.mark.parametrize("kind", ["key", "token"])
async def test_nothing_is_written_after_the_end_of_a_lease_not_even_behind_a_login(
    sandbox: Sandbox, kind: str
) -> None:
    auth = HmacAuth(KEY, SECRET) if kind == "key" else SessionTokenAuth("login", "password")
    async with PrintOSClient(sandbox.url, auth=auth, timeout_s=5.0) as client:
        call = client._channel.operations.update_device_status("dev-1", status(1))
        with pytest.raises(RequestTimeoutError, match=r"not sent in time|no connection in time") as caught:
            await client._channel.executor.attempt(
                call, client._channel.answers.acknowledgement, attempt=1, until_s=0.0
            )
    assert not caught.value.may_have_arrived
    assert not sandbox.applied


async def test_a_lease_on_nothing_is_joined_anew_without_a_word(
    sandbox: Sandbox, place: Workplace, losses: list[LeaseLost]
) -> None:
    async with place.pusher(lease_s=LEASE_S) as pusher, place.opened() as outbox:
        await place.execute(EXPIRE)
        assert (await outbox.stats()).workers == 0
        async with asyncio.timeout(10.0):
            while not (await outbox.stats()).workers:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await pusher.push("dev-1", status(1))).outcome == "sent"
    assert losses == []


def test_a_request_ends_with_the_lease_although_its_timeout_is_longer() -> None:
    async def program() -> None:
        finished: list[AttemptFinished] = []

        def hook(event: object) -> None:
            if isinstance(event, AttemptFinished):
                finished.append(event)

        channel = channel_over(Host(reply=lambda _: SILENT), hooks=[hook], timeout_s=10.0)
        engine = Engine(channel, DeliveryPolicy(patient=False), lambda pending, outcome: None)
        engine.scheduler.send_until(steady_s() + 1.0, lease_ends_s=steady_s() + 3.0)
        engine.accept(channel.operations.update_device_status("dev-1", host_status(1)))
        await asyncio.sleep(5.0)
        await engine.aclose()
        assert [event.latency_s for event in finished] == [pytest.approx(3.0, abs=0.2)]

    run(program())

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from printos_async import (
    ConcurrencyLimit,
    ConfigurationError,
    HmacAuth,
    InvalidDeviceIdError,
    InvalidStatusError,
    NotFoundError,
    PrintOSClient,
    PusherClosedError,
    PusherFullError,
    ReassertionFailed,
    RequestTimeoutError,
    RetryPolicy,
    StatusPusher,
    StatusReasserted,
)
from printos_async.sandbox import Faults, Sandbox
from tests.conftest import KEY, QUICK_RETRY, SECRET, status

if TYPE_CHECKING:
    from collections.abc import Callable

    from printos_async import Event

AMBIGUITY_S = 0.7  # the sandbox's late writes land within 0.6 s


def pages(sandbox: Sandbox, device_id: str) -> Any:
    applied = sandbox.devices[device_id].status
    return None if applied is None else applied["metrics"]["pagesTotal"]


def stale_overwrites(sandbox: Sandbox) -> int:
    newest: dict[str, int] = {}
    stale = 0
    for write in sandbox.applied:
        number = write.status["metrics"]["pagesTotal"]
        stale += number < newest.get(write.device_id, -1)
        newest[write.device_id] = number
    return stale


async def test_put_is_sent_and_push_gives_the_result(client: PrintOSClient, sandbox: Sandbox) -> None:
    async with client.status_pusher() as pusher:
        await pusher.put("dev-1", status(1))
        result = await pusher.push("dev-2", status(2))
    assert (result.device_id, result.outcome, result.attempts, result.seq) == ("dev-2", "sent", 1, 2)
    assert (pages(sandbox, "dev-1"), pages(sandbox, "dev-2")) == (1, 2)
    stats = pusher.stats()
    assert (stats.accepted, stats.sent, stats.pending, stats.requests) == (2, 2, 0, 2)


async def test_a_hundred_updates_while_the_server_blocks_cost_two_requests(
    client: PrintOSClient, sandbox: Sandbox
) -> None:
    await sandbox.block()
    async with client.status_pusher() as pusher:
        first = asyncio.create_task(pusher.push("dev-1", status(0)))
        await sandbox.wait_for(lambda: sandbox.in_flight == 1)
        waiting = [asyncio.create_task(pusher.push("dev-1", status(n))) for n in range(1, 101)]
        while pusher.stats().accepted < 101:  # noqa: ASYNC110  # each task takes its turn
            await asyncio.sleep(0)
        await sandbox.release()
        results = await asyncio.gather(first, *waiting)
    assert [result.outcome for result in results] == ["sent", *99 * ["superseded"], "sent"]
    assert [result.superseded_by for result in results[1:100]] == list(range(3, 102))
    assert sandbox.applied_count == 2
    assert pages(sandbox, "dev-1") == 100


async def late_writes(consistency: Any, seed: int) -> tuple[Sandbox, int, int]:
    """Push 25 updates to each of 40 devices through late writes; give wrong devices and stale overwrites."""
    faults = Faults(seed=seed, late_write=0.1, server_error=0.1)
    retry = RetryPolicy(base_delay_s=0.01, max_delay_s=2.0)
    async with Sandbox(faults=faults) as sandbox:
        for device in range(40):
            sandbox.add_device(f"dev-{device}")
        async with (
            PrintOSClient(sandbox.url, auth=None, retry=retry) as client,
            client.status_pusher(consistency=consistency, ambiguity_s=AMBIGUITY_S) as pusher,
        ):
            for number in range(25):
                await asyncio.gather(*(pusher.put(f"dev-{device}", status(number)) for device in range(40)))
                arrived = sandbox.request_count
                await sandbox.wait_for(lambda arrived=arrived: sandbox.request_count > arrived)  # type: ignore[misc]
            stats = await pusher.drain(30)
            assert stats.sent + stats.superseded + stats.failed + stats.pending == stats.accepted == 1000
            assert (stats.failed, stats.pending) == (0, 0)
        wrong = sum(pages(sandbox, f"dev-{device}") != 24 for device in range(40))
        return sandbox, wrong, stale_overwrites(sandbox)


@pytest.mark.parametrize("seed", range(3))
async def test_eventual_consistency_ends_with_every_device_right(seed: int) -> None:
    sandbox, wrong, _ = await late_writes("eventual", seed)
    assert wrong == 0
    assert any(write.late for write in sandbox.applied)
    assert set(sandbox.max_in_flight_by_device.values()) == {1}


@pytest.mark.parametrize("seed", range(3))
async def test_strict_consistency_never_lets_an_old_status_overwrite_a_newer_one(seed: int) -> None:
    sandbox, wrong, stale = await late_writes("strict", seed)
    assert (wrong, stale) == (0, 0)
    assert any(write.late for write in sandbox.applied)


async def test_without_the_pusher_old_statuses_overwrite_newer_ones() -> None:
    # What the two tests above would see if the pusher did nothing.
    async with Sandbox(faults=Faults(late_write=0.3)) as sandbox:
        for device in range(10):
            sandbox.add_device(f"dev-{device}")
        async with PrintOSClient(sandbox.url, auth=None, retry=QUICK_RETRY) as client:
            calls = (client.update_device_status(f"dev-{n % 10}", status(n)) for n in range(100))
            await asyncio.gather(*calls)
            await sandbox.wait_for(lambda: not sandbox.pending_late_writes)
        assert stale_overwrites(sandbox) > 0


async def test_what_may_have_landed_late_is_overwritten_once_more(sandbox: Sandbox) -> None:
    events: list[Event] = []
    sandbox.set_faults(Faults(late_write_by_s=(60.0, 60.0), late_write_answers=("504",)))
    sandbox.inject("late_write", device_id="dev-1")
    auth = HmacAuth(KEY, SECRET)
    async with (
        PrintOSClient(sandbox.url, auth=auth, retry=QUICK_RETRY, hooks=[events.append]) as client,
        client.status_pusher(ambiguity_s=0.2) as pusher,
    ):
        await pusher.put("dev-1", status(1))
        await sandbox.wait_for(lambda: sandbox.pending_late_writes == 1)
        result = await pusher.push("dev-1", status(2))
        assert result.outcome == "sent"
        sandbox.apply_late_writes()
        assert pages(sandbox, "dev-1") == 1
        await pusher.drain()
    assert pages(sandbox, "dev-1") == 2
    assert [event.seq for event in events if isinstance(event, StatusReasserted)] == [2]


@pytest.mark.parametrize("max_attempts", [2, 5])
async def test_sending_once_more_counts_its_own_attempts(sandbox: Sandbox, max_attempts: int) -> None:
    sandbox.set_faults(Faults(late_write_by_s=(60.0, 60.0), late_write_answers=("504",)))
    sandbox.inject("late_write")
    sandbox.inject("server_error")
    retry = RetryPolicy(max_attempts=max_attempts, base_delay_s=0.001)
    async with (
        PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), retry=retry) as client,
        client.status_pusher(ambiguity_s=0.2, deadline_s=0.1) as pusher,
    ):
        await pusher.put("dev-1", status(1))
        await sandbox.wait_for(lambda: sandbox.pending_late_writes == 1)
        result = await pusher.push("dev-1", status(2))
        assert (result.outcome, result.attempts) == ("sent", 2)
        sandbox.apply_late_writes()
        sandbox.inject("server_error")  # befalls the reassertion
        await pusher.drain()
    assert pages(sandbox, "dev-1") == 2


async def test_a_reassertion_that_is_refused_is_told(sandbox: Sandbox) -> None:
    events: list[Event] = []
    answers = iter([504, 200, 404])
    transport = httpx.MockTransport(lambda _: httpx.Response(next(answers)))
    async with (
        PrintOSClient(
            sandbox.url, auth=None, transport=transport, retry=QUICK_RETRY, hooks=[events.append]
        ) as client,
        client.status_pusher(ambiguity_s=0.1) as pusher,
    ):
        await pusher.put("dev-1", status(1))
        while pusher.stats().requests < 1:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert (await pusher.push("dev-1", status(2))).outcome == "sent"
        stats = await pusher.drain()
    assert (stats.active_devices, stats.failed) == (0, 0)
    assert [event.cause for event in events if isinstance(event, ReassertionFailed)] == ["NotFoundError"]


async def test_a_retry_after_holds_the_whole_host(sandbox: Sandbox) -> None:
    sandbox.set_faults(Faults(retry_after="1"))
    sandbox.inject("rate_limited", device_id="dev-0")
    async with (
        PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), retry=QUICK_RETRY) as client,
        client.status_pusher() as pusher,
    ):
        await pusher.put("dev-0", status())
        await sandbox.wait_for(lambda: sandbox.request_count == 1 and not sandbox.in_flight)
        while pusher.stats().in_flight:  # noqa: ASYNC110  # until the answer has arrived
            await asyncio.sleep(0)
        for number in range(1, 10):
            await pusher.put(f"dev-{number}", status())
        await pusher.drain()
        refused, *others = sandbox.requests
    assert refused.status == 429
    assert len(others) == 10
    assert min(request.at_s for request in others) - refused.at_s >= 0.99


async def test_statuses_refused_for_good_fail_and_the_next_one_goes(
    client: PrintOSClient, sandbox: Sandbox
) -> None:
    async with client.status_pusher() as pusher:
        result = await pusher.push("nobody", status())
        assert result.outcome == "failed"
        assert isinstance(result.error, NotFoundError)
        assert result.status == status()
        sandbox.add_device("nobody")
        assert (await pusher.push("nobody", status(1))).outcome == "sent"
    assert pusher.stats().failed == 1


async def test_bad_input_is_refused_and_not_accepted(client: PrintOSClient) -> None:
    wrong: Any = {"status": "DS_ON"}
    async with client.status_pusher() as pusher:
        with pytest.raises(InvalidDeviceIdError):
            await pusher.put("..", status())
        with pytest.raises(InvalidStatusError):
            await pusher.push("dev-1", wrong)
        assert pusher.stats().accepted == 0


async def test_a_minimum_interval_coalesces_what_comes_between(
    client: PrintOSClient, sandbox: Sandbox
) -> None:
    async with client.status_pusher(min_interval_s=0.3) as pusher:
        await pusher.push("dev-1", status(1))
        for number in range(2, 10):
            await pusher.put("dev-1", status(number))
        await pusher.drain()
    first, second = sandbox.applied
    assert second.status["metrics"]["pagesTotal"] == 9
    assert second.at_s - first.at_s >= 0.25
    assert pusher.stats().superseded == 7


async def test_unchanged_statuses_are_left_out(client: PrintOSClient, sandbox: Sandbox) -> None:
    async with client.status_pusher(skip_unchanged=True) as pusher:
        results = [await pusher.push("dev-1", status(number)) for number in (1, 1, 1, 2, 1)]
    assert [(result.outcome, result.attempts) for result in results] == [
        ("sent", 1),
        ("sent", 0),
        ("sent", 0),
        ("sent", 1),
        ("sent", 1),
    ]
    assert sandbox.applied_count == 3


async def test_an_unchanged_status_is_sent_again_when_the_last_one_is_old(
    client: PrintOSClient, sandbox: Sandbox
) -> None:
    async with client.status_pusher(skip_unchanged=True, unchanged_max_age_s=0.0) as pusher:
        for _ in range(3):
            await pusher.push("dev-1", status(1))
    assert sandbox.applied_count == 3


async def test_what_cannot_be_delivered_in_time_fails_with_the_last_cause(unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    async with (
        PrintOSClient(url, auth=None, retry=QUICK_RETRY) as client,
        client.status_pusher(deadline_s=0.2) as pusher,
    ):
        result = await pusher.push("dev-1", status())
    assert result.outcome == "failed"
    assert "no connection" in str(result.error)


async def test_what_was_never_sent_in_time_says_so(sandbox: Sandbox) -> None:
    await sandbox.block()
    limit = ConcurrencyLimit(minimum=1, maximum=1)
    async with (
        PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), limit=limit) as client,
        client.status_pusher(deadline_s=0.1) as pusher,
    ):
        await pusher.put("dev-1", status())
        await sandbox.wait_for(lambda: sandbox.in_flight == 1)
        result = await pusher.push("dev-2", status())
        assert isinstance(result.error, RequestTimeoutError)
        assert (result.error.attempts, result.error.may_have_arrived) == (0, False)
        await sandbox.release()


async def test_a_full_pusher_raises_or_waits_but_takes_newer_statuses(
    client: PrintOSClient, sandbox: Sandbox
) -> None:
    await sandbox.block()
    async with client.status_pusher(max_pending_devices=2, on_full="raise") as pusher:
        await pusher.put("dev-1", status(1))
        await pusher.put("dev-2", status(2))
        with pytest.raises(PusherFullError):
            await pusher.put("dev-3", status(3))
        await pusher.put("dev-1", status(4))
        await sandbox.release()
    assert pusher.stats().accepted == 3
    await sandbox.block()
    async with client.status_pusher(max_pending_devices=1) as waiting:
        await waiting.put("dev-1", status(5))
        second = asyncio.create_task(waiting.put("dev-2", status(6)))
        await sandbox.wait_for(lambda: sandbox.in_flight == 1)
        assert not second.done()
        await sandbox.release()
        await second
    assert pages(sandbox, "dev-2") == 6


# Ending


async def test_a_draining_pusher_accepts_no_more(client: PrintOSClient) -> None:
    pusher = client.status_pusher()
    await pusher.put("dev-1", status())
    stats = await pusher.drain()
    assert (stats.sent, stats.pending) == (1, 0)
    with pytest.raises(PusherClosedError):
        await pusher.put("dev-1", status())
    with pytest.raises(PusherClosedError):
        await pusher.push("dev-1", status())
    await pusher.aclose()
    await pusher.aclose()


async def test_ending_with_a_hanging_server_accounts_for_everything(
    client: PrintOSClient, sandbox: Sandbox
) -> None:
    await sandbox.block("dev-1")
    pusher = client.status_pusher()
    waiter = asyncio.create_task(pusher.push("dev-1", status(1)))
    await pusher.push("dev-2", status(2))
    await sandbox.wait_for(lambda: sandbox.in_flight == 1)
    await pusher.put("dev-1", status(3))
    stats = await pusher.drain(timeout_s=0.05)
    assert (stats.accepted, stats.sent, stats.pending, stats.in_flight) == (3, 1, 2, 1)
    await pusher.aclose()
    with pytest.raises(PusherClosedError):
        await waiter
    assert pusher.stats().pending == 2
    await sandbox.release()


async def test_leaving_with_an_exception_does_not_drain(client: PrintOSClient, sandbox: Sandbox) -> None:
    await sandbox.block()

    async def work() -> None:
        async with client.status_pusher() as pusher:
            await pusher.put("dev-1", status())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work()
    await sandbox.release()


async def test_cancelling_a_push_withdraws_what_was_not_sent(client: PrintOSClient, sandbox: Sandbox) -> None:
    await sandbox.block()
    async with client.status_pusher() as pusher:
        sent = asyncio.create_task(pusher.push("dev-1", status(1)))
        await sandbox.wait_for(lambda: sandbox.in_flight == 1)
        waiting = asyncio.create_task(pusher.push("dev-1", status(2)))
        while pusher.stats().accepted < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        sent.cancel()
        waiting.cancel()
        await asyncio.gather(sent, waiting, return_exceptions=True)
        await sandbox.release()
        stats = await pusher.drain()
    assert (stats.accepted, stats.sent, stats.pending) == (1, 1, 0)
    assert [write.status["metrics"]["pagesTotal"] for write in sandbox.applied] == [1]


@pytest.mark.parametrize("operation", ["put", "push", "drain"])
async def test_cancelling_at_any_moment_leaks_nothing(
    client: PrintOSClient, sandbox: Sandbox, operation: str
) -> None:
    before = asyncio.all_tasks()
    actions: dict[str, Callable[[StatusPusher], Any]] = {
        "put": lambda pusher: pusher.put("dev-2", status(2)),
        "push": lambda pusher: pusher.push("dev-2", status(2)),
        "drain": lambda pusher: pusher.drain(),
    }
    for turns in range(12):
        for cancellations in (1, 2):
            async with client.status_pusher(max_pending_devices=1) as pusher:
                await pusher.put("dev-1", status(1))
                task = asyncio.ensure_future(actions[operation](pusher))
                for _ in range(turns):
                    await asyncio.sleep(0)
                for _ in range(cancellations):
                    task.cancel()
                    await asyncio.sleep(0)
                await asyncio.gather(task, return_exceptions=True)
                stats = await pusher.drain(10)
            assert stats.sent + stats.superseded + stats.failed == stats.accepted
            assert client._executor.limiter.in_flight == 0
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize(
    "settings",
    [
        {"consistency": "maybe"},
        {"on_full": "drop"},
        {"ambiguity_s": -1},
        {"min_interval_s": float("nan")},
        {"max_pending_devices": 0},
        {"deadline_s": -1},
        {"unchanged_max_age_s": "1"},
    ],
)
async def test_a_setting_out_of_range_is_refused_by_name(
    client: PrintOSClient, settings: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        client.status_pusher(**settings)

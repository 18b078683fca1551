from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from printos_async import (
    ConfigurationError,
    HmacAuth,
    InvalidDeviceIdError,
    InvalidStatusError,
    PrintOSClient,
    ReassertionFailed,
    RetryPolicy,
    StatusReasserted,
)
from printos_async.sandbox import Faults, Sandbox
from tests.conftest import KEY, QUICK_RETRY, SECRET, status

if TYPE_CHECKING:
    from printos_async import Event


def pages(sandbox: Sandbox, device_id: str) -> Any:
    applied = sandbox.devices[device_id].status
    return None if applied is None else applied["metrics"]["pagesTotal"]


async def test_put_is_sent_and_push_gives_the_result(client: PrintOSClient, sandbox: Sandbox) -> None:
    async with client.status_pusher() as pusher:
        await pusher.put("dev-1", status(1))
        result = await pusher.push("dev-2", status(2))
    assert (result.device_id, result.outcome, result.attempts, result.seq) == ("dev-2", "sent", 1, 2)
    assert (pages(sandbox, "dev-1"), pages(sandbox, "dev-2")) == (1, 2)
    stats = pusher.stats()
    assert (stats.accepted, stats.sent, stats.pending, stats.requests) == (2, 2, 0, 2)


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
        client.status_pusher(ambiguity_s=0.7, deadline_s=0.5) as pusher,
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


async def test_bad_input_is_refused_and_not_accepted(client: PrintOSClient) -> None:
    wrong: Any = {"status": "DS_ON"}
    async with client.status_pusher() as pusher:
        with pytest.raises(InvalidDeviceIdError):
            await pusher.put("..", status())
        with pytest.raises(InvalidStatusError):
            await pusher.push("dev-1", wrong)
        assert pusher.stats().accepted == 0


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

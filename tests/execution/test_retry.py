from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from printos_async import (
    APIError,
    AttemptFinished,
    ConfigurationError,
    PrintOSClient,
    RateLimitError,
    RequestTimeoutError,
    ResponseDecodeError,
    RetryPolicy,
    RetryScheduled,
    ServerError,
    StatusError,
    TransportError,
)
from printos_async._common.http import parse_retry_after
from printos_async._errors import status_error_class
from printos_async._execution.retry import RetryBudget
from tests.conftest import QUICK_RETRY, status

if TYPE_CHECKING:
    from collections.abc import Callable

    from printos_async import Event

NOW_S = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
PLACE: dict[str, Any] = {"method": "PUT", "path": "/devices/dev-1/status"}


def answer_error(code: int, retry_after_s: float | None = None) -> StatusError:
    return status_error_class(code)("x", **PLACE, status=code, retry_after_s=retry_after_s)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (TransportError("x", **PLACE), True),
        (RequestTimeoutError("x", **PLACE), True),
        *((answer_error(code), True) for code in (408, 429, 500, 502, 503, 504, 520, 599)),
        *((answer_error(code), False) for code in (301, 400, 401, 403, 404, 409, 418, 422, 600)),
        (ResponseDecodeError("x", **PLACE, status=200), False),
        (ResponseDecodeError("x", **PLACE, status=200, from_intermediary=True), False),
    ],
    ids=lambda value: (
        f"{type(value).__name__}{getattr(value, 'status', '')}" if isinstance(value, APIError) else None
    ),
)
def test_what_may_pass_by_itself_is_tried_again(error: APIError, *, again: bool) -> None:
    delay_s = RetryPolicy().delay_s(error, attempt=1, may_repeat=True, draw=0.5)
    assert (delay_s is not None) is again
    assert RetryPolicy().delay_s(error, attempt=1, may_repeat=False, draw=0.5) is None


def test_a_page_of_something_between_is_tried_again_only_by_those_who_are_patient() -> None:
    page = ResponseDecodeError("x", **PLACE, status=200, from_intermediary=True)
    other = ResponseDecodeError("x", **PLACE, status=200)
    delays = [
        RetryPolicy().delay_s(error, attempt=9, may_repeat=True, draw=0.5, patient=patient)
        for error in (page, other)
        for patient in (True, False)
    ]
    assert [delay is None for delay in delays] == [False, True, True, True]


@given(attempt=st.integers(1, 5000), draw=st.floats(0, 1), base=st.floats(0, 1e6), cap=st.floats(0.001, 1e6))
def test_delay_is_drawn_from_zero_to_a_doubling_bound(
    attempt: int, draw: float, base: float, cap: float
) -> None:
    policy = RetryPolicy(max_attempts=10_000, base_delay_s=base, max_delay_s=cap)
    delay_s = policy.delay_s(answer_error(503), attempt=attempt, may_repeat=True, draw=draw)
    assert delay_s is not None
    assert 0 <= delay_s <= min(cap, base * 2.0 ** min(attempt - 1, 60))
    assert delay_s == pytest.approx(draw * min(cap, base * 2.0 ** min(attempt - 1, 60)))


def test_no_more_attempts_than_allowed() -> None:
    policy = RetryPolicy(max_attempts=3)
    delays = [policy.delay_s(answer_error(503), attempt=n, may_repeat=True, draw=0.5) for n in (1, 2, 3)]
    assert [delay is None for delay in delays] == [False, False, True]


def test_retry_after_is_a_lower_bound_and_beyond_the_cap_the_call_fails() -> None:
    policy = RetryPolicy(base_delay_s=1, max_delay_s=10)

    def delay_s(retry_after_s: float, draw: float) -> float | None:
        return policy.delay_s(answer_error(429, retry_after_s), attempt=1, may_repeat=True, draw=draw)

    assert delay_s(7, 0.1) == 7
    assert delay_s(0, 0.5) == 0.5
    assert delay_s(10, 0.5) == 10
    assert delay_s(10.1, 0.5) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("1.5", 1.5),
        ("31536000", 31536000.0),
        (format_datetime(datetime.fromtimestamp(NOW_S + 90, UTC), usegmt=True), 90.0),
        (format_datetime(datetime.fromtimestamp(NOW_S - 90, UTC), usegmt=True), 0.0),
        ("Thu, 01 Jan 2026 00:01:00", 60.0),
        ("Thursday, 01-Jan-26 00:01:00 GMT", 60.0),
        *(
            (garbage, None)
            for garbage in ("", "-1", "soon", "1e3", "nan", "inf", "٣", "1.2.3", "9" * 400, "\x00", "1 2")
        ),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, now_s=NOW_S) == seconds


@given(st.text())
def test_retry_after_of_any_text_is_nothing_or_a_number(value: str) -> None:
    seconds = parse_retry_after(value, now_s=NOW_S)
    assert seconds is None or seconds >= 0


@pytest.mark.parametrize(
    "settings",
    [
        {"max_attempts": 0},
        {"max_attempts": 1.5},
        {"base_delay_s": -1},
        {"max_delay_s": 0},
        {"base_delay_s": float("nan")},
        {"max_delay_s": float("inf")},
        {"budget": -1},
        {"budget": "10"},
        {"max_attempts": True},
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        RetryPolicy(**settings)


def test_budget_runs_dry_refills_by_success_and_with_time() -> None:
    budget = RetryBudget(RetryPolicy(budget=2, max_delay_s=10))
    assert [budget.take(now_s=0) for _ in range(3)] == [True, True, False]
    budget.refund(retried=True)
    assert [budget.take(now_s=0) for _ in range(2)] == [True, False]
    for _ in range(5):
        budget.refund(retried=False)
    assert [budget.take(now_s=0) for _ in range(2)] == [True, False]
    assert [budget.take(now_s=5.0) for _ in range(2)] == [True, False]
    for _ in range(100):
        budget.refund(retried=True)
    assert [budget.take(now_s=5.0) for _ in range(3)] == [True, True, False]


# Through the client


def always(
    code: int, **headers: str
) -> tuple[list[httpx.Request], Callable[[httpx.Request], httpx.Response]]:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(
            code, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )

    return seen, answer


async def test_put_and_get_are_tried_again_and_the_error_counts_the_attempts() -> None:
    for operation in ("update", "list"):
        seen, answer = always(503)
        transport = httpx.MockTransport(answer)
        async with PrintOSClient(
            "https://p.test", auth=None, retry=QUICK_RETRY, transport=transport
        ) as client:
            with pytest.raises(ServerError, match=r" \(5 attempts\): ") as caught:
                await (
                    client.list_devices()
                    if operation == "list"
                    else client.update_device_status("d", status())
                )
        assert len(seen) == caught.value.attempts == 5


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
async def test_post_that_reached_the_server_is_never_tried_again(code: int) -> None:
    seen, answer = always(code)
    transport = httpx.MockTransport(answer)
    async with PrintOSClient("https://p.test", auth=None, retry=QUICK_RETRY, transport=transport) as client:
        with pytest.raises(StatusError):
            await client.provision_device(model="m", serial_number="s")
    assert len(seen) == 1


async def test_post_whose_transport_error_may_have_arrived_is_never_tried_again() -> None:
    requests = 0

    def answer(_: httpx.Request) -> httpx.Response:
        nonlocal requests
        requests += 1
        raise httpx.ConnectError("says so, but who knows")

    transport = httpx.MockTransport(answer)
    async with PrintOSClient("https://p.test", auth=None, retry=QUICK_RETRY, transport=transport) as client:
        with pytest.raises(TransportError) as caught:
            await client.provision_device(model="m", serial_number="s")
    assert requests == 1
    assert caught.value.may_have_arrived is True


@pytest.mark.parametrize("way", ["single call", "push_statuses", "pusher"])
async def test_no_retry_is_announced_where_none_follows(way: str) -> None:
    events: list[Event] = []
    _, answer = always(503)
    async with PrintOSClient(
        "https://p.test",
        auth=None,
        retry=RetryPolicy(base_delay_s=0.0, budget=0),
        transport=httpx.MockTransport(answer),
        hooks=[events.append],
    ) as client:
        match way:
            case "single call":
                with pytest.raises(ServerError):
                    await client.update_device_status("dev-1", status())
            case "push_statuses":
                assert (await client.push_statuses({"dev-1": status()})).failed == 1
            case "pusher":
                async with client.status_pusher() as pusher:
                    assert (await pusher.push("dev-1", status())).outcome == "failed"
    assert sum(isinstance(event, AttemptFinished) for event in events) == 1
    assert not any(isinstance(event, RetryScheduled) for event in events)


@pytest.mark.parametrize("over", ["default wire", "httpx"])
async def test_post_that_found_no_server_is_tried_again(over: str, unused_tcp_port: int) -> None:
    events: list[Event] = []
    async with httpx.AsyncHTTPTransport() as http:
        transport = http if over == "httpx" else None
        url = f"http://127.0.0.1:{unused_tcp_port}"
        async with PrintOSClient(
            url, auth=None, retry=QUICK_RETRY, transport=transport, hooks=[events.append]
        ) as client:
            with pytest.raises(TransportError) as caught:
                await client.provision_device(model="m", serial_number="s")
    assert caught.value.attempts == 5
    assert caught.value.may_have_arrived is False
    assert sum(isinstance(event, RetryScheduled) for event in events) == 4


async def test_retry_after_beyond_the_cap_fails_at_once_and_says_how_long() -> None:
    seen, answer = always(429, retry_after="31536000")
    transport = httpx.MockTransport(answer)
    async with PrintOSClient("https://p.test", auth=None, retry=QUICK_RETRY, transport=transport) as client:
        with pytest.raises(RateLimitError) as caught:
            await client.list_devices()
    assert len(seen) == 1
    assert caught.value.retry_after_s == 31536000


async def test_a_dry_budget_ends_retries_of_single_calls() -> None:
    seen, answer = always(503)
    transport = httpx.MockTransport(answer)
    retry = RetryPolicy(base_delay_s=0.0, max_delay_s=1e6, budget=3)
    async with PrintOSClient("https://p.test", auth=None, retry=retry, transport=transport) as client:
        for _ in range(3):
            with pytest.raises(ServerError):
                await client.list_devices()
    assert len(seen) == 3 + 3

"""Which failures count against the host, and what the host monitor announces."""

from __future__ import annotations

import asyncio

import pytest

from printos_async import (
    APIError,
    CircuitChanged,
    ProxyError,
    RateLimitError,
    RequestTimeoutError,
    ResponseDecodeError,
    RetryAfterCapped,
    ServerError,
    StatusError,
    TransportError,
)
from printos_async._events import Hooks
from printos_async._execution.circuit_breaker import MAX_HOLD_S, CircuitBreaker
from printos_async._execution.host_monitor import HostMonitor

DAY_S = 86_400.0
TO_OPEN = 100  # failures at once


class Watcher:
    """Records its notices, as a pusher's scheduler receives them."""

    def __init__(self, *, waits: bool = True) -> None:
        self.waits = waits
        self.notices: list[str] = []

    def circuit_opened(self) -> None:
        self.notices.append("opened")

    def has_waiting(self) -> bool:
        return self.waits

    def more_admitted(self) -> None:
        self.notices.append("more")

    def permit_freed(self) -> None:
        self.notices.append("permit")


class Monitored:
    """A host monitor with one watcher, and the events that it has emitted."""

    def __init__(self, *, waits: bool = True) -> None:
        self.watcher = Watcher(waits=waits)
        self.events: list[object] = []
        self.circuit_breaker = CircuitBreaker()
        self.monitor = HostMonitor("host", Hooks([self.events.append]), [self.watcher], self.circuit_breaker)

    def fail(self, error: APIError, times: int = 1) -> None:
        for _ in range(times):
            self.monitor.failed(error, is_login=False)

    def succeed(self) -> None:
        if self.circuit_breaker.succeeded(now_s=asyncio.get_running_loop().time()):
            self.monitor.more_admitted()

    @property
    def is_open(self) -> bool:
        return self.circuit_breaker.circuit == "open"


def refused(status: int, *, retry_after_s: float | None = None) -> StatusError:
    kind = {429: RateLimitError, 503: ServerError}.get(status, StatusError)
    return kind(f"status {status}", method="PUT", path="/", status=status, retry_after_s=retry_after_s)


def undecodable(*, from_intermediary: bool) -> ResponseDecodeError:
    return ResponseDecodeError(
        "no JSON", method="PUT", path="/", status=200, from_intermediary=from_intermediary
    )


FAULT = refused(500)


@pytest.mark.parametrize(
    "error",
    [
        *map(refused, (408, 429, 500, 503, 599)),
        TransportError("reset", method="PUT", path="/"),
        RequestTimeoutError("late", method="PUT", path="/"),
        ProxyError("no tunnel", method="PUT", path="/", status=502),
        undecodable(from_intermediary=True),
    ],
    ids=repr,
)
async def test_faults_open_the_circuit(error: APIError) -> None:
    host = Monitored()
    host.fail(error, TO_OPEN - 1)
    assert not host.is_open
    host.fail(error)
    assert host.is_open


@pytest.mark.parametrize(
    "error", [*map(refused, (400, 403, 404, 409, 422)), undecodable(from_intermediary=False)], ids=repr
)
async def test_a_refusal_of_one_request_shows_a_working_host(error: APIError) -> None:
    host = Monitored()
    host.fail(FAULT, TO_OPEN - 1)
    host.fail(error)
    host.fail(FAULT, TO_OPEN - 1)
    assert not host.is_open


@pytest.mark.parametrize(
    "error",
    [
        refused(302),
        TransportError("no descriptor left", method="PUT", path="/", local=True),
        ProxyError("wrong password", method="PUT", path="/", status=407),
    ],
    ids=repr,
)
async def test_some_failures_say_nothing_about_the_host(error: APIError) -> None:
    host = Monitored()
    host.fail(FAULT, TO_OPEN - 1)
    host.fail(error, TO_OPEN)
    assert not host.is_open
    host.fail(FAULT)
    assert host.is_open


async def test_each_change_of_the_circuit_is_announced_once() -> None:
    host = Monitored()
    host.fail(FAULT, 2 * TO_OPEN)
    assert (host.events, host.watcher.notices) == ([CircuitChanged("open", "host")], ["opened"])
    for _ in range(3):
        host.succeed()
    assert host.events == [CircuitChanged("open", "host"), CircuitChanged("closed", "host")]
    assert host.watcher.notices == ["opened", "more", "more", "more"]
    host.succeed()
    assert len(host.events) == 2
    assert len(host.watcher.notices) == 4


async def test_the_first_success_closes_the_circuit_when_nothing_waits() -> None:
    host = Monitored(waits=False)
    host.fail(FAULT, TO_OPEN)
    host.succeed()
    assert host.events[-1] == CircuitChanged("closed", "host")


@pytest.mark.parametrize("status", [429, 503])
async def test_a_long_pause_is_announced_once_and_opens_nothing(status: int) -> None:
    host = Monitored()
    host.fail(refused(status, retry_after_s=DAY_S), 2 * TO_OPEN)
    assert host.events == [RetryAfterCapped(DAY_S, MAX_HOLD_S, "host")]
    assert not host.is_open


async def test_only_429_and_503_may_ask_for_a_pause() -> None:
    host = Monitored()
    host.fail(refused(502, retry_after_s=DAY_S), TO_OPEN)
    assert host.events == [CircuitChanged("open", "host")]


async def test_refusals_for_load_do_not_make_the_host_seem_down() -> None:
    host = Monitored()
    host.fail(refused(429), TO_OPEN)
    assert not host.circuit_breaker.seems_down
    host.fail(FAULT, TO_OPEN)
    assert host.circuit_breaker.seems_down

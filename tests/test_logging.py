from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any, get_args

import attrs
import pytest

from printos_async import (
    AccountHeld,
    AccountResumed,
    APIError,
    AttemptFinished,
    CircuitChanged,
    ClockSkewDetected,
    Endpoint,
    Event,
    FieldUnreadable,
    HmacAuth,
    LeaseLost,
    LimitChanged,
    PrintOSClient,
    ReassertionFailed,
    RetryAfterCapped,
    RetryPolicy,
    RetryScheduled,
    SqlOutbox,
    StatusAccepted,
    StatusFailed,
    StatusReasserted,
    StatusSent,
    StatusSuperseded,
    StatusWithdrawn,
)
from printos_async._events import Hooks

from .conftest import KEY, SECRET, status, status_with
from .watching import exercise_parrot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from printos_async.sandbox import Sandbox

DEBUG, INFO, WARNING = logging.DEBUG, logging.INFO, logging.WARNING
ENDPOINT = Endpoint("PUT", "/devices/{deviceId}/status", "https", "printos.test", 443)
EVENTS: list[tuple[Event, int, str]] = [
    (
        AttemptFinished("updateDeviceStatus", "d", 2, 0.25, 503, "error", "ServerError", ENDPOINT),
        DEBUG,
        "updateDeviceStatus, device d, attempt 2: error, status 503, 0.250 s",
    ),
    (
        RetryScheduled("updateDeviceStatus", "d", 1, 0.5, "ServerError"),
        DEBUG,
        "updateDeviceStatus, device d: again in 0.500 s after attempt 1, ServerError",
    ),
    (StatusAccepted("d", 7), DEBUG, "status 7 accepted: device d"),
    (StatusSuperseded("d", 7, 8), DEBUG, "status 7 superseded by 8: device d"),
    (StatusSent("d", 8, 2, 0.75), DEBUG, "status 8 sent: device d, 2 attempts, 0.750 s"),
    (
        StatusFailed("d", 8, 1, "NotFoundError", "PUT /devices/d/status: 404 Not Found"),
        WARNING,
        "status 8 given up: device d, NotFoundError: PUT /devices/d/status: 404 Not Found",
    ),
    (StatusReasserted("d", 8), DEBUG, "status 8 sent again: device d"),
    (
        ReassertionFailed("d", 8, "NotFoundError"),
        WARNING,
        "status 8 could not be sent again, device d may have an older one: NotFoundError",
    ),
    (StatusWithdrawn("d", 9), DEBUG, "status 9 withdrawn: device d"),
    (LimitChanged(64, 57, "overload"), DEBUG, "57 requests may be in flight, 64 before: overload"),
    (LeaseLost(3), WARNING, "the lease on 3 devices was lost: not renewed in time"),
    (CircuitChanged("open", "printos.test"), WARNING, "the circuit of printos.test is open"),
    (
        AccountHeld("key k123…", "AuthenticationError", 401),
        WARNING,
        "key k123… is held after AuthenticationError (status 401): its statuses wait until a request gets through",
    ),
    (AccountResumed("key k123…"), INFO, "key k123… is held no longer"),
    (
        ClockSkewDetected("key k123…", 3600.0, is_corrected=True),
        WARNING,
        "PrintOS's clock is 3600 s ahead of this machine's, for key k123…: set this machine's clock",
    ),
    (CircuitChanged("closed", "printos.test"), INFO, "the circuit of printos.test is closed"),
    (
        RetryAfterCapped(86_400.0, 3_600.0, "printos.test"),
        WARNING,
        "printos.test asked for a pause of 86400 s: held for 3600 s, then probed once a minute",
    ),
    (
        FieldUnreadable("listDevices", "d", "provisionedAt", "yesterday"),
        DEBUG,
        "listDevices, device d: provisionedAt cannot be read and stays unset",
    ),
]


@pytest.fixture
def debug(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(DEBUG, "printos_async"):
        yield caplog


def ours(caplog: pytest.LogCaptureFixture) -> list[Any]:
    """Return the log records of the events; typed as Any, because their fields are attributes."""
    return [record for record in caplog.records if record.name == "printos_async.events"]


@pytest.mark.parametrize(("event", "level", "text"), EVENTS, ids=lambda value: type(value).__name__)
def test_an_event_is_a_record_with_its_fields(
    debug: pytest.LogCaptureFixture, event: Event, level: int, text: str
) -> None:
    Hooks([]).emit(event)
    [record] = ours(debug)
    assert (record.levelno, record.getMessage()) == (level, text)
    assert record.event == type(event).__name__
    for name, value in attrs.asdict(event, recurse=False).items():
        if name not in {"raw", "endpoint"}:
            assert getattr(record, name) == value
    json.dumps(record.__dict__, default=None)  # a formatter for JSON has nothing to stumble over


def test_every_event_has_its_record() -> None:
    assert {type(event) for event, _, _ in EVENTS} == set(get_args(Event))


def test_frequent_events_are_not_even_made_unless_they_are_wanted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert not Hooks([])
    assert Hooks([lambda _: None])
    with caplog.at_level(INFO, "printos_async"):
        assert not Hooks([])
    with caplog.at_level(DEBUG, "printos_async.events"):
        assert Hooks([])


def test_the_library_sets_no_level_and_adds_no_handler() -> None:
    for name in ("printos_async", "printos_async.events", "printos_async.pusher"):
        log = logging.getLogger(name)
        assert (log.handlers, log.level, log.propagate, log.filters) == ([], logging.NOTSET, True, [])


async def test_a_status_that_is_given_up_is_a_warning_without_any_hook(
    client: PrintOSClient, caplog: pytest.LogCaptureFixture
) -> None:
    async with client.status_pusher() as pusher:
        await pusher.put("dev-1", status())
        await pusher.put("nobody", status())
    [record] = ours(caplog)
    assert record.levelno == WARNING
    assert (record.device_id, record.seq, record.attempts, record.cause) == ("nobody", 2, 1, "NotFoundError")
    assert "PUT /devices/nobody/status: 404 Not Found" in record.getMessage()


async def test_an_outage_is_a_warning_and_its_end_is_told(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    retry = RetryPolicy(max_attempts=1)
    with caplog.at_level(INFO, "printos_async"):
        async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), retry=retry) as client:
            sandbox.inject("reset_before", times=100)
            for _ in range(100):
                with pytest.raises(APIError):
                    await client.list_devices()
            await client.list_devices()
    assert [(record.levelno, record.circuit, record.host) for record in ours(caplog)] == [
        (WARNING, "open", "127.0.0.1"),
        (INFO, "closed", "127.0.0.1"),
    ]


async def test_at_debug_the_log_tells_the_whole_way_of_a_status(
    client: PrintOSClient, sandbox: Sandbox, debug: pytest.LogCaptureFixture
) -> None:
    sandbox.inject("reset_before", device_id="dev-1")
    async with client.status_pusher() as pusher:
        result = await pusher.push("dev-1", status())
    assert result.attempts == 2
    told = [(record.event, getattr(record, "attempt", None)) for record in ours(debug)]
    assert told == [
        ("StatusAccepted", None),
        ("AttemptFinished", 1),
        ("RetryScheduled", 1),
        ("AttemptFinished", 2),
        ("StatusSent", None),
    ]
    assert [record.status for record in ours(debug) if record.event == "AttemptFinished"] == [None, 200]
    assert {record.device_id for record in ours(debug)} == {"dev-1"}


async def test_what_gets_no_outcome_is_withdrawn_once(
    client: PrintOSClient, sandbox: Sandbox, debug: pytest.LogCaptureFixture
) -> None:
    await sandbox.block()
    pusher = client.status_pusher()
    await pusher.put("dev-1", status(1))
    await sandbox.wait_for(lambda: sandbox.in_flight == 1)
    push = asyncio.create_task(pusher.push("dev-1", status(2)))
    await asyncio.sleep(0)  # it runs up to the status that waits
    assert pusher.stats().accepted == 2
    push.cancel()
    await asyncio.gather(push, return_exceptions=True)
    await pusher.put("dev-1", status(3))
    assert (await pusher.drain(timeout_s=0)).pending == 2
    await pusher.aclose()
    await pusher.aclose()
    told = [(record.event, record.seq) for record in ours(debug)]
    assert told == [
        ("StatusAccepted", 1),
        ("StatusAccepted", 2),
        ("StatusWithdrawn", 2),
        ("StatusAccepted", 3),
        ("StatusWithdrawn", 1),
        ("StatusWithdrawn", 3),
    ]
    warnings: list[Any] = [record for record in debug.records if record.levelno == WARNING]
    assert [(record.name, record.pending, record.timeout_s) for record in warnings] == [
        ("printos_async.pusher", 2, 0)
    ]


async def test_a_filter_that_raises_harms_nothing_and_is_reported_once(
    client: PrintOSClient, sandbox: Sandbox, debug: pytest.LogCaptureFixture
) -> None:
    def broken(record: logging.LogRecord) -> bool:
        raise RuntimeError(record.getMessage())

    log = logging.getLogger("printos_async.events")
    log.addFilter(broken)
    try:
        report = await client.push_statuses({f"dev-{index}": status() for index in range(10)})
    finally:
        log.removeFilter(broken)
    assert report.sent == 10
    assert [record.getMessage() for record in debug.records if record.name == "printos_async"] == [
        "hook failed, further failures are not logged: RuntimeError"
    ]


async def test_no_record_holds_a_secret_that_the_server_repeats(debug: pytest.LogCaptureFixture) -> None:
    heard = await exercise_parrot([])
    assert len(heard) > 5  # signatures came by as well
    assert {"AttemptFinished", "StatusFailed", "FieldUnreadable"} <= {record.event for record in ours(debug)}
    everything = " ".join(f"{record.getMessage()} {record.__dict__}" for record in debug.records)
    assert "[redacted]" in everything
    assert [secret for secret in heard if secret in everything] == []


async def test_no_status_is_in_what_the_libraries_of_a_database_log(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    for name in ("", "asyncio", "sqlalchemy", "printos_async"):
        caplog.set_level(DEBUG, logger=name)
    outbox = SqlOutbox(f"sqlite+aiosqlite:///{tmp_path / 'outbox.db'}")
    async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET)) as client:
        async with client.spooler(outbox) as spooler:
            await spooler.put("dev-1", status_with("CANARY-1"))
        async with client.status_pusher(outbox=outbox, skip_unchanged=True) as pusher:
            await pusher.push("dev-2", status_with("CANARY-2"))
            await pusher.put("nobody", status_with("CANARY-3"))
    assert "CANARY-1" in str(sandbox.devices["dev-1"].status)
    assert "sqlalchemy.engine.Engine.printos_async" in {record.name for record in caplog.records}
    everything = " ".join(
        f"{record.getMessage()} {record.args} {record.__dict__}" for record in caplog.records
    )
    assert "[withheld]" in everything
    assert "CANARY" not in everything

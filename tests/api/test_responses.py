"""Any JSON, and any bytes, become models or a ``DecodeError``."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from printos_async import UNSET, FieldUnreadable, PrintDevice
from printos_async._api.body import DecodeError, content
from printos_async._api.responses import (
    MAX_DEVICES,
    SLICE_DEVICES,
    Answers,
)
from printos_async._common.http import parse_retry_after
from printos_async._events import Hooks
from printos_async._transport import RawResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from printos_async import Hook

T = TypeVar("T")
KEYS = st.sampled_from(["id", "model", "serialNumber", "status", "registeredAt", "devices", "x"]) | st.text()
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=20,
)
DEVICES = st.dictionaries(KEYS, JSON, max_size=6)


def answers(*hooks: Hook) -> Answers:
    return Answers(max_body_bytes=64 << 20, hooks=Hooks(hooks))


def finish(coroutine: Coroutine[None, None, T]) -> T:
    """Run a coroutine without an event loop: all it does is to let others have their turn."""
    while True:
        try:
            coroutine.send(None)
        except StopIteration as end:
            result: T = end.value
            return result


def decode_list(body: bytes, *hooks: Hook) -> list[PrintDevice]:
    return finish(answers(*hooks).device_page(RawResponse(200, [], body))).devices


def decode_provisioned(body: bytes, *hooks: Hook) -> PrintDevice:
    return finish(answers(*hooks).provisioned(RawResponse(200, [], body)))


@settings(deadline=None)
@given(JSON | st.fixed_dictionaries({"devices": st.lists(JSON | DEVICES)}) | DEVICES)
def test_any_json_becomes_models_or_an_error(value: Any) -> None:
    body = json.dumps(value).encode()
    for decode in (decode_list, decode_provisioned):
        try:
            result = decode(body)
        except DecodeError:
            continue
        for device in result if isinstance(result, list) else [result]:
            for name in ("id", "model", "serial_number", "status"):
                part = getattr(device, name)
                assert part is UNSET or isinstance(part, str)
            device.to_dict()


@settings(deadline=None)
@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_become_models_or_an_error(body: bytes) -> None:
    for decode in (decode_list, decode_provisioned):
        try:
            decode(body)
        except DecodeError as error:
            assert not body.isascii() or len(body) < 40 or body.decode() not in str(error)  # noqa: PT017


@settings(deadline=None)
@given(st.lists(DEVICES))
def test_every_property_of_a_device_survives(raw: list[dict[str, Any]]) -> None:
    text = json.dumps({"devices": raw}, allow_nan=True)
    if "NaN" in text or "Infinity" in text:
        return
    unreadable: list[Any] = []
    devices = decode_list(text.encode(), unreadable.append)
    for device, given_ in zip(devices, raw, strict=True):
        assert {**device.to_dict(), "registeredAt": 0} == {**given_, "registeredAt": 0}
        assert ("registeredAt" in device.to_dict()) == ("registeredAt" in given_)
    assert all(event.field in PRINT_DEVICE_FIELDS for event in unreadable)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"devices":[' + ",".join(["{}"] * MAX_DEVICES) + "]}", None),
        ('{"devices":[' + ",".join(["{}"] * (MAX_DEVICES + 1)) + "]}", "more than 250,000 devices"),
        ('{"total":1,"devices":[' + ",".join(["{}"] * (MAX_DEVICES + 1)) + "]}", "more than 250,000 devices"),
        ('{"devices":[{"x":[' + "[]," * 1_300_000 + "0]}]}", "more than 2,500,000 values"),
        ('{"devices":[{"x":{' + '"":0,' * 2_600_000 + '"":0}}]}', "more than 2,500,000 values"),
    ],
    ids=["most devices", "more devices", "more devices behind a total", "lists", "properties"],
)
def test_the_number_of_devices_and_of_values_is_bounded(text: str, error: str | None) -> None:
    if error is None:
        assert len(decode_list(text.encode())) == MAX_DEVICES
        return
    with pytest.raises(DecodeError, match=error):
        decode_list(text.encode())


def test_an_answer_that_grows_a_thousandfold_costs_no_more_than_its_bytes() -> None:
    body = gzip.compress(b'{"devices":[' + b"{}," * 22_000_000 + b"{}]}")
    assert len(body) < 66_000
    response = RawResponse(200, [("content-encoding", "gzip")], body)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match="more than 2,500,000 values"):
            finish(answers().device_page(response))
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ('{"devices":[]}', []),
        (' { "devices" : [ { "id" : "a" } , { "id" : "b" } ] } ', ["a", "b"]),
        ('{"devices":[{"id":"a"}],"total":1}', ["a"]),
        ('{"total":1,"devices":[{"id":"a"}]}', ["a"]),
        ('{"devices":[{"id":"a"}],"devices":[{"id":"b"}]}', ["b"]),
        ('\ufeff{"devices":[{"id":"a"}]}', ["a"]),
        ('{"devices":[{"id":"\\ud800"}]}', ["\ud800"]),
        ('{"devices":[{"id":"a"},]}', None),
        ('{"devices":[,{"id":"a"}]}', None),
        ('{"devices":[{"id":"a"}', None),
        ('{"devices":[{"id":"a"}]', None),
        ('{"devices":[{"id":"a"}]}}', None),
        ('{"devices":[{"id":"a"}]"x":1}', None),
        ('{"devices":[{"id":"a"}],}', None),
        ('{"devices":[{"id":"a"}],"devices":null}', None),
        ('{"devices":[{"id":"a","x":NaN}]}', None),
        ('{"devices":[{"id":"a"}],"x":NaN}', None),
        ('{"devices":[{"id":"a"},null]}', None),
    ],
)
def test_a_list_is_read_in_slices_as_it_would_be_as_a_whole(text: str, ids: list[str] | None) -> None:
    if ids is None:
        with pytest.raises(DecodeError):
            decode_list(text.encode())
    else:
        assert [device.id for device in decode_list(text.encode())] == ids


async def test_a_hundred_thousand_devices_leave_the_loop_to_others() -> None:
    devices = [
        {
            "id": f"{number:032x}",
            "model": "Indigo 12000",
            "serialNumber": f"SN-{number:08d}",
            "status": "DS_PRINTING",
            "registeredAt": "2024-01-15T12:34:56Z",
        }
        for number in range(100_000)
    ]
    body = gzip.compress(json.dumps({"devices": devices}).encode(), 1)
    response = RawResponse(200, [("content-encoding", "gzip")], body)
    listing = asyncio.create_task(answers().device_page(response))
    turns = 0
    while not listing.done():
        await asyncio.sleep(0)
        turns += 1
    assert len((await listing).devices) == 100_000
    # One for each slice, so that no block grows with the list.
    assert turns >= 100_000 // SLICE_DEVICES


PRINT_DEVICE_FIELDS = {"id", "model", "serialNumber", "status", "registeredAt"}


def decode_date(text: str) -> datetime | None:
    body = json.dumps({"id": "a", "registeredAt": text}).encode()
    events: list[object] = []
    device = decode_provisioned(body, events.append)
    if isinstance(device.registered_at, datetime):
        assert events == []
        return device.registered_at
    assert device.additional_properties["registeredAt"] == text
    assert events == [FieldUnreadable("provisionDevice", "a", "registeredAt", text)]
    return None


DATE_PARTS = st.sampled_from(
    [
        "2024",
        "-",
        "01",
        "15",
        "T",
        " ",
        "12",
        ":",
        "34",
        ".",
        "789",
        "Z",
        "+",
        "05:30",
        "Jan",
        "Mon",
        "GMT",
        "am",
        "EST",
        "/",
        "W03",
        "99",
        "e9",
        "\x00",
        "٣",
        "²",
        "-0",
        "99999999999",
    ]
)


@settings(deadline=None, max_examples=500)
@given(st.text() | st.lists(DATE_PARTS, max_size=16).map("".join) | st.datetimes().map(str))
def test_any_text_is_a_date_or_kept_raw(text: str) -> None:
    moment = decode_date(text)
    assert moment is None or datetime.fromisoformat(moment.isoformat()) == moment


@settings(deadline=None)
@given(st.datetimes(timezones=st.none() | st.just(UTC) | st.just(timezone(timedelta(hours=-3, minutes=-30)))))
def test_iso_dates_are_read_as_written(moment: datetime) -> None:
    assert decode_date(moment.isoformat()) == moment


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2024-01-15T12:34:56Z", "2024-01-15T12:34:56+00:00"),
        ("2024-01-15T12:34:56.7891234Z", "2024-01-15T12:34:56.789123+00:00"),
        ("2024-01-15T12:34:56 +0530", "2024-01-15T12:34:56+05:30"),
        ("Mon, 15 Jan 2024 12:34:56 GMT", "2024-01-15T12:34:56+00:00"),
        ("15 January 2024 12:34", "2024-01-15T12:34:00"),
        ("2024-01-15 24:00", None),
        ("01/02/2024", None),  # January or February
        ("12:34", None),  # of which day
        ("January 2024", None),
        ("2024-01-15T12:34:56 IST", None),  # India, Ireland or Israel
        ("2024-02-30", None),
        ("yesterday", None),
        ("", None),
        ("1705322096", None),
        ("2024-01-15T12:34:56Z" + " " * 60, None),
    ],
)
def test_date_is_read_where_it_is_certain(text: str, wanted: str | None) -> None:
    moment = decode_date(text)
    assert (None if moment is None else moment.isoformat()) == wanted


def deflated(body: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(body) + deflater.flush()


CODINGS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": deflated, "identity": bytes}


@settings(deadline=None)
@given(st.binary(max_size=3000), st.sampled_from(sorted(CODINGS)), st.integers(0, 4000), st.data())
def test_content_is_the_plain_body_or_an_error(
    plain: bytes, coding: str, limit: int, data: st.DataObject
) -> None:
    body = CODINGS[coding](plain)
    whole = data.draw(st.booleans())
    if not whole:
        body = body[: data.draw(st.integers(0, max(len(body) - 1, 0)))]
    response = RawResponse(200, [("content-encoding", coding)], body)
    try:
        result = content(response, max_bytes=limit)
    except DecodeError:
        assert not whole or len(plain) > limit
        return
    if coding == "identity":
        assert result == body  # the wire has bounded it
    else:
        assert result == (plain if whole else b"")
        assert len(result) <= limit


@settings(deadline=None)
@given(st.text() | st.sampled_from(["1e999", "٣", "²", "1_0", "0x10", "-5", "1.5.2", "." * 20, "9" * 5000]))
def test_any_retry_after_is_seconds_or_nothing(value: str) -> None:
    seconds = parse_retry_after(value, now_s=1.7e9)
    assert seconds is None or 0 <= seconds < float("inf")

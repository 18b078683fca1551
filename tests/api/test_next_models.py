"""A next specification's fields are read from its models: checked, sent, read, and given columns, without a change."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, timedelta, timezone
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import pytest
from attrs import evolve
from printos_device_api.types import UNSET, Unset

from printos_async import (
    ConfigurationError,
    DeviceProvisionRequest,
    DeviceStatusUpdate,
    FieldUnreadable,
    InvalidProvisionRequestError,
    InvalidStatusError,
    PrintOSClient,
    ResponseDecodeError,
)
from printos_async._api.fields import fields_of
from printos_async._api.generated_client import GENERATED_CLIENT
from printos_async._api.json_validation import raw_object_problem
from printos_async._api.pages import Pages, pages_of
from printos_async._api.requests import Operations
from printos_async._api.responses import Answers
from printos_async._api.validation import _check
from printos_async._events import Hooks
from printos_async._execution.listing import list_all
from printos_async._models import StoredStatus
from printos_async._transport import HttpxTransport, RawResponse
from printos_async.cli.input.records import columns_of
from tests.clients import ClientOver, channel_over

from .next_models import NextAlert, NextDevice, NextDeviceList, NextLabels, NextSite, NextStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from printos_async._api.generated_client import GeneratedClient
    from printos_async._execution.channel import Channel

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAY = date(2026, 11, 21)


class Word(StrEnum):
    ON = "DS_ON"


def labels(**values: Any) -> NextLabels:
    made = NextLabels()
    made.additional_properties = values
    return made


def check(status: NextStatus) -> None:
    _check("status update", status, NextStatus, InvalidStatusError)


def test_fields_have_the_names_and_the_order_of_the_specification() -> None:
    fields = fields_of(NextStatus)
    assert [(field.attribute, field.name) for field in fields] == list(NextStatus.NAMES.items())
    assert [field.name for field in fields if field.is_required] == ["status"]


GOOD: list[dict[str, Any]] = [
    {"timestamp": NOON},
    {"timestamp": NOON.astimezone(timezone(timedelta(hours=-3, minutes=-30)))},
    {"status": Word.ON},
    {"day": DAY},
    {"online": False},
    {"ink_level": 1},
    {"rank": 2},
    {"note": None},
    {"note": "n"},
    {"checked_at": None},
    {"checked_at": NOON},
    {"jdf_url": "u", "firmware_version": "1"},
    {"job_id": UUID(int=1)},
    {"trays": []},
    {"trays": ["a", "b"]},
    {"days": [[DAY], []]},
    {"alerts": [NextAlert(1), NextAlert(2, NOON)]},
    {"site": NextSite("s", "open", DAY)},
    {"labels": labels(a="b")},
    {"either": 1},
    {"either": "1"},
    {"anything": {"a": [None, 1.5]}},
]


@pytest.mark.parametrize("values", GOOD)
def test_a_value_of_each_type_can_be_sent_and_is_read_as_json(values: dict[str, Any]) -> None:
    status = NextStatus(**{"status": "DS_ON", **values})
    check(status)
    body = json.loads(json.dumps(status.to_dict()))
    assert raw_object_problem(body, NextStatus, "") is None
    assert raw_object_problem({**body, "unknown": 1}, NextStatus, "") is None


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"status": UNSET}, "status is missing"),
        ({"status": "DS_DANCING"}, "status must be one of DS_OFF, DS_ON, not str 'DS_DANCING'"),
        ({"status": None}, "status must be one of DS_OFF, DS_ON, not NoneType"),
        (
            {"timestamp": NOON.replace(tzinfo=None)},
            "timestamp must have a time zone: 2026-11-21T12:00:00 has none",
        ),
        (
            {"timestamp": NOON.astimezone(timezone(timedelta(seconds=1)))},
            "timestamp must have an offset of whole minutes",
        ),
        ({"timestamp": DAY}, "timestamp must be a date-time with an offset (RFC 3339), not date"),
        (
            {"timestamp": "2026-11-21T12:00:00Z"},
            "timestamp must be a date-time with an offset (RFC 3339), not str",
        ),
        ({"checked_at": NOON.replace(tzinfo=None)}, "checkedAt must have a time zone"),
        ({"day": NOON}, "day must be a date (YYYY-MM-DD), not datetime"),
        ({"online": 1}, "online must be true or false, not int 1"),
        ({"rank": 3}, "rank must be one of 1, 2, not int 3"),
        ({"rank": True}, "rank must be one of 1, 2, not bool"),
        ({"note": 1}, "note must be a text or null, not int 1"),
        ({"job_id": "1"}, "jobId must be a UUID, not str '1'"),
        ({"trays": "a"}, "trays must be a list, not str 'a'"),
        ({"trays": ["a", 1]}, "trays[1] must be a text, not int 1"),
        ({"days": [[DAY], [DAY, NOON]]}, "days[1][1] must be a date"),
        ({"alerts": [NextAlert(1), NextAlert("x")]}, "alerts[1].code must be a whole number, not str 'x'"),  # type: ignore[arg-type]
        ({"alerts": [{"code": 1}]}, "alerts[0] must be NextAlert, not dict"),
        ({"site": NextSite(name=5)}, "site.name must be a text, not int 5"),  # type: ignore[arg-type]
        ({"labels": labels(a=1)}, "labels.a must be a text, not int 1"),
        ({"either": 1.5}, "either must be a text or a whole number, not float 1.5"),
        ({"either": True}, "either must be a text or a whole number, not bool"),
        ({"anything": NOON}, "anything must be a JSON value, not datetime"),
        ({"ink_level": float("nan")}, "inkLevel must be a finite number"),
    ],
)
def test_a_value_that_the_specification_does_not_allow_is_refused_with_the_field(
    values: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidStatusError, match=re.escape(problem)):
        check(NextStatus(**{"status": "DS_ON", **values}))


def test_an_additional_property_under_a_name_that_no_rule_makes_is_refused() -> None:
    status = NextStatus("DS_ON")
    status.additional_properties["jdfURL"] = 5
    with pytest.raises(InvalidStatusError, match="jdfURL must be set as the attribute"):
        check(status)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ({"status": None}, "status must be one of DS_OFF, DS_ON, not NoneType"),
        ({"status": ["DS_ON"]}, "status must be one of DS_OFF, DS_ON, not list"),
        ({"timestamp": "noon"}, "timestamp must be a date-time with an offset (RFC 3339), not str 'noon'"),
        ({"timestamp": "2026-11-21"}, "timestamp must be a date-time"),
        ({"timestamp": "2026-11-21T12:00:00"}, "timestamp must be a date-time"),
        ({"timestamp": "2026-02-30T12:00:00Z"}, "timestamp must be a date-time"),
        ({"timestamp": "2026-W47-6T12:00:00Z"}, "timestamp must be a date-time"),
        ({"timestamp": 0}, "timestamp must be a date-time"),
        ({"day": "20261121"}, "day must be a date (YYYY-MM-DD), not str '20261121'"),
        ({"online": "true"}, "online must be true or false, not str 'true'"),
        ({"inkLevel": True}, "inkLevel must be a number, not bool"),
        ({"rank": True}, "rank must be one of 1, 2, not bool"),
        ({"rank": 1.0}, "rank must be one of 1, 2, not float 1.0"),
        ({"jobId": "x"}, "jobId must be a UUID"),
        ({"jdfURL": None}, "jdfURL must be a text, not NoneType"),
        ({"trays": [1]}, "trays[0] must be a text, not int 1"),
        ({"trays": {}}, "trays must be a list, not dict"),
        ({"alerts": [{}]}, "alerts[0].code is missing"),
        ({"alerts": [{"code": 1, "x": 1}]}, "alerts[0].x is unknown"),
        ({"alerts": [{"code": 1, "raisedAt": "x"}]}, "alerts[0].raisedAt must be a date-time"),
        ({"site": 5}, "site must be an object, not int 5"),
        ({"labels": {"a": 1}}, "labels.a must be a text, not int 1"),
        ({"either": None}, "either must be a text or a whole number, not NoneType"),
    ],
)
def test_a_json_value_that_the_specification_does_not_allow_is_refused_with_the_field(
    raw: dict[str, Any], problem: str
) -> None:
    found = raw_object_problem({"status": "DS_ON", **raw}, NextStatus, "")
    assert found is not None
    assert problem in found


def test_a_required_property_that_is_missing_is_refused() -> None:
    assert raw_object_problem({"day": "2026-11-21"}, NextStatus, "") == "status is missing"


def test_every_field_with_a_single_value_has_a_column_and_no_name_hides_another() -> None:
    columns = {name: (".".join(column.path), column.kind) for name, column in columns_of(NextStatus).items()}
    assert columns == {
        **{name: (name, str) for name in ("status", "timestamp", "day", "note", "checkedAt", "jdfURL")},
        **{name: (name, str) for name in ("firmware_version", "jobId", "either")},
        "online": ("online", bool),
        "inkLevel": ("inkLevel", float),
        "rank": ("rank", int),
        "name": ("site.name", str),
        "site.status": ("site.status", str),
        "opened_on": ("site.opened_on", str),
    }


def test_a_stored_status_that_the_model_cannot_be_made_of_stays_as_it_was_stored() -> None:
    stored = StoredStatus({"status": 5, "x": 1})
    assert stored.to_dict() == {"status": 5, "x": 1}
    assert isinstance(stored, DeviceStatusUpdate)
    word: object = stored.status
    assert word is UNSET
    with pytest.raises(InvalidStatusError, match="status update: status "):
        Operations("").update_device_status("dev-1", stored)


# Answers


def next_channel(generated: GeneratedClient, answer: Callable[[httpx.Request], httpx.Response]) -> Channel:
    return channel_over(HttpxTransport(httpx.MockTransport(answer)), generated=generated)


def answering(answers: list[httpx.Response], asked: list[str]) -> Callable[[httpx.Request], httpx.Response]:
    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url.query, "ascii"))
        return answers[len(asked) - 1]

    return answer


NEXT_DEVICE = evolve(GENERATED_CLIENT, device=NextDevice)


async def test_what_an_optional_field_cannot_hold_stays_unset_and_is_reported() -> None:
    events: list[object] = []
    raw = {"id": "a", "kind": "NEW", "lastSeen": "2026-11-21T12:00:00Z", "site": {"opened_on": "x"}}
    answers = Answers(max_body_bytes=1000, hooks=Hooks([events.append]), generated=NEXT_DEVICE)
    page = await answers.device_page(RawResponse(200, [], json.dumps({"devices": [raw]}).encode()))
    device: Any = page.devices[0]
    assert (device.kind, device.last_seen, device.site) == (UNSET, "2026-11-21T12:00:00Z", UNSET)
    assert device.additional_properties == {"kind": "NEW", "site": {"opened_on": "x"}}
    assert events == [
        FieldUnreadable("listDevices", "a", "kind", "NEW"),
        FieldUnreadable("listDevices", "a", "site", {"opened_on": "x"}),
    ]


@pytest.mark.parametrize(
    ("devices", "problem"),
    [
        ([{"id": "a"}, {"kind": "DS_ON"}], r"id of devices\[1\] is missing"),
        ([{"id": None}], r"id of devices\[0\] is not a text"),
    ],
)
async def test_a_device_without_a_required_field_is_a_decode_error(
    devices: list[dict[str, Any]], problem: str
) -> None:
    answer = answering([httpx.Response(200, json={"devices": devices})], [])
    async with ClientOver(next_channel(NEXT_DEVICE, answer)) as client:
        with pytest.raises(ResponseDecodeError, match=problem):
            await client.list_devices()


# Pages


def next_get_kwargs(*, page_token: str | Unset = UNSET, page_size: int | Unset = UNSET) -> dict[str, Any]:
    params = {"pageToken": page_token, "pageSize": page_size}
    params = {name: value for name, value in params.items() if value is not UNSET}
    return {"method": "get", "url": "/devices", "params": params}


PAGED = evolve(GENERATED_CLIENT, list_devices=next_get_kwargs, device_list=NextDeviceList)


def page(*ids: str, **more: Any) -> httpx.Response:
    return httpx.Response(200, json={**more, "devices": [{"id": id_} for id_ in ids]})


async def test_a_list_is_read_page_by_page() -> None:
    asked: list[str] = []
    pages = [page("a", nextPageToken="t 1"), page(nextPageToken="t2"), page("b", "c", nextPageToken="")]
    async with ClientOver(next_channel(PAGED, answering(pages, asked))) as client:
        devices = await client.list_devices()
    assert [device.id for device in devices] == ["a", "b", "c"]
    assert asked == ["", "pageToken=t+1", "pageToken=t2"]


async def test_provisioning_finds_a_device_of_a_later_page() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.method == "GET"
        if request.url.query:
            return httpx.Response(200, json={"devices": [{"id": "z", "model": "m", "serialNumber": "s"}]})
        return page("a", nextPageToken="t")

    async with ClientOver(next_channel(PAGED, answer)) as client:
        [result] = await client.ensure_devices([DeviceProvisionRequest(model="m", serial_number="s")])
    assert result.outcome == "found"
    assert result.device is not None
    assert result.device.id == "z"


@pytest.mark.parametrize(
    ("pages", "problem"),
    [
        (
            [page("a", nextPageToken="t"), page("b", nextPageToken="u"), page("c", nextPageToken="t")],
            "read before",
        ),
        ([page("a", nextPageToken=5)], "nextPageToken must be a text, not int"),
        (
            [page("a", nextPageToken="1"), page("b", nextPageToken="2"), page("c", nextPageToken="3")],
            "more than 3 pages",
        ),
        ([page(*"abc", nextPageToken="1"), page(*"def")], "more than 5 devices"),
    ],
    ids=["loop", "no text", "pages", "devices"],
)
async def test_a_list_without_an_end_is_a_decode_error(pages: list[httpx.Response], problem: str) -> None:
    with pytest.raises(ResponseDecodeError, match=problem):
        await list_all(next_channel(PAGED, answering(pages, [])), max_pages=3, max_devices=5)


def test_the_parameter_and_the_property_of_the_next_page_are_found_by_their_names() -> None:
    assert PAGED.pages == Pages("page_token", "nextPageToken")


def test_a_list_without_both_token_and_parameter_has_no_pages() -> None:
    assert pages_of(next_get_kwargs, NextDevice) is None
    assert pages_of(lambda *, page_size=UNSET: {"page_size": page_size}, NextDeviceList) is None
    assert pages_of(lambda *, cursor=UNSET: {"cursor": cursor}, NextDeviceList) == Pages(
        "cursor", "nextPageToken"
    )


# Requests


def wanting_more(*, body: Any = None, site_id: str) -> dict[str, Any]:
    raise AssertionError(body, site_id)


async def test_a_new_required_parameter_is_a_typed_error_before_anything_is_sent() -> None:
    async def refused(called: Awaitable[object], operation: str) -> None:
        with pytest.raises(ConfigurationError, match=rf"cannot build {operation} .*site_id.*--findings"):
            await called

    generated = evolve(
        GENERATED_CLIENT,
        list_devices=wanting_more,
        provision_device=wanting_more,
        update_device_status=lambda _id, *, body, site_id: {"body": body, "site": site_id},
    )
    async with ClientOver(next_channel(generated, lambda _: pytest.fail("sent"))) as client:
        await refused(client.list_devices(), "listDevices")
        await refused(client.provision_device(model="m"), "provisionDevice")
        await refused(
            client.ensure_devices([DeviceProvisionRequest(model="m", serial_number="s")]), "listDevices"
        )
        status = DeviceStatusUpdate(status="DS_ON")
        await refused(client.update_device_status("dev-1", status), "updateDeviceStatus")
        await refused(client.push_statuses({"dev-1": status}), "updateDeviceStatus")


async def test_a_lost_answer_to_a_post_stays_an_error_where_the_list_cannot_be_asked_for() -> None:
    generated = evolve(GENERATED_CLIENT, list_devices=wanting_more)
    html = httpx.Response(200, text="<html>")
    async with ClientOver(next_channel(generated, lambda _: html)) as client:
        [result] = await client.provision_devices([DeviceProvisionRequest(model="m", serial_number="s")])
    assert isinstance(result.error, ResponseDecodeError)
    assert "site_id" in "".join(result.error.__notes__)


async def test_a_field_that_the_model_does_not_have_is_a_programming_error_and_a_wrong_one_is_typed() -> None:
    transport = httpx.MockTransport(lambda _: page("a"))
    async with PrintOSClient("https://printos.test", auth=None, transport=transport) as client:
        with pytest.raises(TypeError, match="colour"):
            await client.provision_device(model="m", colour="red")
        with pytest.raises(InvalidProvisionRequestError, match="model must be a text"):
            await client.provision_device(model=5)  # type: ignore[arg-type]

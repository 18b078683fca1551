from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from printos_async import DeviceProvisionRequest, DeviceStatusUpdate, StatusPush
from printos_async._api.fields import fields_of
from printos_async.cli.input.records import (
    BadLineError,
    columns_of,
    line_of,
    make_parser,
    provision_request_of,
    status_of,
)
from printos_async.cli.terminal.output import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from printos_async.cli.input.records import Format

FULL = b'{"deviceId": "dev-1", "status": "DS_ON", "metrics": {"pagesTotal": 12, "inkLevel": 0.4}}'
SPECIFICATION = Path(__file__).parents[2] / "spec" / "hp-printos-device-api-openapi.yml"
# A next specification may list the words of a status.
IS_ANY_WORD = not fields_of(DeviceStatusUpdate)[0].allowed.words
ANY_WORD = rb"\ud83d\ude00" if IS_ANY_WORD else b"DS_ON"
HEADER = b"deviceId,status,pagesTotal,inkLevel"


def read(lines: list[bytes], file_format: Format = "jsonl") -> list[StatusPush]:
    parser = make_parser(file_format, DeviceStatusUpdate)
    records = [parser.parse(line) for line in lines]
    return [status_of(record) for record in records if record is not None]


def body(push: StatusPush) -> dict[str, Any]:
    return push.status.to_dict()


def test_a_json_line_is_the_specifications_words() -> None:
    [push] = read([FULL + b"\r"])
    assert push.device_id == "dev-1"
    assert body(push) == {"status": "DS_ON", "metrics": {"pagesTotal": 12, "inkLevel": 0.4}}


def test_a_csv_line_says_the_same() -> None:
    assert read([HEADER + b"\r", b'dev-1,"DS_ON",12,0.4\r'], "csv") == read([FULL])


def test_a_byte_order_mark_alone_is_an_empty_line() -> None:
    assert read([b"\xef\xbb\xbf", FULL]) == read([FULL])


def test_csv_columns_are_the_specifications_single_values() -> None:
    def single_values(node: dict[str, Any]) -> Iterator[str]:
        if "$ref" in node:
            node = schemas[node["$ref"].rpartition("/")[2]]
        for name, value in node.get("properties", {}).items():
            if "$ref" in value or "properties" in value:
                yield from single_values(value)
            elif value["type"] not in ("array", "object"):
                yield name

    schemas = yaml.safe_load(SPECIFICATION.read_text("utf-8"))["components"]["schemas"]
    columns = list(columns_of(DeviceStatusUpdate))
    assert columns == ["deviceId", *single_values(schemas["DeviceStatusUpdate"])]
    assert [name for name in columns if name in HEADER.decode().split(",")] == HEADER.decode().split(",")
    columns = list(columns_of(DeviceProvisionRequest))
    assert columns == list(single_values(schemas["DeviceProvisionRequest"]))
    assert columns[:3] == ["model", "serialNumber", "location"]


def test_csv_columns_may_be_fewer_and_in_any_order_and_empty_cells_are_left_out() -> None:
    pushes = read([b"status, inkLevel ,deviceId", b"DS_ON,,a", b"DS_OFF,1e-1,b", b"", b"  "], "csv")
    assert [(push.device_id, body(push)) for push in pushes] == [
        ("a", {"status": "DS_ON"}),
        ("b", {"status": "DS_OFF", "metrics": {"inkLevel": 0.1}}),
    ]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b'{"deviceId": "a"', "is not valid JSON"),
        (b"[" * 200_000, "is nested too deeply"),
        (
            b'{"deviceId": "a", "status": "DS_ON", "metrics": {"pagesTotal": ' + b"9" * 5_000 + b"}}",
            "64 bits",
        ),
        (
            b'{"deviceId": "a", "status": "DS_ON", "metrics": {"pagesTotal": 9223372036854775808}}',
            "metrics.pagesTotal",
        ),
        (b'{"deviceId": "a", "status": "DS_ON", "metrics": {"inkLevel": NaN}}', "holds NaN"),
        (b'{"deviceId": "a", "status": "DS_ON", "metrics": {"inkLevel": -Infinity}}', "holds -Infinity"),
        (
            b'{"deviceId": "a", "status": "DS_ON", "metrics": {"inkLevel": 1e999}}',
            "metrics.inkLevel must be a finite number",
        ),
        (b'{"deviceId": "a", "status": "DS_ON", "metrics": {"inkLevel": true}}', "metrics.inkLevel must be"),
        (
            b'{"deviceId": "a", "status": "DS_ON", "metrics": {"pagesTotal": 1.5}}',
            "metrics.pagesTotal must be a whole number",
        ),
        (
            b'{"deviceId": "a", "status": "DS_ON", "metrics": [["pagesTotal", 1]]}',
            "metrics must be an object, not list",
        ),
        (b'{"deviceId": "a", "status": "DS_ON", "metrics": null}', "metrics must be an object, not NoneType"),
        (
            b'{"deviceId": "a", "status": "DS_ON", "metrics": {"pages_total": 1}}',
            "unknown field 'metrics.pages_total'",
        ),
        (b'{"deviceId": "a", "state": "DS_ON"}', "unknown field 'state'; known are status, "),
        (b'{"deviceId": "a", "status": 1}', "status must be "),
        (b'{"deviceId": "a", "status": "\\ud800"}', "surrogate" if IS_ANY_WORD else "status must be one of"),
        (b'{"deviceId": "a"}', "has no field besides deviceId"),
        (b'{"status": "DS_ON"}', "deviceId is missing"),
        (b'{"deviceId": 7, "status": "DS_ON"}', "a device id must be str"),
        (b'{"deviceId": "..", "status": "DS_ON"}', "would change the request's path"),
        (b'["deviceId"]', "is not a JSON object but an array"),
        (b'{"deviceId": "\xff"}', "is not UTF-8 at byte 15"),
    ],
)
def test_a_bad_json_line_is_refused_with_what_is_wrong(line: bytes, complaint: str) -> None:
    with pytest.raises(BadLineError, match=re.escape(complaint)):
        read([line])


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"a,DS_ON,1", "has 3 values; the header has 4"),
        (b"a,DS_ON,1,0,4", "has 5 values; the header has 4"),
        (b"a,DS_ON,1.5,", "metrics.pagesTotal must be a whole number, not '1.5'"),
        (b"a,DS_ON," + b"9" * 5_000 + b",", "metrics.pagesTotal must be a whole number"),
        (b"a,DS_ON,9223372036854775808,", "metrics.pagesTotal must fit into 64 bits"),
        (b'a,DS_ON,,"0,4"', "metrics.inkLevel must be a number, not '0,4'"),
        (b"a,DS_ON,,nan", "metrics.inkLevel must be a number"),
        (b"a,DS_ON,,1_0", "metrics.inkLevel must be a number"),
        (b"a,DS_ON,,1e999", "metrics.inkLevel must be a finite number"),
        (b'a,"DS_ON,1,', "is not valid CSV"),
        (b"a,DS_ON,,\rb,DS_ON,,", "is not valid CSV: convert the file's line ends from CR to LF"),
        (b",DS_ON,1,1", "deviceId is missing"),
        (b"a,,,", "has no field besides deviceId"),
        (b"a,\xe9,,", "is not UTF-8"),
    ],
)
def test_a_bad_csv_line_is_refused_with_what_is_wrong(line: bytes, complaint: str) -> None:
    with pytest.raises(BadLineError, match=re.escape(complaint)):
        read([HEADER, line], "csv")


@pytest.mark.parametrize("header", [b"deviceId;status", b"dev-1,DS_ON,1,1", b"deviceId,status,status"])
def test_a_file_without_a_header_is_refused_as_a_whole(header: bytes) -> None:
    with pytest.raises(CommandError, match="first line"):
        read([header, b"a,DS_ON"], "csv")


@pytest.mark.parametrize(
    "line",
    [FULL, b'{"deviceId":"d\\u00fc \\"x\\ud83d\\ude00","status":"%b"}' % ANY_WORD],
    ids=["all", "escapes"],
)
def test_a_written_line_reads_back_as_the_same_status(line: bytes) -> None:
    [push] = read([line])
    written = line_of(push)
    assert written.endswith(b"\n")
    assert read([written]) == [push]
    assert json.loads(written) == json.loads(line)


def test_a_provision_request_is_read_and_checked() -> None:
    parser = make_parser("csv", DeviceProvisionRequest)
    assert parser.parse(b"serialNumber,model") is None
    record = parser.parse(b"SN-1,Indigo 12000")
    assert record is not None
    assert provision_request_of(record) == DeviceProvisionRequest(model="Indigo 12000", serial_number="SN-1")
    with pytest.raises(BadLineError, match="serialNumber must be a text"):
        provision_request_of({"serialNumber": 1})
    with pytest.raises(BadLineError, match="unknown field 'serial'"):
        provision_request_of({"serial": "1"})


@pytest.mark.parametrize(
    ("value", "name"),
    [("[]", "an array"), ('"x"', "a string"), ("1", "a number"), ("1.5", "a number"), ("null", "null")],
)
def test_a_json_value_that_is_no_object_is_named_as_json_names_it(value: str, name: str) -> None:
    with pytest.raises(BadLineError, match=f"is not a JSON object but {name}"):
        read([value.encode()])

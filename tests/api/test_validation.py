"""What callers give is refused with the field named, or arrives as given."""

from __future__ import annotations

import asyncio
import copy
import json
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from printos_async import (
    UNSET,
    DeviceProvisionRequest,
    DeviceStatusUpdate,
    DeviceStatusUpdateMetrics,
    InvalidDeviceIdError,
    InvalidProvisionRequestError,
    InvalidStatusError,
    PrintOSClient,
)
from printos_async._api.requests import Call, Operations
from tests.transport.scripted import ScriptedServer, always

if TYPE_CHECKING:
    from collections.abc import Iterator

EMPTY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
OPERATIONS = Operations("")
ON = DeviceStatusUpdate(status="DS_ON")


def _full_status() -> DeviceStatusUpdate:
    return DeviceStatusUpdate(status="DS_ON", metrics=DeviceStatusUpdateMetrics(pages_total=1, ink_level=0.5))


def _wrong_metrics(metrics: Any) -> DeviceStatusUpdate:
    return DeviceStatusUpdate(status="DS_ON", metrics=metrics)


class Word(StrEnum):
    """The specification's type is a free string, so an enumeration of strings will do."""

    PRINTING = "DS_PRINTING"


@pytest.mark.parametrize(
    "device_id",
    [
        "",
        ".",
        "..",
        "a/b",
        "/",
        "\\",
        "a\\..\\b",
        "a\nb",
        "a\r\nx: 1",
        "\0",
        "\x7f",
        "\x85",
        "\ud800",
        "x" * 257,
    ],
)
def test_device_id_that_would_change_the_path_is_refused(device_id: str) -> None:
    with pytest.raises(InvalidDeviceIdError) as caught:
        OPERATIONS.update_device_status(device_id, ON)
    str(caught.value).encode()


@pytest.mark.parametrize("device_id", [None, 1, b"dev-1", ["dev-1"], True])
def test_device_id_that_is_no_text_is_refused(device_id: Any) -> None:
    with pytest.raises(InvalidDeviceIdError, match="must be str, not"):
        OPERATIONS.update_device_status(device_id, ON)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        # What it must be instead is another matter where the specification lists words.
        (DeviceStatusUpdate(status=1), "status must be .*, not int 1"),  # type: ignore[arg-type]
        (DeviceStatusUpdate(status=None), "status must be .*, not NoneType"),  # type: ignore[arg-type]
        (_wrong_metrics({}), "metrics must be DeviceStatusUpdateMetrics, not dict"),
        ({"status": "DS_ON"}, "must be a DeviceStatusUpdate, not dict"),
        (None, "must be a DeviceStatusUpdate, not NoneType"),
    ],
)
def test_status_of_a_wrong_type_is_refused_with_the_field(status: Any, message: str) -> None:
    with pytest.raises(InvalidStatusError, match=message):
        OPERATIONS.update_device_status("dev-1", status)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"ink_level": float("nan")}, r"metrics\.inkLevel must be a finite number, not nan"),
        ({"ink_level": float("inf")}, r"metrics\.inkLevel must be a finite number, not inf"),
        ({"ink_level": True}, r"metrics\.inkLevel must be a number, not bool"),
        ({"ink_level": "0.4"}, r"metrics\.inkLevel must be a number, not str '0\.4'"),
        ({"ink_level": 2**63}, r"metrics\.inkLevel must fit into 64 bits"),
        ({"pages_total": 1.0}, r"metrics\.pagesTotal must be a whole number, not float 1\.0"),
        ({"pages_total": True}, r"metrics\.pagesTotal must be a whole number, not bool"),
        ({"pages_total": 2**63}, r"metrics\.pagesTotal must fit into 64 bits"),
        ({"pages_total": "1"}, r"metrics\.pagesTotal must be a whole number, not str '1'"),
        ({"pages_total": object()}, r"metrics\.pagesTotal must be a whole number, not object"),
    ],
)
def test_metric_that_cannot_be_sent_is_refused_with_the_field(metrics: Any, message: str) -> None:
    status = DeviceStatusUpdate(status="DS_ON", metrics=DeviceStatusUpdateMetrics(**metrics))
    with pytest.raises(InvalidStatusError, match=message):
        OPERATIONS.update_device_status("dev-1", status)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"a": float("nan")}, r"additional properties\.a must be a finite number"),
        ({"a": [1, {"b": {1}}]}, r"additional properties\.a\[1\]\.b must be a JSON value, not set"),
        ({"a": {1: 2}}, "has the key 1; keys must be text"),
        ({"a\ud800": 1}, "keys must be text"),
        ({"a": b"bytes"}, "must be a JSON value, not bytes"),
        ({"a": nested(100_000)}, "nested too deeply"),
    ],
)
def test_additional_property_that_json_cannot_carry_is_refused(extra: dict[Any, Any], message: str) -> None:
    status = DeviceStatusUpdate(status="DS_ON")
    status.additional_properties = extra
    with pytest.raises(InvalidStatusError, match=message):
        OPERATIONS.update_device_status("dev-1", status)


@pytest.mark.parametrize(
    ("name", "value"), [("status", 5), ("status", "DS_ON"), ("metrics", 5), ("metrics", {"pagesTotal": "x"})]
)
@pytest.mark.parametrize("declared", [ON, _full_status()], ids=["unset", "set"])
def test_additional_property_of_a_declared_name_is_refused_with_the_field(
    declared: DeviceStatusUpdate, name: str, value: Any
) -> None:
    status = copy.deepcopy(declared)
    status[name] = value
    with pytest.raises(InvalidStatusError, match=f"status update: {name} must be set as the attribute"):
        OPERATIONS.update_device_status("dev-1", status)


def test_additional_property_of_a_declared_name_is_refused_in_nested_models_and_requests_too() -> None:
    status = _full_status()
    assert isinstance(status.metrics, DeviceStatusUpdateMetrics)
    status.metrics["pagesTotal"] = "many"
    with pytest.raises(InvalidStatusError, match=r"metrics\.pagesTotal must be set as the attribute"):
        OPERATIONS.update_device_status("dev-1", status)
    request = DeviceProvisionRequest(model="Indigo 12000")
    request["serialNumber"] = 5
    with pytest.raises(InvalidProvisionRequestError, match="serialNumber must be set as the attribute"):
        OPERATIONS.provision_device(request)


def test_additional_property_that_only_resembles_a_declared_one_is_sent() -> None:
    status = DeviceStatusUpdate(status="DS_ON")
    status.additional_properties = {"Status": 1, "pagesTotal": "x", "additional_properties": {"status": 2}}
    assert json.loads(OPERATIONS.update_device_status("dev-1", status).body) == status.to_dict()


@pytest.mark.parametrize("extra", [None, [], [1], "ab", 5])
def test_additional_properties_that_are_no_mapping_are_refused(extra: Any) -> None:
    status = DeviceStatusUpdate(status="DS_ON")
    status.additional_properties = extra
    with pytest.raises(InvalidStatusError, match="additional_properties must be a dict"):
        OPERATIONS.update_device_status("dev-1", status)


def test_container_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    status = DeviceStatusUpdate(status="DS_ON")
    status["loop"] = loop
    with pytest.raises(InvalidStatusError, match="nested too deeply"):
        OPERATIONS.update_device_status("dev-1", status)


def test_provision_request_of_a_wrong_type_is_refused_with_the_field() -> None:
    with pytest.raises(InvalidProvisionRequestError, match="serialNumber must be a text, not int 17"):
        OPERATIONS.provision_device(DeviceProvisionRequest(serial_number=17))  # type: ignore[arg-type]
    with pytest.raises(InvalidProvisionRequestError, match="model holds half of a surrogate pair"):
        OPERATIONS.provision_device(DeviceProvisionRequest(model="\ud800"))


TEXT = (
    st.text()
    | st.text(alphabet=st.characters(), max_size=300)
    | st.sampled_from([".", "..", "a/b", "%2e%2e", "%"])
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
ANYTHING = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=8)
STATUSES = st.builds(
    lambda status, pages, ink, extra: _with_extra(
        DeviceStatusUpdate(
            status=status, metrics=DeviceStatusUpdateMetrics(pages_total=pages, ink_level=ink)
        ),
        extra,
    ),
    TEXT | st.just(Word.PRINTING) | SCALARS,
    st.integers() | SCALARS,
    st.floats() | SCALARS,
    st.dictionaries(TEXT.filter(lambda key: key not in {"status", "metrics"}), ANYTHING, max_size=2),
)


def _with_extra(status: DeviceStatusUpdate, extra: dict[str, Any]) -> DeviceStatusUpdate:
    status.additional_properties = extra
    return status


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def server(runner: asyncio.Runner) -> Iterator[ScriptedServer]:
    server = ScriptedServer(always(EMPTY))
    runner.run(server.__aenter__())
    yield server
    runner.run(server.__aexit__(None, None, None))


@pytest.fixture(scope="module")
def client(runner: asyncio.Runner, server: ScriptedServer) -> Iterator[PrintOSClient]:
    client = PrintOSClient(f"{server.origin}/base%20path/", auth=None)
    yield client
    runner.run(client.aclose())


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(device_id=TEXT, status=STATUSES)
def test_id_and_status_are_refused_or_arrive_as_given(
    runner: asyncio.Runner,
    server: ScriptedServer,
    client: PrintOSClient,
    device_id: str,
    status: DeviceStatusUpdate,
) -> None:
    server.requests.clear()
    try:
        runner.run(client.update_device_status(device_id, status))
    except (InvalidDeviceIdError, InvalidStatusError) as error:
        str(error).encode()
        assert server.requests == []
        return
    [request] = server.requests
    prefix, _, rest = request.target.partition("/devices/")
    encoded, _, suffix = rest.rpartition("/")
    assert (request.method, prefix, unquote(encoded), suffix) == ("PUT", "/base%20path", device_id, "status")
    assert encoded.isascii()
    assert not set(encoded) & set("/?#\\ ")
    assert encoded not in {".", ".."}
    assert json.loads(request.body) == status.to_dict()
    assert request.headers["content-type"] == "application/json"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(device_id=TEXT)
def test_every_id_that_is_safe_is_taken(device_id: str) -> None:
    unsafe = device_id in {"", ".", ".."} or len(device_id) > 256
    unsafe = unsafe or any(c in "/\\" or ord(c) < 32 or 127 <= ord(c) < 160 for c in device_id)
    unsafe = unsafe or any("\ud800" <= c <= "\udfff" for c in device_id)
    if unsafe:
        with pytest.raises(InvalidDeviceIdError):
            OPERATIONS.update_device_status(device_id, ON)
    else:
        assert unquote(OPERATIONS.update_device_status(device_id, ON).path) == f"/devices/{device_id}/status"


@pytest.mark.parametrize("device_id", ["dev-1", "a b%2F{}", "ä"])
def test_a_stored_status_is_the_same_call_as_that_of_the_status_it_was_made_of(device_id: str) -> None:
    operations = Operations("/gateway/v1")
    sent = operations.update_device_status(device_id, DeviceStatusUpdate(status="DS_ON"))
    stored = operations.stored_status(device_id, sent.body)
    names = [field.name for field in attrs.fields(Call)]
    assert [getattr(stored, name) for name in names] == [getattr(sent, name) for name in names]


def test_a_stored_status_of_a_device_id_that_would_change_the_path_is_refused() -> None:
    with pytest.raises(InvalidDeviceIdError):
        OPERATIONS.stored_status("../dev-1", b"{}")


def test_an_unset_field_is_not_sent_and_none_is_refused_with_the_field() -> None:
    unset = DeviceStatusUpdate(status="DS_ON", metrics=UNSET)
    assert OPERATIONS.update_device_status("dev-1", unset).body == b'{"status":"DS_ON"}'
    assert (
        OPERATIONS.provision_device(DeviceProvisionRequest(model="m", location=UNSET)).body
        == b'{"model":"m"}'
    )
    nothing: Any = None
    with pytest.raises(InvalidStatusError, match="metrics must be DeviceStatusUpdateMetrics, not NoneType"):
        OPERATIONS.update_device_status("dev-1", DeviceStatusUpdate(status="DS_ON", metrics=nothing))
    with pytest.raises(InvalidProvisionRequestError, match="model must be a text, not NoneType"):
        OPERATIONS.provision_device(DeviceProvisionRequest(model=nothing))

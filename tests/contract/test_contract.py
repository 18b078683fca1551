"""The specification still says what the facade relies on, and a specification that does not is noticed."""

from __future__ import annotations

import copy
import inspect
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import printos_device_api.models
import pytest
from printos_device_api.api.devices import list_devices, provision_device, update_device_status
from printos_device_api.models import DeviceProvisionRequest, DeviceStatusUpdate, DeviceStatusUpdateMetrics
from printos_device_api.types import UNSET
from ruamel.yaml import YAML

from .findings import OPERATIONS, SCHEMAS, camel_case, contract_findings, snake_case

if TYPE_CHECKING:
    from collections.abc import Callable

SPECIFICATION = Path(__file__).resolve().parents[2] / "spec" / "hp-printos-device-api-openapi.yml"
# What the facade takes out of a generated endpoint's `_get_kwargs`.
KWARGS_UNDERSTOOD = {"method", "url", "headers", "json", "params"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def specification() -> dict[str, Any]:
    return dict(YAML(typ="safe", pure=True).load(SPECIFICATION))


def test_the_specification_says_what_the_facade_relies_on(specification: dict[str, Any]) -> None:
    findings = contract_findings(specification)
    assert not findings, "\n" + "\n".join(findings)


def op(spec: dict[str, Any], name: str) -> dict[str, Any]:
    operations = (operation for item in spec["paths"].values() for operation in item.values())
    return next(operation for operation in operations if operation["operationId"] == name)


def props(spec: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = spec["components"]["schemas"][name]["properties"]
    return found


def rename(node: dict[str, Any], old: str, new: str) -> None:
    node[new] = node.pop(old)


PAGE = {"name": "pageToken", "in": "query", "schema": {"type": "string"}}
ERROR = {
    "description": "bad",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
MUTATIONS: dict[str, tuple[Callable[[dict[str, Any]], object], str, str]] = {
    "pagination parameters": (lambda s: op(s, "listDevices").update(parameters=[PAGE]), "pageToken", "_client.py"),
    "pagination parameters for the whole path": (
        lambda s: s["paths"]["/devices"].update(parameters=[PAGE]), "provisionDevice: parameters", "_client.py"),
    "a token of the next page": (
        lambda s: props(s, "PrintDeviceList").update(nextPageToken={"type": "string"}), "nextPageToken", "_api/responses.py"),
    "a status accepted, not applied": (
        lambda s: rename(op(s, "updateDeviceStatus")["responses"], "200", "202"), "202", "_delivery/pusher.py"),
    "a list that is partial": (lambda s: rename(op(s, "listDevices")["responses"], "200", "206"), "206", "_api/responses.py"),
    "a device accepted, not made": (
        lambda s: rename(op(s, "provisionDevice")["responses"], "201", "202"), "202", "_api/responses.py"),
    "a body for a status's success": (
        lambda s: op(s, "updateDeviceStatus")["responses"]["200"].update(
            content={"application/json": {"schema": {"$ref": "#/components/schemas/PrintDevice"}}}),
        "PrintDevice", "_client.py"),
    "documented error bodies": (
        lambda s: op(s, "updateDeviceStatus")["responses"].update({"400": ERROR}), "'400': 'Error'", "_client.py"),
    "a default answer": (lambda s: op(s, "listDevices")["responses"].update(default=ERROR), "default", "_client.py"),
    "documented response headers": (
        lambda s: op(s, "listDevices")["responses"]["200"].update(headers={"Link": {"schema": {"type": "string"}}}),
        "Link", "_client.py"),
    "a renamed property of an answer": (
        lambda s: rename(props(s, "PrintDevice"), "serialNumber", "serialNo"), "serialNo", "_api/responses.py"),
    "a renamed property of a status": (
        lambda s: rename(props(s, "DeviceStatusUpdate")["metrics"]["properties"], "inkLevel", "tonerLevel"),
        "tonerLevel", "_api/validation.py"),
    "a property in other capitals": (
        lambda s: props(s, "DeviceProvisionRequest").update(deviceURL={"type": "string"}),
        "deviceURL is not the camelCase", "_api/validation.py"),
    "a required field of a status": (
        lambda s: s["components"]["schemas"]["DeviceStatusUpdate"].update(required=["status"]),
        "DeviceStatusUpdate: required", "_api/validation.py"),
    "a required field of a metric": (
        lambda s: props(s, "DeviceStatusUpdate")["metrics"].update(required=["inkLevel"]),
        "DeviceStatusUpdate.metrics: required", "_api/validation.py"),
    "a required field of an answer": (
        lambda s: s["components"]["schemas"]["PrintDevice"].update(required=["id"]), "PrintDevice: required", "_api/responses.py"),
    "a list of words for a status": (
        lambda s: props(s, "DeviceStatusUpdate")["status"].update(enum=["DS_ON"]), "DS_ON", "_api/validation.py"),
    "another type": (
        lambda s: props(s, "DeviceStatusUpdate")["metrics"]["properties"]["pagesTotal"].update(type="string"),
        "pagesTotal", "_api/validation.py"),
    "a date without its format": (
        lambda s: props(s, "PrintDevice")["registeredAt"].pop("format"), "registeredAt", "_api/responses.py"),
    "no further properties": (
        lambda s: s["components"]["schemas"]["DeviceStatusUpdate"].update(additionalProperties=False),
        "additionalProperties", "_api/validation.py"),
    "a new schema": (lambda s: s["components"]["schemas"].update(Job={"type": "object"}), "Job is new", "_models.py"),
    "another method": (
        lambda s: rename(s["paths"]["/devices/{deviceId}/status"], "put", "patch"), "PATCH", "_delivery/pusher.py"),
    "another path": (
        lambda s: rename(s["paths"], "/devices/{deviceId}/status", "/v2/devices/{deviceId}/status"), "/v2/", "_client.py"),
    "a status for many devices": (
        lambda s: s["paths"].update({"/statuses": {"put": {"operationId": "updateStatuses", "responses": {}}}}),
        "updateStatuses is new", "_client.py"),
    "an operation gone": (lambda s: s["paths"]["/devices"].pop("post"), "provisionDevice is gone", "_client.py"),
    "another body": (
        lambda s: op(s, "updateDeviceStatus")["requestBody"].update(content={"application/merge-patch+json": {}}),
        "merge-patch", "_api/validation.py"),
    "a body that may be left out": (
        lambda s: op(s, "provisionDevice")["requestBody"].update(required=False), "optional", "_api/validation.py"),
    "a header for idempotency": (
        lambda s: op(s, "provisionDevice").update(
            parameters=[{"name": "Idempotency-Key", "in": "header", "schema": {"type": "string"}}]),
        "Idempotency-Key", "_client.py"),
    "a device id that is a number": (
        lambda s: op(s, "updateDeviceStatus")["parameters"][0].update(schema={"type": "integer"}), "integer", "_client.py"),
    "an operation on its way out": (
        lambda s: op(s, "listDevices").update(deprecated=True), "deprecated", "_client.py"),
    "security schemes": (
        lambda s: s["components"].update(securitySchemes={"oauth": {"type": "oauth2"}}), "oauth", "_auth/session_token.py"),
    "security for everything": (lambda s: s.update(security=[{"oauth": []}]), "security of the whole API", "_auth/session_token.py"),
    "security for one operation": (
        lambda s: op(s, "listDevices").update(security=[]), "security of listDevices", "_auth/session_token.py"),
    "another server": (
        lambda s: s["servers"][0].update(url="https://printos.api.hp.com/v2"), "/v2", "_auth/session_token.py"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_next_version_that_differs_is_noticed(specification: dict[str, Any], name: str) -> None:
    mutate, told, module = MUTATIONS[name]
    changed = copy.deepcopy(specification)
    mutate(changed)
    assert any(
        told in finding and f"printos_async/{module}" in finding for finding in contract_findings(changed)
    )


def test_prose_and_order_are_no_finding(specification: dict[str, Any]) -> None:
    changed = copy.deepcopy(specification)
    changed["info"]["version"] = "1.0.1"
    op(changed, "listDevices")["description"] = "Other words."
    props(changed, "PrintDevice")["id"]["example"] = "dev-1"
    changed["paths"] = dict(reversed(changed["paths"].items()))
    assert contract_findings(changed) == []


def test_the_same_by_reference_is_no_finding(specification: dict[str, Any]) -> None:
    changed = copy.deepcopy(specification)
    operation = op(changed, "updateDeviceStatus")
    changed["components"]["parameters"] = {"DeviceId": operation["parameters"][0]}
    operation["parameters"] = [{"$ref": "#/components/parameters/DeviceId"}]
    changed["components"]["responses"] = {"Updated": operation["responses"]["200"]}
    operation["responses"]["200"] = {"$ref": "#/components/responses/Updated"}
    assert contract_findings(changed) == []


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_operation_has_its_generated_endpoint(operation: str) -> None:
    endpoint = import_module(f"printos_device_api.api.devices.{snake_case(operation)}")
    assert inspect.isfunction(endpoint._get_kwargs)


def test_the_generated_requests_are_the_specifications() -> None:
    """See ``_api/requests.py``: it sends what ``_get_kwargs`` says, and would drop a key that it does not know."""
    status = DeviceStatusUpdate(
        status="DS_ON", metrics=DeviceStatusUpdateMetrics(pages_total=1, ink_level=0.5)
    )
    requests = {
        "listDevices": list_devices._get_kwargs(),
        "provisionDevice": provision_device._get_kwargs(
            body=DeviceProvisionRequest(model="m", serial_number="s")
        ),
        "updateDeviceStatus": update_device_status._get_kwargs("a/b c", body=status),
    }
    assert all(request.keys() <= KWARGS_UNDERSTOOD for request in requests.values())
    assert requests == {
        "listDevices": {"method": "get", "url": "/devices"},
        "provisionDevice": {
            "method": "post",
            "url": "/devices",
            "json": {"model": "m", "serialNumber": "s"},
            "headers": JSON,
        },
        "updateDeviceStatus": {
            "method": "put",
            "url": "/devices/a%2Fb%20c/status",
            "json": {"status": "DS_ON", "metrics": {"pagesTotal": 1, "inkLevel": 0.5}},
            "headers": JSON,
        },
    }


def test_the_generated_endpoints_take_what_the_facade_gives() -> None:
    taken = {
        endpoint.__name__.rpartition(".")[2]: list(inspect.signature(endpoint._get_kwargs).parameters)
        for endpoint in (list_devices, provision_device, update_device_status)
    }
    assert taken == {
        "list_devices": [],
        "provision_device": ["body"],
        "update_device_status": ["device_id", "body"],
    }, "look at printos_async/_api/requests.py"


@pytest.mark.parametrize("schema", SCHEMAS)
def test_each_property_is_the_camel_case_of_its_attribute(specification: dict[str, Any], schema: str) -> None:
    """See ``_api/validation.py``: it names the property of a wrong value from the attribute."""
    model = getattr(
        printos_device_api.models, "".join(part[0].upper() + part[1:] for part in schema.split("."))
    )
    attributes = [field.name for field in attrs.fields(model) if field.name != "additional_properties"]
    outer, _, inner = schema.partition(".")
    properties = props(specification, outer)[inner]["properties"] if inner else props(specification, outer)
    assert [camel_case(name) for name in attributes] == list(properties)
    # Nothing is required, so a model without a value is possible, and says nothing.
    assert model().to_dict() == {}
    assert all(getattr(model(), name) is UNSET for name in attributes)

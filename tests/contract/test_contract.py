"""The specification still says what the facade relies on, and a specification that does not is noticed."""

from __future__ import annotations

import ast
import copy
import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from printos_device_api.api.devices import list_devices, provision_device, update_device_status
from printos_device_api.models import DeviceProvisionRequest, DeviceStatusUpdate, DeviceStatusUpdateMetrics
from ruamel.yaml import YAML

from spec.codegen_facts import facts
from spec.contract import KNOWN_OPERATIONS, NEW_OPERATION, RELIANCES, SANDBOX
from spec.contract_findings import contract_findings, render
from spec.contract_rows import snake_case

if TYPE_CHECKING:
    from collections.abc import Callable

    from spec.contract_rows import Use

ROOT = Path(__file__).resolve().parents[2]
FACADE = ROOT / "printos_async"
SPECIFICATION = ROOT / "spec" / "hp-printos-device-api-openapi.yml"
# What the facade takes out of a generated endpoint's `_get_kwargs`.
KWARGS_UNDERSTOOD = {"method", "url", "headers", "json", "params"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def specification() -> dict[str, Any]:
    return dict(YAML(typ="safe", pure=True).load(SPECIFICATION))


def test_the_specification_says_what_the_facade_relies_on(specification: dict[str, Any]) -> None:
    findings = contract_findings(facts(specification))
    assert not findings, "\n" + render(findings)


def op(spec: dict[str, Any], name: str) -> dict[str, Any]:
    operations = (operation for item in spec["paths"].values() for operation in item.values())
    return next(operation for operation in operations if operation["operationId"] == name)


def props(spec: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = spec["components"]["schemas"][name]["properties"]
    return found


def rename(node: dict[str, Any], old: str, new: str) -> None:
    node[new] = node.pop(old)


# Names that no next version has: where it has pages, their rows say so, and these stay new.
PAGE = {"name": "otherToken", "in": "query", "schema": {"type": "string"}}
ERROR = {
    "description": "bad",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
# Name: what a next version changes, the subject and topic of the finding, what it says, a module that it names.
MUTATIONS: dict[str, tuple[Callable[[dict[str, Any]], object], str, str, str]] = {
    "pagination parameters": (
        lambda s: op(s, "listDevices").update(parameters=[PAGE]),
        "listDevices: pagination", "parameter otherToken (query)", "_api/pages.py"),
    "pagination parameters for the whole path": (
        lambda s: s["paths"]["/devices"].update(parameters=[PAGE]),
        "listDevices: pagination", "parameter otherToken (query)", "_api/pages.py"),
    "a token of the next page": (
        lambda s: props(s, "PrintDeviceList").update(otherToken={"type": "string"}),
        "listDevices: pagination", "PrintDeviceList.otherToken", "_api/pages.py"),
    "a token within an object": (
        lambda s: props(s, "PrintDeviceList").update(
            page={"type": "object", "properties": {"next": {"type": "string"}}}),
        "listDevices: pagination", "PrintDeviceList.page.next: string", "_api/pages.py"),
    "links within the answer": (
        lambda s: props(s, "PrintDeviceList").update(_links={"$ref": "#/components/schemas/Links"}),
        "listDevices: pagination", "PrintDeviceList._links: Links", "_execution/listing.py"),
    "a link by a name with punctuation": (
        lambda s: props(s, "PrintDeviceList").update({"@odata.nextLink": {"type": "string"}}),
        "listDevices: pagination", "@odata.nextLink", "_execution/listing.py"),
    "a required page": (
        lambda s: op(s, "listDevices").update(parameters=[{**PAGE, "name": "page", "required": True}]),
        "listDevices: pagination", "parameter page (query) required: yes", "_api/pages.py"),
    "a link to the next page": (
        lambda s: op(s, "listDevices")["responses"]["200"].update(headers={"Link": {"schema": {"type": "string"}}}),
        "listDevices: pagination", "answer 200 header Link", "_api/pages.py"),
    "another parameter": (
        lambda s: op(s, "listDevices").update(parameters=[{**PAGE, "name": "model", "required": True}]),
        "listDevices: parameters", "parameter model (query) required", "_client.py"),
    "a status accepted, not applied": (
        lambda s: rename(op(s, "updateDeviceStatus")["responses"], "200", "202"),
        "updateDeviceStatus: success codes", "answer 202", "_api/responses.py"),
    "a list that is partial": (
        lambda s: rename(op(s, "listDevices")["responses"], "200", "206"),
        "listDevices: success codes", "answer 206", "_api/responses.py"),
    "a device accepted, not made": (
        lambda s: rename(op(s, "provisionDevice")["responses"], "201", "202"),
        "provisionDevice: success codes", "answer 202", "_execution/provisioning.py"),
    "a body for a status's success": (
        lambda s: op(s, "updateDeviceStatus")["responses"]["200"].update(
            content={"application/json": {"schema": {"$ref": "#/components/schemas/PrintDevice"}}}),
        "updateDeviceStatus: success codes", "application/json PrintDevice", "_api/responses.py"),
    "documented error bodies": (
        lambda s: op(s, "updateDeviceStatus")["responses"].update({"400": ERROR}),
        "updateDeviceStatus: refusals", "answer 400: application/json Error", "_api/errors.py"),
    "a default answer": (
        lambda s: op(s, "listDevices")["responses"].update(default=ERROR),
        "listDevices: refusals", "answer default", "_api/errors.py"),
    "a renamed property of an answer": (
        lambda s: rename(props(s, "PrintDevice"), "serialNumber", "serialNo"),
        "PrintDevice: identity of what is provisioned", "PrintDevice.serialNumber is gone", "_execution/provisioning.py"),
    "a renamed column": (
        lambda s: rename(props(s, "PrintDevice"), "registeredAt", "since"),
        "PrintDevice: the columns of devices", "PrintDevice.registeredAt is gone", "cli/commands/devices.py"),
    "a renamed list": (
        lambda s: rename(props(s, "PrintDeviceList"), "devices", "items"),
        "PrintDeviceList: the list", "PrintDeviceList.devices is gone", "_api/responses.py"),
    "a renamed property of a status": (
        lambda s: rename(props(s, "DeviceStatusUpdate")["metrics"]["properties"], "inkLevel", "tonerLevel"),
        "DeviceStatusUpdate: the fields of a status", "metrics.inkLevel is gone", "cli/demo/run.py"),
    "a required field of a provision request": (
        lambda s: s["components"]["schemas"]["DeviceProvisionRequest"].update(required=["model"]),
        "DeviceProvisionRequest: the arguments of provision_device", "DeviceProvisionRequest.model required", "_client.py"),
    "another type": (
        lambda s: props(s, "DeviceStatusUpdate")["metrics"]["properties"]["pagesTotal"].update(type="string"),
        "DeviceStatusUpdate: the fields of a status", "metrics.pagesTotal: string; was integer", "cli/demo/run.py"),
    "another method": (
        lambda s: rename(s["paths"]["/devices/{deviceId}/status"], "put", "patch"),
        "updateDeviceStatus: idempotence", "PATCH; was PUT", "_execution/attempt.py"),
    "a header for idempotency": (
        lambda s: op(s, "provisionDevice").update(
            parameters=[{"name": "Idempotency-Key", "in": "header", "schema": {"type": "string"}}]),
        "provisionDevice: idempotence", "Idempotency-Key (header)", "_execution/attempt.py"),
    "a version of what is replaced": (
        lambda s: op(s, "updateDeviceStatus")["parameters"].append(
            {"name": "If-Match", "in": "header", "schema": {"type": "string"}}),
        "updateDeviceStatus: idempotence", "If-Match (header)", "_execution/attempt.py"),
    "another path": (
        lambda s: rename(s["paths"], "/devices/{deviceId}/status", "/v2/devices/{deviceId}/status"),
        "updateDeviceStatus: path", "/v2/", "_api/requests.py"),
    "a new operation": (
        lambda s: s["paths"].update({"/statuses": {"put": {"operationId": "updateStatuses", "responses": {}}}}),
        "updateStatuses: an operation that is new", "PUT /statuses", "_client.py"),
    "an operation that the sandbox does not serve": (
        lambda s: s["paths"].update({"/statuses": {"put": {"operationId": "updateStatuses", "responses": {}}}}),
        "updateStatuses: the sandbox does not serve it", "PUT /statuses", "sandbox/_operations.py"),
    "an operation gone": (
        lambda s: s["paths"]["/devices"].pop("post"),
        "provisionDevice: an operation that is gone", "no operation provisionDevice", "_api/requests.py"),
    "another body": (
        lambda s: op(s, "updateDeviceStatus")["requestBody"].update(content={"application/merge-patch+json": {}}),
        "updateDeviceStatus: body", "merge-patch", "_api/requests.py"),
    "a body that may be left out": (
        lambda s: op(s, "provisionDevice")["requestBody"].update(required=False),
        "provisionDevice: body", "provisionDevice body required is gone", "_api/validation.py"),
    "a device id that is a number": (
        lambda s: op(s, "updateDeviceStatus")["parameters"][0].update(schema={"type": "integer"}),
        "PrintDevice: identity of devices", "deviceId (path): integer", "_api/validation.py"),
    "a renamed device id": (
        lambda s: rename(props(s, "PrintDevice"), "id", "deviceId"),
        "PrintDevice: identity of devices", "PrintDevice.id is gone", "_models.py"),
    "a device id that is unique within a site": (
        lambda s: props(s, "PrintDevice")["id"].update(description="Unique within a site."),
        "PrintDevice: identity of devices", "Unique within a site", "outbox/sql/tables.py"),
    "an operation on its way out": (
        lambda s: op(s, "listDevices").update(deprecated=True),
        "listDevices: other properties", "listDevices deprecated: true", "_client.py"),
    "security schemes": (
        lambda s: s["components"].update(securitySchemes={"oauth": {"type": "oauth2"}}),
        "API: security", "security scheme oauth", "_auth/session_token.py"),
    "security for everything": (
        lambda s: s.update(security=[{"oauth": []}]), "API: security", "oauth", "_auth/hmac.py"),
    "security for one operation": (
        lambda s: op(s, "listDevices").update(security=[]), "API: security", "listDevices security", "sandbox/_auth.py"),
    "another server": (
        lambda s: s["servers"][0].update(url="https://printos.api.hp.com/v2"), "API: servers", "/v2", "_config.py"),
    "another server for one path": (
        lambda s: s["paths"]["/devices"].update(servers=[{"url": "https://devices.hp.com"}]),
        "API: servers", "devices.hp.com", "_config.py"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_next_version_that_differs_is_noticed(specification: dict[str, Any], name: str) -> None:
    mutate, heading, told, module = MUTATIONS[name]
    changed = copy.deepcopy(specification)
    mutate(changed)
    findings = {f"{f.reliance.subject}: {f.reliance.topic}": f for f in contract_findings(facts(changed))}
    assert heading in findings, list(findings)
    assert told in "\n".join(findings[heading].differences)
    assert module in {use.module for use in findings[heading].reliance.uses}


ADDITIONS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a version": lambda s: s["info"].update(version="9.9"),
    "a description": lambda s: op(s, "listDevices").update(description="Other words."),
    "an example": lambda s: props(s, "PrintDevice")["id"].update(example="dev-1"),
    "an order": lambda s: s.update(paths=dict(reversed(s["paths"].items()))),
    "a schema": lambda s: s["components"]["schemas"].update(Job={"type": "object"}),
    "a field of a status": lambda s: props(s, "DeviceStatusUpdate").update(
        shift={"type": "string", "format": "date-time"}
    ),
    "a metric": lambda s: props(s, "DeviceStatusUpdate")["metrics"]["properties"].update(
        layersTotal={"type": "integer"}
    ),
    "words of a status": lambda s: props(s, "DeviceStatusUpdate")["status"].update(enum=["DS_ON"]),
    "a required field of a status": lambda s: s["components"]["schemas"]["DeviceStatusUpdate"].update(
        required=["status", "metrics"]
    ),
    "a field of a provision request": lambda s: props(s, "DeviceProvisionRequest").update(
        region={"type": "array", "items": {"type": "string"}}
    ),
    "a field of a device": lambda s: props(s, "PrintDevice").update(host={"type": ["string", "null"]}),
    "a required field of a device": lambda s: s["components"]["schemas"]["PrintDevice"].update(
        required=["id", "model"]
    ),
    "no further properties": lambda s: s["components"]["schemas"]["DeviceStatusUpdate"].update(
        additionalProperties=False
    ),
    "a property in other capitals": lambda s: props(s, "DeviceProvisionRequest").update(
        deviceURL={"type": "string"}
    ),
    "a number of devices": lambda s: props(s, "PrintDeviceList").update(count={"type": "integer"}),
}


@pytest.mark.parametrize("name", ADDITIONS)
def test_what_needs_no_line_of_the_facade_is_no_finding(specification: dict[str, Any], name: str) -> None:
    changed = copy.deepcopy(specification)
    ADDITIONS[name](changed)
    assert changed != specification or name == "an order"
    assert contract_findings(facts(changed)) == contract_findings(facts(specification))


def test_the_same_by_reference_is_no_finding(specification: dict[str, Any]) -> None:
    changed = copy.deepcopy(specification)
    operation = op(changed, "updateDeviceStatus")
    changed["components"]["parameters"] = {"DeviceId": operation["parameters"][0]}
    operation["parameters"] = [{"$ref": "#/components/parameters/DeviceId"}]
    changed["components"].setdefault("responses", {})["Updated"] = operation["responses"]["200"]
    operation["responses"]["200"] = {"$ref": "#/components/responses/Updated"}
    assert contract_findings(facts(changed)) == contract_findings(facts(specification))


USES = sorted({use for reliance in RELIANCES for use in reliance.uses} | {*NEW_OPERATION, *SANDBOX}, key=str)


@pytest.mark.parametrize("use", USES, ids=lambda use: f"{use.module}:{use.name}")
def test_each_module_that_a_finding_names_has_what_it_says(use: Use) -> None:
    assert use.name in names_in(FACADE / use.module), f"spec/contract.py names {use}"


def test_each_module_that_names_a_generated_operation_or_model_is_named_by_a_finding() -> None:
    importers = {
        path.relative_to(FACADE).as_posix()
        for path in FACADE.rglob("*.py")
        if any(re.match(r"printos_device_api\.(api|models)\b", name) for name in imported_by(path))
    }
    assert importers
    assert importers <= {use.module for use in USES}


def names_in(module: Path) -> set[str]:
    """Every name that a module defines, uses or spells out."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_bytes())):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.alias(name=name):
                found.add(name)
            case ast.Constant(value=str(name)):
                found.add(name)
    return found


def imported_by(module: Path) -> set[str]:
    imported = set()
    for node in ast.walk(ast.parse(module.read_bytes())):
        match node:
            case ast.ImportFrom(module=str(name), level=0):
                imported.add(name)
            case ast.Import(names=names):
                imported |= {name.name for name in names}
    return imported


@pytest.mark.parametrize("operation", KNOWN_OPERATIONS)
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
    for request in requests.values():
        if not request.get("params"):
            request.pop("params", None)  # optional ones that are not given
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


def required_arguments(get_kwargs: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(get_kwargs).parameters.values()
    return [parameter.name for parameter in parameters if parameter.default is parameter.empty]


def test_the_generated_endpoints_take_what_the_facade_gives() -> None:
    taken = {
        endpoint.__name__.rpartition(".")[2]: required_arguments(endpoint._get_kwargs)
        for endpoint in (list_devices, provision_device, update_device_status)
    }
    assert taken == {
        "list_devices": [],
        "provision_device": ["body"],
        "update_device_status": ["device_id", "body"],
    }, "look at printos_async/_api/requests.py"

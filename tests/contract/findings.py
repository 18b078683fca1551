"""What the facade relies on in the specification, as a literal table, and the comparison with a specification.

A finding says what changed and which module of ``printos_async`` to look at. Once the facade has been brought in
line, the table follows.
"""

from __future__ import annotations

import re
from typing import Any

CLIENT = "printos_async/_client.py"
DECODE = "printos_async/_api/responses.py"
ENCODE = "printos_async/_api/validation.py"
AUTH = "printos_async/_auth/session_token.py"
MODELS = "printos_async/_models.py"
PUSHER = "printos_async/_delivery/pusher.py"

TEXT = {"type": "string"}
# Operation: method and path, its parameters, its body, what it answers. Where a part differs, the module to look at
# stands beside what it does there.
OPERATIONS: dict[str, dict[str, Any]] = {
    "listDevices": {
        "request": ("GET", "/devices"),
        "parameters": {},
        "body": None,
        "answers": {"200": "PrintDeviceList"},
        "look at": {
            "request": f"{CLIENT}: list_devices",
            "parameters": f"{CLIENT}: list_devices asks once and takes the answer for the whole list (pagination?)",
            "body": f"{CLIENT}: list_devices sends no body",
            "answers": f"{DECODE}: reads a PrintDeviceList out of a success; {CLIENT}: maps every other status",
        },
    },
    "provisionDevice": {
        "request": ("POST", "/devices"),
        "parameters": {},
        "body": "DeviceProvisionRequest",
        "answers": {"201": "PrintDevice"},
        "look at": {
            "request": f"{CLIENT}: provision_device; a POST is never repeated blindly",
            "parameters": f"{CLIENT}: provision_device",
            "body": f"{ENCODE}: checks a DeviceProvisionRequest before it is sent",
            "answers": f"{DECODE}: reads a PrintDevice out of a success; {CLIENT}: maps every other status",
        },
    },
    "updateDeviceStatus": {
        "request": ("PUT", "/devices/{deviceId}/status"),
        "parameters": {("path", "deviceId"): {"required": True, "schema": TEXT}},
        "body": "DeviceStatusUpdate",
        "answers": {"200": None},
        "look at": {
            "request": f"{CLIENT}: update_device_status; {PUSHER}: repeats it, because a PUT replaces",
            "parameters": f"{CLIENT}: update_device_status and its check of the device id; {PUSHER}",
            "body": f"{ENCODE}: checks a DeviceStatusUpdate before it is sent; {PUSHER}",
            "answers": f"{CLIENT}: takes any 2xx for a success and reads no body, maps every other status; {PUSHER}: "
            "a 202 is accepted, not yet applied",
        },
    },
}
# Schema: its properties and those that must be there. An object inside one is named `Outer.property`.
SCHEMAS: dict[str, dict[str, Any]] = {
    "PrintDevice": {
        "properties": {
            "id": TEXT,
            "model": TEXT,
            "serialNumber": TEXT,
            "status": TEXT,
            "registeredAt": {"type": "string", "format": "date-time"},
        },
        "required": [],
        "look at": f"{DECODE}: reads each property; {MODELS}: hands the model on",
    },
    "PrintDeviceList": {
        "properties": {"devices": {"type": "array", "items": {"$ref": "#/components/schemas/PrintDevice"}}},
        "required": [],
        "look at": f"{DECODE}: reads the list device by device; {CLIENT}: list_devices",
    },
    "DeviceProvisionRequest": {
        "properties": {"model": TEXT, "serialNumber": TEXT, "location": TEXT},
        "required": [],
        "look at": f"{ENCODE}: checks each property; {CLIENT}: the arguments of provision_device",
    },
    "DeviceStatusUpdate": {
        "properties": {"status": TEXT, "metrics": {"type": "object"}},
        "required": [],
        "look at": f"{ENCODE}: checks each property; {PUSHER}: sends the newest as a whole",
    },
    "DeviceStatusUpdate.metrics": {
        "properties": {"pagesTotal": {"type": "integer"}, "inkLevel": {"type": "number"}},
        "required": [],
        "look at": f"{ENCODE}: checks each property",
    },
}
SERVERS = ["https://printos.api.hp.com"]

_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
# What says nothing about what is sent or answered.
_PROSE = {"description", "summary", "title", "example", "examples", "externalDocs", "tags", "operationId"}


def contract_findings(spec: dict[str, Any]) -> list[str]:
    """Compare a specification with what the facade relies on; empty where it can rely on all of it."""
    return [*_operations(spec), *_schemas(spec), *_security(spec)]


def snake_case(name: str) -> str:
    """Give the generator's attribute name of a property: ``serialNumber`` is ``serial_number``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def camel_case(name: str) -> str:
    """Give the property that the facade takes an attribute for: ``serial_number`` is ``serialNumber``."""
    first, *others = name.split("_")
    return first + "".join(part.capitalize() for part in others)


def _operations(spec: dict[str, Any]) -> list[str]:
    findings = []
    found = {
        operation.get("operationId"): (method, path, item, operation)
        for path, item in spec["paths"].items()
        for method, operation in item.items()
        if method in _METHODS
    }
    findings += [f"operation {name} is gone; look at {CLIENT}" for name in OPERATIONS if name not in found]
    findings += [f"operation {name} is new; look at {CLIENT}" for name in found if name not in OPERATIONS]
    for name, wanted in OPERATIONS.items():
        if name not in found:
            continue
        method, path, item, operation = found[name]
        parameters = [*item.get("parameters", []), *operation.get("parameters", [])]
        body = _resolved(spec, operation.get("requestBody"))
        actual = {
            "request": (method.upper(), path),
            "parameters": dict(_parameter(_resolved(spec, parameter)) for parameter in parameters),
            "body": _body(body),
            "answers": {
                code: _answer(_resolved(spec, answer)) for code, answer in operation["responses"].items()
            },
        }
        findings += [
            _finding(f"{name}: {part}", actual[part], wanted[part], wanted["look at"][part])
            for part in actual
            if actual[part] != wanted[part]
        ]
        others = operation.keys() - _PROSE - {"parameters", "requestBody", "responses", "security"}
        findings += [
            f"{name}: has '{key}', which the facade knows nothing of; look at {CLIENT}"
            for key in sorted(others)
        ]
    return findings


def _parameter(parameter: dict[str, Any]) -> tuple[tuple[str, str], dict[str, Any]]:
    rest = {key: value for key, value in parameter.items() if key not in _PROSE | {"in", "name"}}
    return (parameter["in"], parameter["name"]), rest


def _body(body: dict[str, Any] | None) -> Any:
    if body is None:
        return None
    return _content(body) if body.get("required") else {"optional": _content(body)}


def _answer(answer: dict[str, Any]) -> Any:
    """Give the schema's name, None for no content; with headers where they are documented."""
    return _content(answer) if "headers" not in answer else {"headers": sorted(answer["headers"])}


def _content(holder: dict[str, Any]) -> Any:
    content = holder.get("content")
    if content is None:
        return None
    if list(content) == ["application/json"] and "$ref" in (
        schema := content["application/json"].get("schema", {})
    ):
        return schema["$ref"].removeprefix("#/components/schemas/")
    return content


def _schemas(spec: dict[str, Any]) -> list[str]:
    findings = []
    actual = {}
    for name, schema in spec.get("components", {}).get("schemas", {}).items():
        actual[name] = schema
        for inner, node in schema.get("properties", {}).items():
            if "properties" in node:
                actual[f"{name}.{inner}"] = node
    findings += [f"schema {name} is new; look at {MODELS}" for name in actual if name not in SCHEMAS]
    for name, wanted in SCHEMAS.items():
        look_at = wanted["look at"]
        if name not in actual:
            findings.append(f"schema {name} is gone; look at {look_at}")
            continue
        properties = actual[name].get("properties", {})
        for key in sorted(wanted["properties"].keys() | properties.keys()):
            found = _plain(properties[key], nested=f"{name}.{key}" in actual) if key in properties else None
            if found != wanted["properties"].get(key):
                findings.append(
                    _finding(f"{name}: property {key}", found, wanted["properties"].get(key), look_at)
                )
        required = sorted(actual[name].get("required", []))
        if required != wanted["required"]:
            findings.append(_finding(f"{name}: required", required, wanted["required"], look_at))
        others = actual[name].keys() - _PROSE - {"type", "properties", "required"}
        findings += [
            f"{name}: has '{key}', which nothing checks; look at {look_at}" for key in sorted(others)
        ]
        findings += [
            f"{name}: property {key} is not the camelCase of its attribute {snake_case(key)}; look at {ENCODE}"
            for key in properties
            if camel_case(snake_case(key)) != key
        ]
    return findings


def _plain(node: dict[str, Any], *, nested: bool) -> dict[str, Any]:
    """Leave out the prose, and of an object with a table of its own all but that it is one."""
    if nested:
        return {"type": node.get("type")}
    return {key: value for key, value in node.items() if key not in _PROSE}


def _security(spec: dict[str, Any]) -> list[str]:
    """The specification says nothing of security; HMAC and session tokens are HP's documents' word."""
    findings = []
    if schemes := spec.get("components", {}).get("securitySchemes"):
        findings.append(_finding("securitySchemes", sorted(schemes), None, AUTH))
    holders = {"the whole API": spec}
    for item in spec["paths"].values():
        holders |= {
            operation.get("operationId"): operation for key, operation in item.items() if key in _METHODS
        }
    findings += [
        _finding(f"security of {name}", holder["security"], None, AUTH)
        for name, holder in holders.items()
        if "security" in holder
    ]
    servers = [server.get("url") for server in spec.get("servers", [])]
    if servers != SERVERS:
        findings.append(_finding("servers", servers, SERVERS, f"{CLIENT}: base_url; {AUTH}: the login's URL"))
    return findings


def _resolved(spec: dict[str, Any], node: Any) -> Any:
    while isinstance(node, dict) and isinstance(node.get("$ref"), str):
        target: Any = spec
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        node = target
    return node


def _finding(what: str, found: Any, wanted: Any, look_at: str) -> str:
    return f"{what}: the specification says {found}, the facade relies on {wanted}; look at {look_at}"

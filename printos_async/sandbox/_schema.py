"""Request bodies and answers by the types of the specification, which the generated models have.

A new field of the specification is checked, and kept, without a change here.
"""

from __future__ import annotations

import json
from datetime import date, datetime
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from attrs import frozen

from printos_async._api.body import refuse_constant
from printos_async._api.fields import fields_of
from printos_async._api.generated_operations import generated_operations
from printos_async._api.json_validation import raw_object_problem, raw_problem
from printos_async._models import DeviceProvisionRequest, DeviceStatusUpdate, PrintDevice, PrintDeviceList

from ._answers import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from printos_async._api.fields import ValueType
    from printos_async._api.generated_operations import GeneratedOperation

    from ._records import SandboxDevice

_PLACEHOLDERS: dict[type, Any] = {
    str: "",
    int: 0,
    float: 0.0,
    bool: False,
    list: [],
    datetime: "1970-01-01T00:00:00Z",
    date: "1970-01-01",
    UUID: str(UUID(int=0)),
}


@frozen(kw_only=True)
class Schema:
    """Operations and types of one version of the specification.

    Attributes:
        operations: The operations.
        device: Model of a device.
        device_list: Model of the answer of ``listDevices``.
        provision_request: Model of the body of ``provisionDevice``.
        status_update: Model of the body of ``updateDeviceStatus``.
    """

    operations: tuple[GeneratedOperation, ...]
    device: type
    device_list: type
    provision_request: type
    status_update: type

    def device_to_json(self, device: SandboxDevice) -> dict[str, Any]:
        """Return a device; what is unknown is left out, or made up where it is required."""
        values = {
            "id": device.id,
            "model": device.model,
            "serialNumber": device.serial_number,
            "status": (device.status or {}).get("status"),
            "registeredAt": device.registered_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        known = {name: value for name, value in values.items() if value is not None}
        # A next specification may add fields, and the POST may have named them.
        for field in fields_of(self.device):
            value = None if field.name in values else device.properties.get(field.name)
            if value is not None and raw_problem(value, field.allowed, field.name) is None:
                known[field.name] = value
        return {**_placeholders(self.device), **known}

    def list_to_json(self, devices: Iterable[SandboxDevice]) -> dict[str, Any]:
        """Return the answer of ``listDevices``."""
        return {
            **_placeholders(self.device_list),
            "devices": [self.device_to_json(device) for device in devices],
        }


SCHEMA = Schema(
    operations=generated_operations(),
    device=PrintDevice,
    device_list=PrintDeviceList,
    provision_request=DeviceProvisionRequest,
    status_update=DeviceStatusUpdate,
)


def credentials(body: bytes) -> tuple[str, str]:
    """Read the login's body; it stands beside the specification."""
    login = _read_object(body)
    for name in ("login", "password"):
        if not isinstance(login.get(name), str):
            raise RefusedError(400, f"{name} must be a text")
    return login["login"], login["password"]


def read_body(model: type, body: bytes) -> dict[str, Any]:
    """Read a body of the specification; refuse a property of another type than the model's."""
    value = _read_object(body)
    if problem := raw_object_problem(value, model, ""):
        raise RefusedError(400, problem)
    return value


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body, parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        raise RefusedError(400, "the body is not JSON") from None
    if not isinstance(value, dict):
        raise RefusedError(400, "the body is not a JSON object")
    return value


@cache
def _placeholders(model: type) -> dict[str, Any]:
    """Return a value for each required field of an answer, for those that the sandbox knows nothing of."""
    return {field.name: _placeholder(field.allowed) for field in fields_of(model) if field.is_required}


def _placeholder(allowed: ValueType) -> Any:
    if allowed.words:
        return min(allowed.words, key=str)
    if allowed.model is not None:
        return _placeholders(allowed.model)
    return next((value for kind, value in _PLACEHOLDERS.items() if kind in allowed.kinds), None)

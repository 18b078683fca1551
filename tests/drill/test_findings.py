"""Three next versions: what only adds has no finding, and each finding about the others points to its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from spec.codegen_facts import facts
from spec.codegen_input import read_specification
from spec.contract_findings import Finding, contract_findings

FOLDER = Path(__file__).parent

NEW_OPERATION = {
    "_client.py",
    "_api/generated_client.py",
    "_api/requests.py",
    "_api/responses.py",
}
# Version: each finding with the modules that it names.
FINDINGS: dict[str, dict[str, set[str]]] = {
    "additive": {},
    "operations": {
        "getDevice: an operation that is new": NEW_OPERATION,
        "removeDevice: an operation that is new": NEW_OPERATION,
        "getDevice: the sandbox does not serve it": {"sandbox/_operations.py", "sandbox/_faults.py"},
        "removeDevice: the sandbox does not serve it": {"sandbox/_operations.py", "sandbox/_faults.py"},
        "listDevices: pagination": {"_api/pages.py", "_execution/listing.py"},
        "updateDeviceStatus: success codes": {"_api/responses.py", "_delivery/senders.py"},
        "provisionDevice: refusals": {"_api/errors.py"},
        "updateDeviceStatus: refusals": {"_api/errors.py"},
        "API: security": {"_auth/hmac.py", "_auth/session_token.py", "sandbox/_auth.py"},
    },
    "breaking": {
        "updateDeviceStatus: idempotence": {"_api/requests.py", "_execution/attempt.py"},
        "provisionDevice: success codes": {"_api/responses.py", "_execution/provisioning.py"},
        "PrintDevice: identity of devices": {
            "_models.py",
            "_api/validation.py",
            "_api/requests.py",
            "_api/responses.py",
            "outbox/sql/tables.py",
        },
        "PrintDevice: identity of what is provisioned": {"_execution/provisioning.py"},
        "PrintDeviceList: the list": {"_api/responses.py"},
        "PrintDevice: the columns of devices": {"cli/commands/devices.py"},
        "DeviceProvisionRequest: the arguments of provision_device": {
            "_client.py",
            "cli/commands/devices.py",
        },
        "DeviceStatusUpdate: the fields of a status": {"_models.py", "cli/demo/run.py"},
        "API: servers": {"_config.py", "_auth/session_token.py"},
    },
}


def findings(version: str) -> list[Finding]:
    return contract_findings(facts(read_specification(FOLDER / f"{version}.yml").document))


@pytest.mark.parametrize("version", FINDINGS)
def test_each_finding_about_a_next_version_points_to_its_place(version: str) -> None:
    found = {
        f"{row.subject}: {row.topic}": {use.module for use in row.uses}
        for row in (finding.reliance for finding in findings(version))
    }
    assert found == FINDINGS[version]


def test_a_finding_says_what_the_specification_says_instead() -> None:
    said = {f"{f.reliance.subject}: {f.reliance.topic}": f.differences for f in findings("breaking")}
    assert said["provisionDevice: success codes"] == (
        "provisionDevice answer 202: application/json PrintDevice; is new",
        "provisionDevice answer 201 is gone; was application/json PrintDevice",
    )
    assert said["PrintDevice: identity of devices"] == (
        "PrintDevice.id: integer; was string",
        "updateDeviceStatus parameter deviceId (path): integer; was string",
    )
    assert said["DeviceProvisionRequest: the arguments of provision_device"] == (
        "DeviceProvisionRequest.deviceClass required: yes; is new",
    )

"""The report that follows a regeneration says what changed in the specification, and what breaks in the package."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from spec.codegen_facts import facts
from spec.codegen_input import read_specification
from spec.codegen_report import specification_report

from .conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from spec.codegen_facts import Facts

    from .conftest import Repository

FROZEN = ROOT / "tests" / "codegen" / "frozen.yml"
UNSIGNED = "      responses:\n        '200':\n          description: Successful"
STATUS = (
    "DeviceStatusUpdate:\n      type: object\n      properties:\n        status:\n          type: string\n"
)

# Name: text to replace, its replacement, the lines of the report.
CHANGES: dict[str, tuple[str, str, list[str]]] = {
    "version": ("  version: 1.0.0", "  version: 1.1.0", ["~ version: 1.0.0  ->  1.1.0"]),
    "a description": (
        "Send device status update to the platform.",
        "Send a status.",
        ["~ updateDeviceStatus description: Send device status update to the platform.  ->  Send a status."],
    ),
    "servers": (
        "printos.api.hp.com\n",
        "api.hp.com/v2\n",
        ["+ server https://api.hp.com/v2: Production", "- server https://printos.api.hp.com: Production"],
    ),
    "security of an operation": (
        UNSIGNED, f"      security: [{{hmac: []}}]\n{UNSIGNED}", ['+ listDevices security: [{"hmac": []}]']
    ),
    "security of the whole API": (
        "tags:\n  - name", "security: []\ntags:\n  - name", ["+ security: []"]
    ),
    "a security scheme": (
        "components:\n", "components:\n  securitySchemes:\n    key: {type: http, scheme: basic}\n",
        ['+ security scheme key: {"scheme": "basic", "type": "http"}'],
    ),
    "a parameter": (
        UNSIGNED,
        f"      parameters:\n        - {{name: pageToken, in: query, schema: {{type: string}}}}\n{UNSIGNED}",
        ["+ listDevices parameter pageToken (query): string"],
    ),
    "a success code": (
        "'200':\n          description: Status",
        "'202':\n          description: Status",
        [
            "+ updateDeviceStatus answer 202: no content",
            "+ updateDeviceStatus answer 202 description: Status updated",
            "- updateDeviceStatus answer 200: no content",
            "- updateDeviceStatus answer 200 description: Status updated",
        ],
    ),
    "a header of an answer": (
        "description: Status updated",
        "description: Status updated\n          headers: {Retry-After: {schema: {type: integer}}}",
        ["+ updateDeviceStatus answer 200 header Retry-After: integer"],
    ),
    "another method": ("status:\n    put:", "status:\n    patch:", ["~ updateDeviceStatus method: PUT  ->  PATCH"]),
    "words of an enum": (
        STATUS,
        f"{STATUS}          enum: [DS_ON]\n",
        ["+ DeviceStatusUpdate.status word DS_ON: allowed"],
    ),
    "a required field": (
        "    DeviceStatusUpdate:\n      type: object\n",
        "    DeviceStatusUpdate:\n      type: object\n      required: [status]\n",
        ["+ DeviceStatusUpdate.status required: yes"],
    ),
    "a type": (
        "type: integer", "type: number", ["~ DeviceStatusUpdate.metrics.pagesTotal: integer  ->  number"]
    ),
    "a bound": ("type: integer", "type: integer\n              minimum: 0",
                ["+ DeviceStatusUpdate.metrics.pagesTotal minimum: 0"]),
    "a closed object": (
        "    PrintDevice:\n      type: object\n",
        "    PrintDevice:\n      type: object\n      additionalProperties: false\n",
        ["+ PrintDevice closed: no other properties"],
    ),
    "a renamed property": (
        "serialNumber:\n          type: string\n        status", "serialNo:\n          type: string\n        status",
        ["+ PrintDevice.serialNo: string", "- PrintDevice.serialNumber: string"],
    ),
    "an operation on its way out": (
        "      operationId: listDevices\n", "      operationId: listDevices\n      deprecated: true\n",
        ["+ listDevices deprecated: true"],
    ),
    "what has no name of its own": ("tags:\n  - name", "webhooks: {}\ntags:\n  - name", ["+ webhooks: {}"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def frozen() -> Facts:
    return facts(read_specification(FROZEN).document)


@pytest.mark.parametrize("name", CHANGES)
def test_the_report_says_what_changed_in_the_specification(tmp_path: Path, frozen: Facts, name: str) -> None:
    old, new, lines = CHANGES[name]
    text = FROZEN.read_text("utf-8")
    assert old in text
    (tmp_path / "next.yml").write_text(text.replace(old, new, 1), "utf-8")
    after = facts(read_specification(tmp_path / "next.yml").document)
    heading, *changes = specification_report(frozen, after).splitlines()
    assert [line.strip() for line in changes] == lines
    counts = [sum(line[0] == sign for line in lines) for sign in "+-~"]
    assert heading == "specification: {} added, {} removed, {} changed".format(*counts)


def test_a_document_that_says_the_same_by_reference_is_no_change(tmp_path: Path, frozen: Facts) -> None:
    text = FROZEN.read_text("utf-8")
    moved = "        - name: deviceId\n          in: path\n          required: true\n          schema:\n            type: string\n"
    assert moved in text
    text = text.replace(moved, "        - $ref: '#/components/parameters/DeviceId'\n")
    text = text.replace(
        "components:\n",
        "components:\n  parameters:\n    DeviceId: {name: deviceId, in: path, required: true, schema: {type: string}}\n",
    )
    (tmp_path / "next.yml").write_text(text, "utf-8")
    after = facts(read_specification(tmp_path / "next.yml").document)
    assert specification_report(frozen, after) == "specification: no change"


def test_the_report_says_what_breaks_in_the_generated_package(repository: Repository, tmp_path: Path) -> None:
    # Two fields change places; one lands before the others and is required; one is renamed.
    repository.change("        id:\n          type: string\n", "")
    repository.change(
        "        registeredAt:\n", "        id:\n          type: string\n        registeredAt:\n"
    )
    repository.change(
        "    DeviceProvisionRequest:\n      type: object\n      properties:\n",
        "    DeviceProvisionRequest:\n      type: object\n      required: [site]\n      properties:\n"
        "        site:\n          type: string\n",
    )
    repository.change("            inkLevel:", "            tonerLevel:")
    repository.change(
        UNSIGNED,
        f"      parameters:\n        - {{name: a, in: query, required: true, schema: {{type: string}}}}\n{UNSIGNED}",
    )
    done = repository.run(repository.specification, "--output", tmp_path / "out")
    lines = done.stdout.splitlines()
    at = lines.index("generated package: 14 breaking")
    moved = "Positional parameter was moved: position"
    assert [line.removeprefix("  ! ") for line in lines[at + 1 : -1]] == [
        *(
            f"api.devices.list_devices.{name}(a): Parameter was added as required"
            for name in ("asyncio", "asyncio_detailed", "sync", "sync_detailed")
        ),
        f"models.device_provision_request.DeviceProvisionRequest.__init__(location): {moved}: from 3 to 4 (+1)",
        f"models.device_provision_request.DeviceProvisionRequest.__init__(model): {moved}: from 1 to 2 (+1)",
        f"models.device_provision_request.DeviceProvisionRequest.__init__(serial_number): {moved}: from 2 to 3 (+1)",
        "models.device_provision_request.DeviceProvisionRequest.__init__(site): Parameter was added as required",
        "models.device_status_update_metrics.DeviceStatusUpdateMetrics.__init__(ink_level): Parameter was removed",
        "models.device_status_update_metrics.DeviceStatusUpdateMetrics.ink_level: Public object was removed",
        f"models.print_device.PrintDevice.__init__(id): {moved}: from 1 to 4 (+3)",
        f"models.print_device.PrintDevice.__init__(model): {moved}: from 2 to 1 (-1)",
        f"models.print_device.PrintDevice.__init__(serial_number): {moved}: from 3 to 2 (-1)",
        f"models.print_device.PrintDevice.__init__(status): {moved}: from 4 to 3 (-1)",
    ]


def test_a_client_that_does_not_say_what_it_was_made_from_is_replaced(repository: Repository) -> None:
    (repository.package / "specification.json").unlink()
    (repository.package / "models" / "print_device.py").write_text("<<<<<<< a merge's mark\n")
    done = repository.run()
    assert done.returncode == 0, done.stderr
    assert "specification: no earlier one to compare with" in done.stdout


def test_findings_of_any_specification_need_neither_facade_nor_client(repository: Repository) -> None:
    # The copy has no printos_async at all; its client cannot be imported either.
    (repository.package / "__init__.py").write_text("raise ImportError\n")
    none = repository.run("--findings")
    assert none.returncode == 1, "without the facade the sandbox serves nothing"
    assert "listDevices: the sandbox does not serve it" in none.stdout
    repository.change("'201'", "'202'")
    found = repository.run(repository.specification, "--findings")
    assert (found.returncode, found.stderr) == (1, "")
    assert "provisionDevice answer 202: application/json PrintDevice; is new" in found.stdout
    assert found.stdout.splitlines()[-1] == "contract: 4 findings"

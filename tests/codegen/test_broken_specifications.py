"""A broken specification is told in one line, and the client stays as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest

from spec.codegen_input import _parse
from tests.crash.children import long_only

from .conftest import snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Repository

LIST_RESPONSE = "schemas/PrintDeviceList'"
SWAGGER = "swagger: '2.0'\ninfo: {title: t, version: '1'}\npaths: {}\n"
TWIN = """\
    head:
      operationId: list_devices
      tags: [Devices]
      responses: {'200': {description: the module of this one would be the other's}}
    post:
"""

# Name: text to replace (None: the whole file), its replacement, what the line must say.
BROKEN: dict[str, tuple[str | None, str, str]] = {
    "bad YAML": ("tags:\n  - name: Devices", "tags: [\n  - name: Devices", "bad YAML: line"),
    "a key that is a list of lists": ("  version: 1.0.0\n", "  version: 1.0.0\n  ? [[1]]\n  : x\n", "bad YAML"),
    "a key twice": ("  version: 1.0.0\n", "  version: 1.0.0\n  version: 2.0.0\n", 'duplicate key "version"'),
    "unresolved $ref": (LIST_RESPONSE, "schemas/Nothing'", "$ref '#/components/schemas/Nothing' does not resolve"),
    "$ref to another file": ("'#/components/schemas/PrintDeviceList'", "other.yml", "outside the file"),
    "duplicate operationId": ("provisionDevice", "listDevices", "POST /devices: duplicate operationId 'listDevices'"),
    "operationIds of one module": ("    post:\n", TWIN, "no endpoint module of its own"),
    "missing operationId": ("      operationId: listDevices\n", "", "GET /devices: no operationId"),
    "bad status code": ("'201'", "'2001'", "POST /devices: bad status code '2001'"),
    "status code in words": ("'201'", "created", "POST /devices: bad status code 'created'"),
    "empty file": (None, "", "the file is empty"),
    "only a comment": (None, "# nothing yet\n", "the file is empty"),
    "not a mapping": (None, "- openapi\n", "not a mapping"),
    "not OpenAPI": (None, "title: something else\n", "no 'openapi' version"),
    "not text": (None, "\x00\x01", "bad YAML"),
    "OpenAPI 2.0": (None, SWAGGER, "OpenAPI 2.0 is not supported"),
    "OpenAPI 3.2": ("openapi: 3.1.0", "openapi: 3.2.0", "OpenAPI 3.2.0 is not supported"),
    "XML answer": ("application/json:\n              schema:\n                $ref: '#/components/schemas/PrintDeviceList'",
                   "application/xml:\n              schema:\n                $ref: '#/components/schemas/PrintDeviceList'",
                   "GET /devices: response 200: content type 'application/xml'"),
    "XML body": ("application/json:\n            schema:\n              $ref: '#/components/schemas/DeviceStatusUpdate'",
                 "application/xml:\n            schema:\n              $ref: '#/components/schemas/DeviceStatusUpdate'",
                 "PUT /devices/{deviceId}/status: request body: content type 'application/xml'"),
    "a type that does not exist": ("type: integer", "type: intejer", "not valid OpenAPI"),
    "a path parameter nobody declares": ("in: path", "in: query", "'deviceId'"),
    "nothing under an operation": ("  /devices:\n    get:\n", "  /x:\n    get:\n  /devices:\n    get:\n", "not valid OpenAPI"),
    "a default the generator refuses": ("type: integer", "type: integer\n              default: many", "not valid OpenAPI"),
    "an array of nothing": ("type: integer", "type: array", "the generator failed: WARNING parsing PUT"),
    "an enum of words and numbers": ("type: integer", "enum: [1, a]", "the generator failed: WARNING parsing PUT"),
    "an alias of itself": ("tags:\n  - name: Devices", "x-loop: &loop [*loop]\ntags:\n  - name: Devices", "alias contains itself"),
}  # fmt: skip


# Each one starts the generator: the default run has every third of them.
@pytest.mark.parametrize(
    "name",
    [name if index % 3 == 0 else pytest.param(name, marks=long_only) for index, name in enumerate(BROKEN)],
)
def test_a_broken_specification_is_one_line_and_changes_nothing(repository: Repository, name: str) -> None:
    old, new, told = BROKEN[name]
    if old is None:
        repository.specification.write_text(new)
    else:
        repository.change(old, new)
    assert_refused(repository, told)


def test_a_missing_specification_is_one_line_and_changes_nothing(repository: Repository) -> None:
    repository.specification.unlink()
    assert_refused(repository, "No such file")


def test_bytes_that_are_not_utf_8_are_one_line_and_change_nothing(repository: Repository) -> None:
    repository.specification.write_bytes(b"openapi: \xff\n")
    assert_refused(repository, "not UTF-8 at byte 9")


def test_nesting_without_end_is_one_line_and_changes_nothing(repository: Repository) -> None:
    repository.specification.write_text("[" * 5000)
    assert_refused(repository, "nested too deeply")


def bomb(kind: Literal["lists", "mappings", "merges"]) -> str:
    """A few lines of YAML that stand for ten to the ninth nodes."""
    lines = ["x-bomb:"]
    for level in range(9):
        above = f"*a{level - 1}" if level else "x"
        match kind:
            case "lists":
                value = f"[{', '.join([above] * 10)}]"
            case "mappings":
                value = f"{{{', '.join(f'k{number}: {above}' for number in range(10))}}}"
            case "merges":
                value = f"{{<<: [{', '.join([above] * 10)}]}}" if level else "{k: x}"
        lines.append(f"  k{level}: &a{level} {value}")
    return "\n".join(lines)


@pytest.mark.parametrize("kind", ["lists", "mappings", "merges"])
def test_aliases_that_stand_for_a_billion_nodes_are_one_line_and_change_nothing(
    repository: Repository, kind: Literal["lists", "mappings", "merges"]
) -> None:
    repository.change("tags:\n  - name: Devices", f"{bomb(kind)}\ntags:\n  - name: Devices")
    assert_refused(repository, "its YAML aliases stand for more than 100,000 further nodes")


def test_aliases_within_reason_are_read() -> None:
    document = _parse(f"some: &some [1, 2]\nmore: [{'*some, ' * 1000}]\n".encode())
    assert document["more"] == [[1, 2]] * 1000


@pytest.mark.parametrize("mode", ["--check", "--output"])
def test_check_and_output_refuse_a_broken_specification_too(
    repository: Repository, tmp_path: Path, mode: str
) -> None:
    repository.change("provisionDevice", "listDevices")
    before = snapshot(repository.root)
    arguments = [mode] if mode == "--check" else [str(repository.specification), mode, str(tmp_path / "out")]
    done = repository.run(*arguments)
    assert done.returncode == 2
    assert "duplicate operationId" in done.stderr
    assert snapshot(repository.root) == before
    assert not (tmp_path / "out").exists()


def assert_refused(repository: Repository, told: str) -> None:
    before = snapshot(repository.root)
    done = repository.run()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("codegen: ")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert snapshot(repository.root) == before

"""The bill of materials in the wheel; the session ``package`` looks for it there."""

from __future__ import annotations

import json
import tomllib

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.packaging import sbom


def test_the_committed_bill_of_materials_is_that_of_the_project() -> None:
    assert sbom.FILE.read_text("utf-8") == sbom.current(), "run: python -m tests.packaging.sbom"


def test_it_is_valid_cyclonedx() -> None:
    assert JsonStrictValidator(SchemaVersion.V1_7).validate_str(sbom.current()) is None
    damaged = json.loads(sbom.current()) | {"components": [{"name": "without a type"}]}
    assert JsonStrictValidator(SchemaVersion.V1_7).validate_str(json.dumps(damaged)) is not None


def test_another_version_and_requirement_change_it() -> None:
    project = tomllib.loads((sbom.ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lock = json.loads(sbom.LOCK.read_text("utf-8"))
    project |= {"version": "9.9", "dependencies": ["attrs>=99"]}
    made = json.loads(sbom.sbom(project, lock))
    assert made["metadata"]["component"]["purl"] == "pkg:pypi/printos-async@9.9"
    assert [component["name"] for component in made["components"] if component.get("isExternal")] == ["attrs"]
    assert made["serialNumber"] != json.loads(sbom.current())["serialNumber"]

"""Software bill of materials of the wheel (PEP 770): ``python -m tests.packaging.sbom`` writes it.

It names what is packed into the wheel and, as external components, what pip installs beside it. It is made from
``pyproject.toml`` and the generated client's lock, and is the same in every run, so that it can be committed: the
build needs nothing but its backend.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docs" / "printos-async.cdx.json"
LOCK = ROOT / "generated" / "printos_device_api" / "codegen.lock"


def sbom(project: dict[str, Any], lock: dict[str, Any]) -> str:
    """Return the bill of materials as CycloneDX JSON.

    Args:
        project: The table ``project`` of ``pyproject.toml``.
        lock: What the generated client was made from.
    """
    name, version = project["name"], project["version"]
    package = Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=version,
        bom_ref=name,
        purl=PackageURL("pypi", None, name, version),
        description=project["description"],
        licenses=[LicenseExpression(project["license"])],
    )
    client = Component(
        type=ComponentType.LIBRARY,
        name="printos_device_api",
        version=version,
        bom_ref="printos_device_api",
        description="Generated client, packed into the wheel",
        properties=[
            # Without the specification's hash: another specification needs no other line here.
            Property(
                name=f"{name}:generator", value=f"openapi-python-client {lock['openapi-python-client']}"
            ),
        ],
    )
    requirements = [Requirement(line) for line in project["dependencies"]]
    external = [
        Component(
            type=ComponentType.LIBRARY,
            name=requirement.name,
            bom_ref=requirement.name,
            purl=PackageURL("pypi", None, requirement.name),
            is_external=True,
            # The library has no versionRange yet.
            properties=[Property(name=f"{name}:requirement", value=str(requirement))],
        )
        for requirement in requirements
    ]
    bom = Bom(components=[client, *external], serial_number=uuid5(NAMESPACE_URL, f"{name}=={version}"))
    bom.metadata.component = package
    bom.register_dependency(package, [client, *external])
    written = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_7).output_as_string()
    document = json.loads(written)
    document["metadata"].pop("timestamp")  # the commit has one
    return json.dumps(document, indent=2) + "\n"


def current() -> str:
    """Return the bill of materials of the working tree."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return sbom(project, json.loads(LOCK.read_text("utf-8")))


if __name__ == "__main__":
    FILE.write_text(current(), "utf-8")

"""The classifiers, the sessions and the workflow name the same versions of Python."""

from __future__ import annotations

import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_the_classifiers_say_what_is_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = [text.rpartition(" :: ") for text in project["classifiers"]]
    pythons = [version for kind, _, version in named if kind.endswith(("Python", ":: 3"))]
    versions = [version for version in pythons if version.startswith("3.")]
    noxfile = (ROOT / "noxfile.py").read_text("utf-8")
    assert f"PYTHONS = {versions}".replace("'", '"') in noxfile
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text("utf-8"))
    matrix = workflow["jobs"]["pythons"]["strategy"]["matrix"]
    assert matrix["python"] == versions
    # The other systems are tried by the workflow, and promised by nobody.
    assert [text for text in project["classifiers"] if text.startswith("Operating System")] == [
        "Operating System :: POSIX :: Linux"
    ]
    assert {system.partition("-")[0] for system in matrix["system"]} == {"ubuntu", "macos", "windows"}

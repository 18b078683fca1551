"""What the source distribution is made of. The session ``package`` builds it beside a file that must stay out."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_source_distribution_holds_what_is_named_and_nothing_else() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"][
        "targets"
    ]["sdist"]
    named = settings["only-include"]
    assert named == sorted(named)
    for name in named:
        path = ROOT / name
        assert path.exists(), name
        assert path != ROOT
        assert not set(name) & set("*?[")
    # Either of these would let more in.
    assert not {"include", "force-include", "artifacts"} & settings.keys()
    assert {"generated/printos_device_api", "printos_async", "tests"} <= set(named)

"""The short form of the soak test; ``nox -s soak`` is the long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="memory and descriptors are read from /proc"
)
def test_nothing_grows_or_gets_lost_under_mixed_faults() -> None:
    command = (sys.executable, "-m", "benchmarks.soak", "--seconds", "20")
    root = Path(__file__).parent.parent
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.stderr, ended.returncode) == ("", 0)
    assert "failed 0" in ended.stdout

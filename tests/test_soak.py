"""A short soak test: 4 seconds after warming up, 20 with PRINTOS_LONG_TESTS=1, ten minutes with ``nox -s soak``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 20 if os.environ.get("PRINTOS_LONG_TESTS") else 4


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="memory and descriptors are read from /proc"
)
def test_nothing_grows_or_gets_lost_under_mixed_faults() -> None:
    command = (sys.executable, "-m", "benchmarks.soak", "--seconds", str(SECONDS))
    root = Path(__file__).parent.parent
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.stderr, ended.returncode) == ("", 0)
    assert "failed 0" in ended.stdout

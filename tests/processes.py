"""End processes that a test started: those of one parent, by their numbers."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

END_TIMEOUT_S = 20.0


def kill_family(pid: int) -> None:
    """Kill a process that the caller started, and its children, with SIGKILL; return when the children are gone.

    The caller collects the process itself, and must not have done so yet.
    """
    # A stopped process starts no other one that would be missing from the list.
    os.kill(pid, signal.SIGSTOP)
    with contextlib.ExitStack() as stack:
        watched = []
        for child in children(pid):
            with contextlib.suppress(ProcessLookupError):
                if sys.platform == "linux":
                    watched.append(os.pidfd_open(child))
                    stack.callback(os.close, watched[-1])
                os.kill(child, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        for descriptor in watched:
            select.select([descriptor], [], [], END_TIMEOUT_S)


def children(pid: int) -> list[int]:
    """Give the numbers of the processes whose parent this one is."""
    if sys.platform != "linux":
        command = ["ps", "-A", "-o", "pid=,ppid="]
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        pairs = [line.split() for line in listed.splitlines()]
        return [int(child) for child, parent in pairs if int(parent) == pid]
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The name stands in parentheses and may hold anything; the parent is the second field behind.
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if int(fields[1]) == pid:
                    found.append(int(entry.name))
    return found

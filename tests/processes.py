"""Processes that a test started: how they end, and where a server among them listens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

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
    """Return the identifiers of the child processes of this one."""
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


async def listening_url(process: asyncio.subprocess.Process) -> str:
    """Return the URL on which uvicorn says that it runs."""
    assert process.stdout is not None
    seen = ""
    async with asyncio.timeout(30):
        async for line in process.stdout:
            seen += line.decode()
            if match := re.search(r"running on (http://\S+)", seen):
                return match[1]
    pytest.fail(f"the service did not start:\n{seen}")

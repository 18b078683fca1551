"""SIGKILL at a chosen write, or at a chosen flush, of a short run on a SQLite file."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from printos_async.sandbox import Sandbox

from .children import LONG, Fleet, long_only
from .worker import KEY, SECRET, Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CALLS = ("pwrite64", "fdatasync")
DEVICES, ROUNDS = 3, 4
HANDFUL = 3  # of each call


def cannot_inject() -> str:
    """Return why no fault can be injected here; empty if it can."""
    strace = shutil.which("strace")
    if strace is None:
        return "strace is not installed (Debian package: strace)"
    command = [strace, "-qq", "-o", "/dev/null", "-e", "inject=pwrite64:signal=SIGKILL:when=1", "true"]
    tried = subprocess.run(command, check=False, capture_output=True, text=True)
    return f"strace may not trace here: {tried.stderr.strip()}" if tried.returncode else ""


pytestmark = pytest.mark.skipif(bool(reason := cannot_inject()), reason=reason or "strace works")


@pytest.fixture
async def quiet_sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(hmac_keys={KEY: SECRET}) as sandbox:
        yield sandbox


class Run:
    """One run on a file of its own, with devices of its own."""

    def __init__(self, sandbox: Sandbox, folder: Path, name: str) -> None:
        folder.mkdir()
        self._trace = folder / "trace"
        devices = tuple(f"{name}-{index}" for index in range(DEVICES))
        for device_id in devices:
            sandbox.add_device(device_id)
        # Short, so that what the killed process owned is soon free.
        settings = Settings(
            server=sandbox.url,
            outbox=f"sqlite+aiosqlite:///{folder / 'spool.db'}",
            lease_s=0.5,
            timeout_s=0.2,
            ambiguity_s=0.2,
            devices=devices,
        )
        self.fleet = Fleet(sandbox, settings)

    async def traced(self, *more: str) -> int | None:
        """Run a worker under strace; give how it ended."""
        # -D: strace stands aside, and the worker is the test's own child.
        command = (
            "strace",
            "-D",
            "-f",
            "-qq",
            "-o",
            str(self._trace),
            "-e",
            f"trace={','.join(CALLS)}",
            *more,
        )
        worker = await self.fleet.start(command, count=ROUNDS)
        await worker.listening
        return await worker.process.wait()

    def calls(self) -> Counter[str]:
        lines = self._trace.read_text().splitlines()
        return Counter(line.split()[1].partition("(")[0] for line in lines if len(line.split()) > 1)

    async def recovers(self) -> None:
        worker = await self.fleet.start(devices=(), stay=True)
        await worker.says("ready")
        await self.fleet.everything_arrives()
        await worker.finish()
        self.fleet.verify()


@long_only
async def test_what_was_accepted_arrives_whichever_write_or_flush_was_the_last(
    quiet_sandbox: Sandbox, tmp_path: Path
) -> None:
    whole = Run(quiet_sandbox, tmp_path / "whole", "whole")
    async with whole.fleet:
        assert await whole.traced() == 0
        counts = whole.calls()
    assert min(counts[call] for call in CALLS) > HANDFUL
    accepted = 0
    for call in CALLS:
        # Of a handful: the first, while the file is made, and others spread over the run.
        step = 1 if LONG else counts[call] // HANDFUL
        for number in range(1, counts[call] + 1, step):
            run = Run(quiet_sandbox, tmp_path / f"{call}-{number}", f"{call}-{number}")
            async with run.fleet:
                ended = await run.traced("-e", f"inject={call}:signal=SIGKILL:when={number}")
                # The last few come only where statements group as they did in the whole run.
                assert ended == -9 or number > counts[call] // 2
                accepted += len(run.fleet.accepted)
                await run.recovers()
    assert accepted

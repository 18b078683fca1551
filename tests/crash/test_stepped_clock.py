"""Somebody sets the machine's wall clock while processes put and send. It needs libfaketime: no clock is really set."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from printos_async.sandbox import Sandbox

from .children import LONG, Fleet
from .conftest import DEVICES, FAULTS, settings_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIBRARIES = (*Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), *Path("/usr/lib/faketime").glob("*.so.1"))
LIBRARY = os.environ.get("PRINTOS_LIBFAKETIME") or next(map(str, LIBRARIES), None)
LEASE_S = 3.0
PUT_WITHIN_S = 15.0


class WallClock:
    """The wall clock of the processes that run with ``command``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.command = (
            "env",
            f"LD_PRELOAD={LIBRARY}",
            f"FAKETIME_TIMESTAMP_FILE={path}",
            "FAKETIME_CACHE_DURATION=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
        )
        self.step_to(0)

    def step_to(self, offset_s: int) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(f"{offset_s:+d}\n")
        new.rename(self._path)  # never read half-written


@pytest.fixture
async def unsigned_sandbox() -> AsyncIterator[Sandbox]:
    # It would refuse signatures with a time so far from its own.
    async with Sandbox(faults=FAULTS, record_limit=1_000_000) as sandbox:
        for device_id in DEVICES:
            sandbox.add_device(device_id)
        yield sandbox


@pytest.mark.skipif(not LONG or LIBRARY is None, reason="it takes a minute, and libfaketime")
@pytest.mark.parametrize("step_s", [-3600, 3600], ids=["back", "forward"])
async def test_a_step_of_the_wall_clock_delays_nothing_and_overwrites_nothing(
    unsigned_sandbox: Sandbox, tmp_path: Path, step_s: int
) -> None:
    clock = WallClock(tmp_path / "wall-clock")
    settings = settings_of(unsigned_sandbox, f"sqlite+aiosqlite:///{tmp_path / 'spool.db'}")
    async with Fleet(unsigned_sandbox, evolve(settings, lease_s=LEASE_S)) as fleet:
        putting = await fleet.start(clock.command, count=100_000, pause_s=0.05)
        sending = await fleet.start(clock.command, devices=(), stay=True)
        await sending.says("ready")
        await putting.says("accepted", 200)
        for offset_s in (step_s, 0, step_s):
            clock.step_to(offset_s)
            async with asyncio.timeout(PUT_WITHIN_S):
                await putting.says("accepted", putting.lines["accepted"] + 200)
            assert putting.lines["refused"] == 0
        await putting.kill()
        # Its lease has to end, and what was in flight is uncertain.
        clock.step_to(0)
        await fleet.everything_arrives(timeout_s=2 * LEASE_S + 3 * settings.ambiguity_s)
        await sending.finish()
        await unsigned_sandbox.wait_for(lambda: unsigned_sandbox.pending_late_writes == 0)
        fleet.verify()

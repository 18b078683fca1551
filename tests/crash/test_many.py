"""Many statuses of many devices through four workers on one PostgreSQL database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from printos_async.sandbox import Faults, Sandbox

from .children import LONG, Fleet
from .conftest import settings_of
from .worker import KEY, SECRET

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

import pytest
from attrs import evolve

WORKERS = 4
DEVICES, ROUNDS = (10_000, 10) if LONG else (200, 10)


@pytest.fixture
async def large_sandbox() -> AsyncIterator[Sandbox]:
    faults = Faults(seed=5, server_error=0.02, reset=0.01, late_write=0.02, late_write_by_s=(0.0, 0.4))
    async with Sandbox(faults=faults, hmac_keys={KEY: SECRET}, record_limit=1_000_000) as sandbox:
        for index in range(DEVICES):
            sandbox.add_device(f"dev-{index}")
        yield sandbox


async def test_every_device_ends_with_its_newest_status(large_sandbox: Sandbox, postgres_url: str) -> None:
    settings = evolve(settings_of(large_sandbox, postgres_url), lease_s=30.0, timeout_s=10.0, ambiguity_s=2.0)
    devices = tuple(large_sandbox.devices)
    async with Fleet(large_sandbox, settings) as fleet:
        workers = [
            await fleet.start(devices=devices[index::WORKERS], count=ROUNDS) for index in range(WORKERS)
        ]
        accounts = [await worker.finish() for worker in workers]
        await large_sandbox.wait_for(lambda: large_sandbox.pending_late_writes == 0)
        fleet.verify()
    assert len(fleet.accepted) == DEVICES
    for stats in accounts:
        assert stats["pending"] == stats["failed"] == 0
        assert stats["accepted"] == stats["sent"] + stats["superseded"] >= DEVICES * ROUNDS // WORKERS

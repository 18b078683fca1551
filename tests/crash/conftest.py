"""A sandbox in which writes come late, and the settings that hold against it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from printos_async.sandbox import Faults, Sandbox

from .worker import KEY, SECRET, Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DEVICES = tuple(f"dev-{index}" for index in range(20))
LATE_BY_S = 0.4
# A write comes at most LATE_BY_S after its request; the rest is for a machine that is busy with other things.
AMBIGUITY_S = 1.2
FAULTS = Faults(
    seed=3,
    latency_s=(0.0, 0.02),
    server_error=0.05,
    reset=0.05,
    late_write=0.1,
    late_write_by_s=(0.0, LATE_BY_S),
)


@pytest.fixture
async def late_sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(faults=FAULTS, hmac_keys={KEY: SECRET}, record_limit=1_000_000) as sandbox:
        for device_id in DEVICES:
            sandbox.add_device(device_id)
        yield sandbox


@pytest.fixture
def sqlite_settings(late_sandbox: Sandbox, tmp_path: Path) -> Settings:
    return settings_of(late_sandbox, f"sqlite+aiosqlite:///{tmp_path / 'spool.db'}")


@pytest.fixture
def postgres_settings(late_sandbox: Sandbox, postgres_url: str) -> Settings:
    return settings_of(late_sandbox, postgres_url)


def settings_of(sandbox: Sandbox, outbox: str) -> Settings:
    return Settings(
        server=sandbox.url,
        outbox=outbox,
        lease_s=1.0,
        timeout_s=0.4,
        ambiguity_s=AMBIGUITY_S,
        devices=DEVICES,
    )

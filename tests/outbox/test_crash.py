"""Accepted statuses outlive SIGKILL of the process that put them, and of the database server.

``nox -s crash`` runs the long form.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.crash.children import long_only

from .putter import stored

if TYPE_CHECKING:
    from tests.postgres import PostgresServer

pytestmark = long_only
PUTTER = Path(__file__).with_name("putter.py")
ROOT = Path(__file__).parents[2]
LONG = bool(os.environ.get("PRINTOS_LONG_TESTS"))
KILLS = 200 if LONG else 5
SERVER_KILLS = 50 if LONG else 2
DEVICES, COUNT = 4, 40


class Putters:
    """Child processes that put, and what they said was accepted."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.accepted: dict[str, int] = {}
        self.errors = 0
        self.round = 0

    async def start(self, prefix: str = "dev", count: int = COUNT) -> asyncio.subprocess.Process:
        self.round += 1
        return await asyncio.create_subprocess_exec(
            *(sys.executable, str(PUTTER), self._url, "--devices", str(DEVICES), "--prefix", prefix),
            *("--first", str(self.round * 1000), "--count", str(count)),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        )

    async def listen(self, child: asyncio.subprocess.Process, lines: int | None = None) -> None:
        """Take up what a child says: so many lines, or all until it ends."""
        assert child.stdout is not None
        while lines is None or lines > 0:
            line = await child.stdout.readline()
            if not line.endswith(b"\n"):
                return  # the end, or what was cut off by it
            said = json.loads(line)
            if "device" in said:
                self.accepted[said["device"]] = said["number"]
            else:
                self.errors += 1
            if lines is not None:
                lines -= 1

    async def check(self) -> None:
        found = await stored(self._url)
        for device, number in self.accepted.items():
            assert found.get(device, -1) >= number, device


def was_damaged(folder: Path) -> bool:
    return any("damaged" in entry.name for entry in folder.iterdir())


async def test_accepted_statuses_outlive_a_killed_process(tmp_path: Path) -> None:
    putters = Putters(f"sqlite+aiosqlite:///{tmp_path / 'spool.db'}")
    chance = random.Random(1)
    # Two processes at a time: the one that is killed leaves its locks to the other.
    survivor = None
    for number in range(KILLS):
        child = await putters.start(f"dev-{number % 3}")
        if number % 5 == 0:
            survivor = await putters.start("survivor", count=20)
        await putters.listen(child, chance.randrange(DEVICES * COUNT))
        child.kill()
        await putters.listen(child)
        assert await child.wait() == -9
        if survivor is not None:
            await putters.listen(survivor)
            assert await survivor.wait() == 0
            survivor = None
        if number % 10 == 9:
            await putters.check()
    assert putters.errors == 0
    assert len(putters.accepted) > DEVICES
    await putters.check()
    assert not was_damaged(tmp_path)


async def test_accepted_statuses_outlive_a_killed_server(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    putters = Putters(postgres_url)
    chance = random.Random(1)
    for _ in range(SERVER_KILLS):
        child = await putters.start()
        await putters.listen(child, chance.randrange(1, DEVICES * COUNT))
        await asyncio.to_thread(postgres_server.kill)
        await asyncio.to_thread(postgres_server.start)
        await putters.listen(child)
        assert await child.wait() == 0
        await putters.check()
        # What it put last, after the server was back.
        last = putters.round * 1000 + COUNT
        assert dict.fromkeys(putters.accepted, last) == putters.accepted

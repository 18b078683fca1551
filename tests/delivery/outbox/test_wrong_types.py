"""Rows that no outbox has written come into the file of a pusher at work."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.conftest import status

from .conftest import Workplace
from .seen import adds_up, pages

if TYPE_CHECKING:
    from pathlib import Path

    from printos_async import PrintOSClient
    from printos_async.sandbox import Sandbox

COPY = """
    INSERT INTO printos_outbox (account, device_id, seq, body, crc, put_at, due_at, attempts, done_seq, done_attempts)
    SELECT account, {device_id}, {seq}, body, crc, put_at, {due_at}, {attempts}, 0, 0 FROM printos_outbox LIMIT 1
"""
WRONG = {"device_id": "cast('bad' as blob)", "seq": "'many'", "due_at": "'never'", "attempts": "x'00'"}


@pytest.mark.parametrize("column", WRONG)
async def test_they_are_dead_letters_and_everything_else_is_delivered(
    sandbox: Sandbox, client: PrintOSClient, tmp_path: Path, column: str
) -> None:
    path = tmp_path / "spool.db"
    place = Workplace(client, f"sqlite+aiosqlite:///{path}")
    values = {"device_id": "'dev-9'", "seq": "1", "due_at": "0", "attempts": "0", column: WRONG[column]}
    async with place.pusher() as pusher, place.opened() as spooler:
        await sandbox.block()
        await pusher.put("dev-1", status(1))
        await sandbox.wait_for(lambda: sandbox.in_flight == 1)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(COPY.format(**values))
        await sandbox.release()
        await pusher.put("dev-2", status(2))
        await sandbox.wait_for(lambda: pages(sandbox, "dev-1") == 1 and pages(sandbox, "dev-2") == 2)
        async with place.opened() as outbox:
            assert (await outbox.stats()).failed == 1
        assert (await spooler.failed())[0].error.startswith("damaged")
        stats = await pusher.drain(timeout_s=10.0)
    assert adds_up(stats)
    assert (stats.pending, stats.failed, sandbox.request_count) == (0, 0, 2)

"""Damaged files: the outbox opens, returns nothing that was not put, and keeps the damaged file."""

from __future__ import annotations

import logging
import os
import random
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from printos_async import OutboxError
from printos_async.outbox import Draft, SetAside, SqlOutbox

from .putter import ACCOUNT, body, claimed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LONG = bool(os.environ.get("PRINTOS_LONG_TESTS"))
DAMAGES = range(200 if LONG else 25)
DEVICES, ROUNDS = 60, 4


def url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


def set_aside(path: Path) -> list[Path]:
    """Return the damaged databases beside an outbox, without their WALs."""
    return [found for found in path.parent.glob(f"{path.name}.damaged-*") if found.name.endswith("Z")]


async def put_round(outbox: SqlOutbox, number: int) -> None:
    for index in range(DEVICES):
        await outbox.put([Draft(f"dev-{index}", body(f"dev-{index}", number))])


@pytest.fixture
async def snapshot(tmp_path: Path) -> Path:
    """Files of a killed process: statuses in the database, and newer ones in the WAL."""
    path = tmp_path / "whole" / "spool.db"
    for half in range(2):
        outbox = SqlOutbox(url(path))
        await outbox.open(ACCOUNT)
        for number in range(half * ROUNDS, (half + 1) * ROUNDS):
            await put_round(outbox, number)
        if half == 1:
            shutil.copytree(path.parent, tmp_path / "killed", ignore=shutil.ignore_patterns("*-shm"))
        await outbox.aclose()
    copied = tmp_path / "killed" / "spool.db"
    assert copied.with_name("spool.db-wal").stat().st_size > 100_000
    assert copied.stat().st_size > 10_000
    return copied


def flip_one_bit(content: bytearray, chance: random.Random) -> None:
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def flip_many_bits(content: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randrange(2, 200)):
        flip_one_bit(content, chance)


def flip_in_the_head(content: bytearray, chance: random.Random) -> None:
    content[chance.randrange(120)] ^= 1 << chance.randrange(8)


def flip_in_the_schema(content: bytearray, chance: random.Random) -> None:
    content[chance.randrange(100, 4096)] ^= 1 << chance.randrange(8)


def truncate(content: bytearray, chance: random.Random) -> None:
    del content[chance.randrange(len(content)) :]


def zero_a_page(content: bytearray, chance: random.Random) -> None:
    start = chance.randrange(max(1, len(content) // 4096)) * 4096
    content[start : start + 4096] = bytes(len(content[start : start + 4096]))


def swap_pages(content: bytearray, chance: random.Random) -> None:
    one, other = (chance.randrange(len(content) // 4096) * 4096 for _ in range(2))
    first, second = content[one : one + 4096], content[other : other + 4096]
    content[one : one + 4096], content[other : other + 4096] = second, first


KINDS: list[Callable[[bytearray, random.Random], None]] = [
    flip_one_bit,
    flip_many_bits,
    flip_in_the_head,
    flip_in_the_schema,
    truncate,
    zero_a_page,
    swap_pages,
]


async def test_a_damaged_outbox_opens_and_hands_out_only_what_was_put(
    snapshot: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    times = 0
    for seed in DAMAGES:
        chance = random.Random(seed)
        path = tmp_path / f"damaged-{seed}" / "spool.db"
        shutil.copytree(snapshot.parent, path.parent)
        part = path.with_name(path.name + chance.choice(["", "", "-wal"]))
        if chance.random() < 0.3:
            path.with_name("spool.db-wal").unlink()
            part = path
        content = bytearray(part.read_bytes())
        kind = KINDS[seed % len(KINDS)]
        kind(content, chance)
        part.write_bytes(content)
        note = f"seed {seed}: {kind.__name__} in {part.name}"
        caplog.clear()

        outbox = SqlOutbox(url(path))
        await outbox.open(ACCOUNT)
        found = await claimed(outbox)
        for device, number in found.items():
            assert device in {f"dev-{index}" for index in range(DEVICES)}, note
            assert 0 <= number < 2 * ROUNDS, note
        await put_round(outbox, 100)
        assert await claimed(outbox) == {f"dev-{index}": 100 for index in range(DEVICES)}, note
        await outbox.aclose()

        kept = set_aside(path)
        records = [record for record in caplog.records if record.name == "printos_async.outbox"]
        assert [getattr(record, "kept_as", None) for record in records] == [str(name) for name in kept], note
        for name in kept:
            times += 1
            assert records[0].levelno == logging.WARNING
            as_kept = name.with_name(part.name.replace("spool.db", name.name))
            assert as_kept.read_bytes() == content, note
            assert as_kept.stat().st_mode & 0o777 == 0o600
        shutil.rmtree(path.parent)
    assert times > len(DAMAGES) / 5


@pytest.mark.parametrize(
    "content",
    [b"", b"\0not a database, but long enough for one" * 100, b"SQLite format 3\0", b"SQLite form"],
    ids=["empty", "garbage", "header", "half a header"],
)
async def test_whatever_lies_at_the_path_the_outbox_opens(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "spool.db"
    path.write_bytes(content)
    told: list[SetAside] = []
    outbox = SqlOutbox(url(path))
    outbox.on_set_aside = told.append
    await outbox.open(ACCOUNT)
    await put_round(outbox, 1)
    assert len(await claimed(outbox)) == DEVICES
    await outbox.aclose()
    kept = set_aside(path)
    assert [(what.path, what.kept_as) for what in told] == [(str(path), str(name)) for name in kept]
    assert [name.read_bytes() for name in kept] == ([content] if content else [])


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b'{"deviceId": "dev-1", "status": "DS_ON"}\n' * 500, "a text file"),
        (b"deviceId,status\r\n", "a text file"),
        (None, "a database of another program"),
    ],
    ids=["JSON lines", "short CSV", "SQLite"],
)
async def test_a_file_of_another_program_is_refused_and_left_alone(
    tmp_path: Path, content: bytes | None, what: str
) -> None:
    path = tmp_path / "statuses.jsonl"
    if content is None:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE bookmark (url TEXT)")
        content = path.read_bytes()
    path.write_bytes(content)
    outbox = SqlOutbox(url(path))
    with pytest.raises(OutboxError, match=f"statuses.jsonl is {what} and no outbox; choose another path"):
        await outbox.open(ACCOUNT)
    await outbox.aclose()
    assert path.read_bytes() == content
    assert set_aside(path) == []


def garble_bodies(path: Path) -> None:
    """Change every body behind SQLite's back; its structure stays whole."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = path.read_bytes()
    assert b'"DS_ON"' in content
    path.write_bytes(content.replace(b'"DS_ON"', b'"DS_OM"'))


async def test_a_changed_body_is_noticed_although_the_database_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    outbox = SqlOutbox(url(path))
    await outbox.open(ACCOUNT)
    await put_round(outbox, 1)
    await outbox.aclose()
    garble_bodies(path)
    outbox = SqlOutbox(url(path))
    await outbox.open(ACCOUNT)
    assert await claimed(outbox) == {}
    assert len(await outbox.failed()) == DEVICES
    await put_round(outbox, 2)
    assert len(await claimed(outbox)) == DEVICES
    await outbox.aclose()


async def test_damage_that_shows_while_two_work_is_set_aside_once_and_both_go_on(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    first, second = SqlOutbox(url(path)), SqlOutbox(url(path))
    for outbox in (first, second):
        await outbox.open(ACCOUNT)
        await put_round(outbox, 1)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = path.read_bytes()
    path.write_bytes(content[:4096] + bytes(len(content) - 4096))
    # A commit of another connection makes each read anew what it had kept in memory.
    with closing(sqlite3.connect(path)) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("PRAGMA user_version = 7")
    for number, outbox in enumerate((first, second), start=2):
        await claimed(outbox)
        await put_round(outbox, number)
    assert await claimed(first) == {f"dev-{index}": 3 for index in range(DEVICES)}
    for outbox in (first, second):
        await outbox.aclose()
    assert len(set_aside(path)) == 1


async def test_a_file_that_is_deleted_or_replaced_takes_no_accepted_status_with_it(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    outbox = SqlOutbox(url(path))
    await outbox.open(ACCOUNT)
    await put_round(outbox, 1)
    for suffix in ("", "-wal", "-shm", "-lock"):
        path.with_name(path.name + suffix).unlink()
    await put_round(outbox, 2)
    await outbox.aclose()
    again = SqlOutbox(url(path))
    await again.open(ACCOUNT)
    assert await claimed(again) == {f"dev-{index}": 2 for index in range(DEVICES)}
    await again.aclose()

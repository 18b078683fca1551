"""Rows of a SQLite file with values of types that no outbox writes: dead letters, and nobody is hindered by them."""

from __future__ import annotations

import os
import sqlite3
from contextlib import AsyncExitStack, closing
from typing import TYPE_CHECKING, Any

import pytest

from printos_async import SqlOutbox
from printos_async.outbox import Draft, Finish, Release
from printos_async.outbox.sql.batches import crc

from .stores import ACCOUNT, draft

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    Operation = Callable[[SqlOutbox, int], Awaitable[object]]

BODY = '{"status":"DS_ON"}'
LONG = bool(os.environ.get("PRINTOS_LONG_TESTS"))
WORDS = (b"bad", "bad", float("inf"))
MORE_WORDS = (b"\xff\xfe", b"", "", 1.5, float("-inf"), -1, (1 << 63) - 1) if LONG else ()
NOBODY = (-1,)  # the number of a worker, as far as anybody can see
COLUMNS = (
    "account",
    "device_id",
    "seq",
    "body",
    "crc",
    "put_at",
    "due_at",
    "attempts",
    "owner",
    "doubt_since",
    "unseen_by",
    "waiting_since",
    "done_seq",
    "done_at",
    "done_attempts",
    "error",
)
WAITING: dict[str, Any] = {
    "account": ACCOUNT,
    "device_id": "bad",
    "seq": 5,
    "body": BODY,
    "crc": crc("bad", BODY.encode()),
    "put_at": 1_700_000_000.0,
    "due_at": 1_700_000_000.0,
    "attempts": 0,
    "owner": None,
    "doubt_since": None,
    "unseen_by": None,
    "waiting_since": None,
    "done_seq": 4,
    "done_at": None,
    "done_attempts": 0,
    "error": None,
}
DEAD = WAITING | {"done_seq": 5, "done_at": 1_700_000_000.0, "error": "404"}
DELIVERED = DEAD | {"error": None}
STATES = {"waiting": WAITING, "dead": DEAD} | ({"delivered": DELIVERED} if LONG else {})


def rows(state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every column in turn with every wrong value, and two wrong columns at once."""
    for column in COLUMNS:
        for word in (*WORDS, *MORE_WORDS):
            yield state | {column: word}
    yield state | {"seq": b"bad", "done_seq": b"bad"}
    yield state | {"device_id": b"bad", "due_at": "never", "owner": "nobody"}


def write(connection: sqlite3.Connection, row: dict[str, Any]) -> None:
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO printos_outbox ({names}) VALUES ({marks})", tuple(row.values()))
    connection.commit()


def named(row: dict[str, Any], name: str) -> dict[str, Any]:
    """Move the row to a device of its own."""
    old = row["device_id"]
    return row | {"device_id": old + name.encode() if isinstance(old, bytes) else f"{old}{name}"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


async def opened(path: Path, stack: AsyncExitStack) -> SqlOutbox:
    outbox = SqlOutbox(f"sqlite+aiosqlite:///{path}")
    stack.push_async_callback(outbox.aclose)
    await outbox.open(ACCOUNT)
    return outbox


async def claim(outbox: SqlOutbox, owner: int) -> None:
    claims = await outbox.claim(owner, 1000)
    # Nothing but what can be sent is handed out.
    for one in claims:
        assert (type(one.device_id), type(one.seq), type(one.attempts)) == (str, int, int)
        assert one.waited_s >= 0.0
    await outbox.release(owner, [Release(one.device_id) for one in claims])


async def put(outbox: SqlOutbox, owner: int) -> None:
    [kept] = await outbox.put([Draft("bad", b'{"status":"DS_OFF"}')])
    assert kept.seq > 0
    assert "bad" in {one.device_id for one in await outbox.claim(owner, 1000)}
    # What was put is delivered, whatever the row was.
    assert await outbox.finish(owner, [Finish("bad", kept.seq)]) == []
    assert await outbox.progress(["bad"]) == []


async def progress(outbox: SqlOutbox, _: int) -> None:
    for one in await outbox.progress(["bad"]):
        assert (type(one.seq), type(one.done_seq), type(one.attempts)) == (int, int, int)
        assert isinstance(one.error, str | None)


async def newer(outbox: SqlOutbox, owner: int) -> None:
    await outbox.newer(owner, 1000)


async def finish(outbox: SqlOutbox, owner: int) -> None:
    await outbox.finish(owner, [Finish("bad", 4, error="404"), Finish("bad", 5)])


async def renew(outbox: SqlOutbox, owner: int) -> None:
    assert await outbox.renew(owner)


async def stats(outbox: SqlOutbox, _: int) -> None:
    assert (await outbox.stats()).devices <= 1


async def failed(outbox: SqlOutbox, _: int) -> None:
    letters = await outbox.failed(limit=1)
    letters += await outbox.failed(after=letters[-1].device_id) if letters else []
    assert len({letter.device_id for letter in letters}) == len(letters)
    for letter in letters:
        assert (type(letter.device_id), type(letter.attempts), type(letter.error)) == (str, int, str)


async def requeue(outbox: SqlOutbox, owner: int) -> None:
    await outbox.requeue(["bad"])
    await outbox.requeue()
    await claim(outbox, owner)


async def purge(outbox: SqlOutbox, _: int) -> None:
    await outbox.purge()
    await outbox.purge(failed=True)


async def devices(outbox: SqlOutbox, _: int) -> None:
    await outbox.devices()


OPERATIONS = {
    operation.__name__: operation
    for operation in (claim, put, progress, newer, finish, renew, stats, failed, devices, requeue, purge)
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_row_that_comes_while_the_outbox_is_open_hinders_nothing(
    path: Path, stack: AsyncExitStack, operation: str, state: str
) -> None:
    outbox = await opened(path, stack)
    owner = await outbox.join()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        for number, row in enumerate(rows(STATES[state])):
            if operation == "put" and row["owner"] in NOBODY:
                continue
            if operation in {"newer", "finish"} and row["owner"] is None:
                row["owner"] = owner
            write(connection, row)
            await OPERATIONS[operation](outbox, owner)
            good = f"good-{number}"
            await outbox.put([draft(good)])
            assert good in {claim.device_id for claim in await outbox.claim(owner, 1000)}, row
            connection.execute("DELETE FROM printos_outbox")
            connection.execute("UPDATE printos_meta SET floor = 0")
            connection.commit()


async def test_a_file_with_such_rows_opens_and_they_are_dead_letters(
    path: Path, stack: AsyncExitStack
) -> None:
    await (await opened(path, stack)).put([draft("good")])
    bad = [
        named(row, f"-{name}-{number}")
        for name, state in STATES.items()
        for number, row in enumerate(rows(state))
    ]
    with closing(sqlite3.connect(path)) as connection:
        for row in bad:
            write(connection, row)
    outbox = await opened(path, stack)
    assert not list(path.parent.glob("*.damaged-*"))
    owner = await outbox.join()
    claims = {claim.device_id: claim for claim in await outbox.claim(owner, 1000)}
    assert "good" in claims
    letters = {letter.device_id: letter for letter in await outbox.failed(limit=1000)}
    for row in bad:
        name = row["device_id"]
        if row["account"] != ACCOUNT or row["owner"] in NOBODY:
            continue
        shown = f"x'{name.hex().upper()}'" if isinstance(name, bytes) else name
        is_delivered = row["done_seq"] == row["seq"] and row["error"] is None
        assert (shown in claims) + (shown in letters) == 1 or (is_delivered and shown not in claims), row
        if shown in letters and not isinstance(row["error"], str | float | int):
            assert letters[shown].error.startswith("damaged")
            [kept] = await outbox.put([Draft(shown, BODY.encode())], owner=owner)
            assert kept.claimed or shown in {claim.device_id for claim in await outbox.claim(owner, 1000)}


@pytest.mark.parametrize("word", ["'bad'", "x'00'", "9e999", "-1"])
async def test_a_lease_or_a_floor_of_a_wrong_type_is_repaired(
    path: Path, stack: AsyncExitStack, word: str
) -> None:
    first = await opened(path, stack)
    dead = await first.join()
    await first.put([draft("a"), draft("a")], owner=dead)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE printos_worker SET lease_until = {word}, renewed_at = {word}")
        connection.execute(f"INSERT INTO printos_worker VALUES ({word}, ?, 9e9, 0)", (ACCOUNT,))
        connection.execute(f"UPDATE printos_meta SET floor = {word}")
    outbox = await opened(path, stack)
    owner = await outbox.join()
    assert await outbox.renew(owner)
    [claim] = await outbox.claim(owner, 10)
    assert (claim.device_id, claim.seq) == ("a", 2)
    await outbox.finish(owner, [Finish("a", 2)])
    assert (await outbox.put([draft("a")]))[0].seq > 2


@pytest.mark.parametrize("word", ["'bad'", "x'00'", "0", "-3", "1.5"])
async def test_a_file_whose_version_is_none_is_set_aside(
    path: Path, stack: AsyncExitStack, word: str
) -> None:
    await (await opened(path, stack)).put([draft("a")])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE printos_meta SET version = {word}")
    outbox = await opened(path, stack)
    assert (await outbox.stats()).devices == 0
    assert len([found for found in path.parent.glob("*.damaged-*") if found.name.endswith("Z")]) == 1

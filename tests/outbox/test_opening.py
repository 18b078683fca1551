"""Opening and closing a SQLite outbox while other processes have its locks: limits, cancellation, nothing left open."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from printos_async import OutboxError, SqlOutbox
from printos_async.outbox.sqlite import files

from .stores import ACCOUNT, SqlStore, draft, sql_store

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")
CLOSES_S = 20.0


@pytest.fixture
def store_url(spool: Path) -> str:
    return f"sqlite+aiosqlite:///{spool}"


@contextmanager
def opening_lock(spool: Path) -> Iterator[None]:
    """Hold the lock, as a process does that was stopped while it opens the outbox."""
    import fcntl  # noqa: PLC0415  # Windows has none

    with spool.with_name("spool.db-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def writer(spool: Path) -> Iterator[None]:
    """Hold SQLite's lock of a writer."""
    with closing(sqlite3.connect(spool, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


def test_waiting_for_a_process_that_opens_the_file_has_a_limit(spool: Path) -> None:
    with opening_lock(spool):
        expected = r"spool\.db-lock for 0.05 s; find it \(fuser .*spool\.db-lock\)"
        with pytest.raises(OutboxError, match=expected), files.locked(spool, timeout_s=0.05):
            pass
    with files.locked(spool, timeout_s=0.0):
        pass


async def test_an_opening_that_waits_for_another_one_can_be_cancelled(store: SqlStore, spool: Path) -> None:
    outbox = SqlOutbox(store.url)
    with opening_lock(spool):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await outbox.open(ACCOUNT)
        assert open_files(spool) == {"spool.db-lock"}  # the test's
    await outbox.open(ACCOUNT)
    await outbox.aclose()


async def test_a_closing_that_was_cancelled_is_completed(store: SqlStore, spool: Path) -> None:
    outbox = await store.open()
    owner = await outbox.join()
    with writer(spool):
        put = asyncio.create_task(outbox.put([draft("a")], owner=owner))
        await asyncio.sleep(0)  # it begins
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await outbox.aclose()
    async with asyncio.timeout(CLOSES_S):
        await outbox.aclose()
    assert (await put)[0].claimed
    assert open_files(spool) == set()
    other = await store.open()
    assert [claim.device_id for claim in await other.claim(await other.join(), 10)] == ["a"]


async def test_an_outbox_is_opened_again_after_a_closing_that_was_cancelled(
    store: SqlStore, spool: Path
) -> None:
    outbox = await store.open()
    with writer(spool):
        put = asyncio.create_task(outbox.put([draft("a")]))
        await asyncio.sleep(0)  # it begins
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await outbox.aclose()
    await outbox.open(ACCOUNT)
    assert put.done()
    assert (await outbox.stats()).waiting == 1


def open_files(spool: Path) -> set[str]:
    """Return the names of the outbox's files that this process has open, if the system shows them."""
    found = set()
    for descriptor in Path("/proc/self/fd").glob("*"):
        try:
            target = descriptor.readlink()
        except OSError:  # the listing's own
            continue
        if target.parent == spool.parent.resolve():
            found.add(target.name)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse names that are no UTF-8")
async def test_a_folder_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder-\udcff"
    folder.mkdir()
    monkeypatch.chdir(folder)
    async with sql_store("sqlite+aiosqlite:///spool.db") as store:
        outbox = await store.open()
        await outbox.put([draft("a")])
        assert (await outbox.stats()).devices == 1

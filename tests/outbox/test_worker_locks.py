"""On SQLite the devices of a worker whose process has ended are free at once, and those of no other worker."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from printos_async.outbox.sqlite.worker_locks import WorkerLocks

from .stores import ACCOUNT, LEASE_S, SqlStore, draft

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from printos_async.outbox import Claim, SqlOutbox

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")
ROOT = Path(__file__).parents[2]
JOINED = Path(__file__).with_name("joined.py")
LOOKS = pytest.mark.parametrize("look", ["join", "newer", "renew"])


@pytest.fixture
def store_url(spool: Path) -> str:
    return f"sqlite+aiosqlite:///{spool}"


@asynccontextmanager
async def joined_process(url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a process with a worker that owns device ``a``."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(JOINED), url),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"joined\n"
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def dead_worker(store: SqlStore, account: str = ACCOUNT) -> None:
    """Leave a worker behind that owns device ``a``: its outbox was closed before it could leave."""
    outbox = await store.open(account)
    assert (await outbox.put([draft("a")], owner=await outbox.join()))[0].claimed
    await outbox.aclose()


async def looked(outbox: SqlOutbox, owner: int, look: str) -> list[Claim]:
    """Return what a worker can claim after a look at the others."""
    outbox._session.workers._next_look_s = 0.0  # type: ignore[union-attr]
    if look == "join":
        owner = await outbox.join()
    elif look == "newer":
        await outbox.newer(owner, 10)
    else:
        assert await outbox.renew(owner)
    return await outbox.claim(owner, 10)


async def end_leases(store: SqlStore, owner: int) -> None:
    """End the leases of all other workers, as time does."""
    await store.execute("UPDATE printos_worker SET lease_until = lease_until - 60 WHERE id <> :id", id=owner)


def worker_files(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}-worker-*"))


async def test_a_stopped_process_keeps_its_devices_until_it_is_killed(store: SqlStore, spool: Path) -> None:
    outbox = await store.open()
    owner = await outbox.join()
    async with joined_process(store.url) as process:
        process.send_signal(signal.SIGSTOP)
        for look in ("join", "newer", "renew"):
            assert await looked(outbox, owner, look) == []
        process.kill()
        await process.wait()
        [claim] = await looked(outbox, owner, "renew")
    assert claim.device_id == "a"
    assert claim.uncertain_age_s is not None
    assert 0 <= claim.uncertain_age_s < LEASE_S / 2
    assert len(worker_files(spool)) == 2


async def test_a_worker_that_lives_loses_its_devices_when_its_lease_ends(store: SqlStore) -> None:
    outbox, hung = await store.open(), await store.open()
    owner = await outbox.join()
    await hung.put([draft("a")], owner=await hung.join())
    assert await looked(outbox, owner, "renew") == []
    await end_leases(store, owner)
    assert [claim.device_id for claim in await looked(outbox, owner, "renew")] == ["a"]


@LOOKS
async def test_whoever_joins_renews_or_looks_for_newer_statuses_takes_over(
    store: SqlStore, spool: Path, look: str
) -> None:
    outbox = await store.open()
    owner = await outbox.join()
    await dead_worker(store)
    assert len(worker_files(spool)) == 2
    [claim] = await looked(outbox, owner, look)
    assert claim.device_id == "a"
    assert claim.uncertain_age_s is not None
    assert len(worker_files(spool)) == (2 if look == "join" else 1)
    # Once is enough: the worker itself is left alone.
    assert await looked(outbox, owner, "renew") == []


@LOOKS
async def test_workers_of_one_process_do_not_take_each_other_for_dead(store: SqlStore, look: str) -> None:
    first, second, third = [await store.open() for _ in range(3)]
    owner = await first.join()
    await first.put([draft("a")], owner=owner)
    other, last = await second.join(), await third.join()
    assert await looked(second, other, look) == []
    # Closing an open file would drop a lock of fcntl's on the same file.
    await second.aclose()
    assert await looked(third, last, look) == []
    assert await first.renew(owner)


async def test_a_worker_without_a_file_keeps_its_devices_until_its_lease_ends(
    store: SqlStore, spool: Path
) -> None:
    await dead_worker(store)
    for path in worker_files(spool):
        path.unlink()  # as that of an earlier version, which has none
    outbox = await store.open()
    owner = await outbox.join()
    assert await looked(outbox, owner, "renew") == []
    await end_leases(store, owner)
    assert [claim.device_id for claim in await looked(outbox, owner, "renew")] == ["a"]


async def test_a_worker_of_another_tenant_is_left_to_its_tenant(store: SqlStore) -> None:
    await dead_worker(store, "another")
    outbox = await store.open()
    assert await looked(outbox, await outbox.join(), "renew") == []
    other = await store.open("another")
    [claim] = await other.claim(await other.join(), 10)
    assert claim.device_id == "a"


@pytest.mark.parametrize("umask", [0o000, 0o777], ids=oct)
async def test_files_are_the_owners_alone_and_are_deleted_at_the_end(
    store: SqlStore, spool: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        outbox = await store.open()
        owner = await outbox.join()
    finally:
        os.umask(before)
    [path] = worker_files(spool)
    assert path.name == f"spool.db-worker-{owner}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await outbox.leave(owner)
    assert worker_files(spool) == []


async def test_a_worker_whose_lease_has_ended_or_whose_file_was_replaced_has_no_file(
    store: SqlStore, spool: Path
) -> None:
    outbox = await store.open()
    owner = await outbox.join()
    await store.pass_time(LEASE_S + 1.0)
    assert not await outbox.renew(owner)
    assert worker_files(spool) == []
    await outbox.join()
    await asyncio.to_thread(spool.rename, spool.with_name("old.db"))
    await outbox.put([draft("a")])
    assert worker_files(spool) == []


async def test_a_file_system_without_locks_leaves_it_to_the_lease(
    store: SqlStore, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    outbox, dead = await store.open(), await store.open()
    owner = await outbox.join()
    before = worker_files(spool)
    with monkeypatch.context() as patched:
        patched.setattr("fcntl.flock", refuse)
        await dead.put([draft("a")], owner=await dead.join())
        await dead.aclose()
        assert worker_files(spool) == before
        assert await looked(outbox, owner, "newer") == []
    assert await looked(outbox, owner, "renew") == []
    await end_leases(store, owner)
    assert [claim.device_id for claim in await looked(outbox, owner, "renew")] == ["a"]


def test_a_file_of_another_boot_is_deleted_and_ends_no_lease(spool: Path) -> None:
    before, after = WorkerLocks(lambda: spool, "before"), WorkerLocks(lambda: spool, "after")
    before.hold(1, ACCOUNT)
    assert after.lock_dead(ACCOUNT) == []
    assert len(worker_files(spool)) == 1
    before.release_all()
    assert after.lock_dead(ACCOUNT) == []
    assert worker_files(spool) == []


def test_a_file_of_a_process_that_died_before_it_locked_it_is_deleted_later(spool: Path) -> None:
    new = spool.with_name("spool.db-worker-1.new")
    new.touch()
    locks = WorkerLocks(lambda: spool, "boot")
    assert locks.lock_dead(ACCOUNT) == []
    assert new.exists()
    os.utime(new, (0.0, 0.0))
    assert locks.lock_dead(ACCOUNT) == []
    assert not new.exists()


def test_a_directory_is_read_only_after_it_has_changed(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[Path] = []
    listdir: Callable[[Path], list[str]] = os.listdir

    def count(path: Path) -> list[str]:
        listed.append(path)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", count)
    locks, other = WorkerLocks(lambda: spool, "boot"), WorkerLocks(lambda: spool, "boot")
    other.hold(1, ACCOUNT)
    os.utime(spool.parent, (0.0, 0.0))
    for _ in range(3):
        assert locks.lock_dead(ACCOUNT) == []
    assert len(listed) == 1
    other.hold(2, ACCOUNT)  # just now, and it dies after the directory was read
    assert locks.lock_dead(ACCOUNT) == []
    other.release_all()
    dead = locks.lock_dead(ACCOUNT)
    assert sorted(file.owner for file in dead) == [1, 2]
    for file in dead:
        file.remove()
    assert locks.lock_dead(ACCOUNT) == []


def test_a_link_in_the_place_of_a_file_is_not_followed(spool: Path) -> None:
    locks = WorkerLocks(lambda: spool, "boot")
    locks.hold(1, ACCOUNT)
    locks.release_all()
    target = spool.with_name("precious")
    [path] = worker_files(spool)
    path.rename(target)
    path.symlink_to(target)
    assert WorkerLocks(lambda: spool, "boot").lock_dead(ACCOUNT) == []
    assert target.exists()


def test_a_forked_child_does_not_hold_the_locks_of_its_parent(spool: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path\n"
        "from printos_async.outbox.sqlite.worker_locks import WorkerLocks\n"
        "locks = WorkerLocks(lambda: Path(sys.argv[1]), 'boot'); locks.hold(1, 'account')\n"
        "if os.fork() == 0:\n"
        "    print('forked', flush=True); sys.stdin.read(); os._exit(0)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(spool)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "forked\n"
        locks = WorkerLocks(lambda: spool, "boot")
        assert locks.lock_dead("account") == []  # the parent holds it
        process.kill()
        process.wait()
        # The child lives: it ends with its input.
        [file] = locks.lock_dead("account")
        file.remove()


@pytest.fixture
def watchers(spool: Path) -> Iterator[list[int]]:
    """Processes' threads that look all the time, delete what is dead, and note its owner."""
    dead: list[int] = []
    stop = threading.Event()

    def look() -> None:
        locks = WorkerLocks(lambda: spool, "boot")
        while not stop.is_set():
            for file in locks.lock_dead(ACCOUNT):
                dead.append(file.owner)
                file.remove()

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    yield dead
    stop.set()
    for thread in threads:
        thread.join()


def test_no_living_worker_is_taken_for_dead_and_each_dead_one_is_found_once(
    spool: Path, watchers: list[int]
) -> None:
    locks = WorkerLocks(lambda: spool, "boot")
    for owner in range(1, 101):
        locks.hold(owner, ACCOUNT)
        assert owner not in watchers
        if owner % 2:
            locks.drop(owner)
        else:
            assert spool.with_name(f"spool.db-worker-{owner}").exists()
            locks.release_all()
    while worker_files(spool):
        pass
    assert sorted(watchers) == list(range(2, 101, 2))

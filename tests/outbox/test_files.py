"""The file of a SQLite outbox is its owner's alone, and a damaged one is set aside once, whole and named."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from printos_async._errors import OutboxError
from printos_async.outbox.sqlite import files
from printos_async.outbox.sqlite.permissions import check_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has access lists instead of modes")
only_root = pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="only root gives files to other users"
)
SOMEONE_ELSE = 12345


def prepare(path: Path) -> Path:
    real = files.prepare_directory(path)
    with files.locked(real):
        files.prepare_file(real)
    return real


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_directories_and_all_files_of_the_database_are_the_owners_alone(tmp_path: Path) -> None:
    path = prepare(tmp_path / "new" / "deep" / "spool.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (n int)")
        names = {"spool.db", "spool.db-wal", "spool.db-shm", "spool.db-lock"}
        assert {entry.name for entry in path.parent.iterdir()} == names
        for name in names:
            assert mode(path.with_name(name)) == 0o600, name
    assert mode(tmp_path / "new") == mode(tmp_path / "new" / "deep") == 0o700


def test_an_existing_outbox_is_closed_to_others_and_keeps_its_content(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    path.write_bytes(b"")
    path.chmod(0o666)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (n int)")
        before = files.identity(path)
        prepare(path)
        assert [mode(path.with_name(f"spool.db{suffix}")) for suffix in ("", "-wal", "-shm")] == [0o600] * 3
        assert files.identity(path) == before
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_another_process_may_close_the_file_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path = tmp_path / "spool.db"

    def close_meanwhile(part: Path) -> None:
        # The last one that closes the database deletes these.
        if part != path and moment == "before":
            part.unlink(missing_ok=True)
        check_file(part)
        if part != path:
            part.unlink(missing_ok=True)

    for suffix in ("", "-wal", "-shm"):
        path.with_name(f"spool.db{suffix}").touch(0o644)
    monkeypatch.setattr(files, "check_file", close_meanwhile)
    assert files.prepare_file(path) == files.identity(path)


def test_preparing_leaves_the_locks_of_open_connections_alone(tmp_path: Path) -> None:
    path = prepare(tmp_path / "spool.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (n int)")
        connection.execute("BEGIN IMMEDIATE")
        prepare(path)
        # Another process asks, for within one SQLite keeps count by itself.
        code = (
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=0)\n"
            "try: c.execute('BEGIN IMMEDIATE'); print('got it')\n"
            "except sqlite3.OperationalError as error: print(error.sqlite_errorname)"
        )
        asked = subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True, text=True)
        assert asked.stdout.strip() == "SQLITE_BUSY"


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-lock"])
@pytest.mark.parametrize("dangling", [False, True])
def test_a_symlink_is_refused_and_what_it_leads_to_is_left_alone(
    tmp_path: Path, suffix: str, *, dangling: bool
) -> None:
    target = tmp_path / "precious"
    if not dangling:
        target.write_text("mine")
    if suffix:
        (tmp_path / "spool.db").touch()
    (tmp_path / f"spool.db{suffix}").symlink_to(target)
    with pytest.raises(OutboxError, match=r"symlink|symbolic link"):
        prepare(tmp_path / "spool.db")
    assert target.exists() is not dangling
    assert dangling or target.read_text() == "mine"


def test_a_symlinked_directory_is_resolved_once(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert prepare(tmp_path / "link" / "spool.db") == (tmp_path / "real" / "spool.db").resolve()


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(OutboxError, match="not a regular file"):
            prepare(tmp_path / name)
    (tmp_path / "file").touch()
    with pytest.raises(OutboxError, match=r"[Nn]ot a directory"):
        prepare(tmp_path / "file" / "spool.db")


@pytest.mark.parametrize(
    ("bits", "advice"), [(0o757, r" or take the right away \(chmod o-w\)"), (0o1777, "your own$")]
)
def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path, bits: int, advice: str) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(bits)
    with pytest.raises(OutboxError, match=f"can be written to by every user.*{advice}"):
        prepare(tmp_path / "open" / "spool.db")
    assert not list((tmp_path / "open").iterdir())


def test_a_directory_below_one_that_others_can_write_to_needs_the_sticky_bit(tmp_path: Path) -> None:
    (tmp_path / "open" / "own").mkdir(parents=True)
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(
        OutboxError, match=f"{tmp_path / 'open'} of the outbox can be written to by every user"
    ):
        prepare(tmp_path / "open" / "own" / "spool.db")
    with pytest.raises(
        OutboxError, match=f"{tmp_path / 'open'} of the outbox can be written to by every user"
    ):
        prepare(tmp_path / "open" / "new" / "spool.db")
    assert not (tmp_path / "open" / "new").exists()
    (tmp_path / "open").chmod(0o1777)
    prepare(tmp_path / "open" / "own" / "spool.db")


@only_root
def test_what_belongs_to_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    path.touch()
    os.chown(path, SOMEONE_ELSE, -1)
    with pytest.raises(OutboxError, match=rf"belongs to another user \(uid {SOMEONE_ELSE}"):
        prepare(path)
    (tmp_path / "theirs" / "own").mkdir(parents=True)
    os.chown(tmp_path / "theirs", SOMEONE_ELSE, -1)
    for below in ("theirs", "theirs/own"):
        with pytest.raises(OutboxError, match="theirs of the outbox belongs to another user"):
            prepare(tmp_path / below / "spool.db")


@only_root
def test_a_directory_that_a_shared_group_can_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    os.chown(tmp_path / "shared", -1, SOMEONE_ELSE)
    (tmp_path / "shared").chmod(0o770)
    with pytest.raises(OutboxError, match=f"by the group {SOMEONE_ELSE}.*chmod g-w"):
        prepare(tmp_path / "shared" / "spool.db")


def set_aside(path: Path, damaged: files.FileIdentity) -> Path | None:
    with files.locked(path):
        return files.move_aside(path) if files.identity(path) == damaged else None


def damaged_outbox(path: Path) -> files.FileIdentity:
    path = prepare(path)
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).write_text(f"content{suffix}")
    found = files.identity(path)
    assert found is not None
    return found


def test_a_damaged_outbox_is_set_aside_with_its_wal(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    names = []
    for _ in range(3):  # within one second
        name = set_aside(path, damaged_outbox(path))
        assert name is not None
        assert re.fullmatch(r"spool\.db\.damaged-\d{8}T\d{6}Z(\.\d)?", name.name)
        for suffix in ("", "-wal", "-shm"):
            assert name.with_name(name.name + suffix).read_text() == f"content{suffix}"
            assert not path.with_name(path.name + suffix).exists()
        names.append(name)
    assert len(set(names)) == 3


def test_of_many_who_find_the_same_damage_one_sets_it_aside(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    damaged = damaged_outbox(path)
    together = threading.Barrier(8)
    names: list[Path | None] = []

    def work() -> None:
        together.wait()
        names.append(set_aside(path, damaged))
        prepare(path)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names) == 8
    assert len([name for name in names if name is not None]) == 1
    assert path.read_bytes() == b""
    assert files.identity(path) not in {None, damaged}
    assert len(list(tmp_path.glob("*.damaged-*Z"))) == 1


def test_a_wal_without_its_database_is_kept_and_not_applied_to_the_next_one(tmp_path: Path) -> None:
    # What is left when a process dies while it sets an outbox aside.
    path = tmp_path / "spool.db"
    damaged_outbox(path)
    path.unlink()
    prepare(path)
    assert {entry.name for entry in tmp_path.glob("spool.db*") if "damaged" not in entry.name} == {
        "spool.db",
        "spool.db-lock",
    }
    [wal] = tmp_path.glob("*.damaged-*-wal")
    assert wal.read_text() == "content-wal"


def test_a_connection_can_tell_that_its_file_was_replaced(tmp_path: Path) -> None:
    path = prepare(tmp_path / "spool.db")
    opened = files.identity(path)
    assert opened is not None
    set_aside(path, opened)
    assert files.identity(path) is None
    prepare(path)
    assert files.identity(path) != opened

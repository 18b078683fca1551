"""The file of a SQLite outbox: created for its owner alone, locked while it is opened, renamed when damaged.

SQLite creates its ``-wal`` and ``-shm`` files with the mode of the database file, whatever the umask, so only the
latter's mode matters. A database that may be in use is never opened here: closing any descriptor of it would drop the
locks that SQLite holds in this process (https://www.sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from printos_async._errors import OutboxError

from .permissions import check_directory, check_file

if TYPE_CHECKING:
    from collections.abc import Iterator

# SQLite's files beside a database, in the order in which they are renamed.
COMPANIONS = ("-wal", "-shm", "-journal")
LOCK = "-lock"
_SQLITE_HEADER = b"SQLite format 3\0"
# A process that holds the lock may be checking a file of a million rows, which takes up to 6 s, and several may wait.
LOCK_TIMEOUT_S = 60.0
_LOCK_PAUSE_S = 0.02
# Device and inode of the file at a path: different after the file was renamed, deleted or replaced.
FileIdentity = tuple[int, int]
_NEVER = threading.Event()
# Windows has neither: there the folder's access list decides who may open a file.
NOFOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


def identity(path: Path) -> FileIdentity | None:
    """Return which file is at a path now; None if there is none.

    Compare it after each commit with the file that was opened, before a status counts as accepted: in WAL mode SQLite
    does not notice that its file is no longer there.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:  # without ``_failing_to``, which takes half as long as the rest
        raise _failure("read", path, error) from error
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def locked(
    path: Path, *, stop: threading.Event = _NEVER, timeout_s: float = LOCK_TIMEOUT_S
) -> Iterator[None]:
    """Hold the lock for opening or renaming an outbox, against other processes and other threads of this one.

    Blocks until it has the lock: run it in a thread. The lock file beside the database is never deleted, because two
    could hold the lock then. The lock ends with the process.

    Args:
        path: As returned by ``prepare_directory``.
        stop: Ends the waiting once it is set.
        timeout_s: Seconds to wait: its holder may have been stopped.

    Raises:
        OutboxError: The lock file cannot be created, or the lock was not free in time.
    """
    lock = path.with_name(path.name + LOCK)
    with _failing_to("make", lock):
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | NOFOLLOW, 0o600)
    try:
        deadline_s = time.monotonic() + timeout_s
        with _failing_to("lock", lock):
            while not try_lock(descriptor):
                if stop.is_set():
                    raise OutboxError(f"outbox {path} was closed while it waited for its lock")
                if time.monotonic() >= deadline_s:
                    raise OutboxError(
                        f"outbox {path} cannot be opened: a process that opens or checks it has held {lock} for"
                        f" {timeout_s:g} s; find it (fuser {lock}), let it continue or end it, and try again"
                    )
                stop.wait(_LOCK_PAUSE_S)
        yield
    finally:
        os.close(descriptor)


def prepare_directory(path: Path) -> Path:
    """Create the directory of an outbox if it is missing; return the outbox's path with all symlinks resolved.

    Directories are created with mode 0700. Use the returned path from then on: the target of a link was checked, and
    the link may lead elsewhere later.

    Raises:
        OutboxError: Others could replace files in the directory, or it cannot be created.
    """
    with _failing_to("make the directory of", path):
        directory = Path(os.path.realpath(path.parent))
        missing = [folder for folder in (directory, *directory.parents) if not os.path.lexists(folder)]
        if len(missing) < len(directory.parts):
            check_directory(missing[-1].parent if missing else directory)
        for folder in reversed(missing):
            with contextlib.suppress(FileExistsError):  # another process starts as well
                folder.mkdir(mode=0o700)
                folder.chmod(0o700)  # whatever the umask took away
                sync_directory(folder.parent)
        check_directory(directory)
    return directory / path.name


def prepare_file(path: Path) -> FileIdentity:
    """Create the file of an outbox if it is missing, for its owner alone. Call it while holding the lock.

    Access rights of others to an existing file of this user are removed.

    Args:
        path: As returned by ``prepare_directory``.

    Raises:
        OutboxError: It is a symlink, no regular file, or another user's; or it cannot be created.
    """
    with _failing_to("make", path):
        if not os.path.lexists(path):
            # A WAL without its database: a process died while renaming both, or somebody deleted the database. SQLite
            # would discard the WAL, and it may hold accepted statuses.
            move_aside(path)
            _make(path)
        for part in (path, *(path.with_name(path.name + suffix) for suffix in (*COMPANIONS, LOCK))):
            # The last process that closes the database deletes its companions at any moment.
            with contextlib.suppress(FileNotFoundError):
                check_file(part)
                if sys.platform != "win32" and stat.S_IMODE(part.lstat().st_mode) != 0o600:
                    part.chmod(0o600)
    found = identity(path)
    if found is None:
        raise OutboxError(f"outbox {path}: someone deleted it while it was opened; try again")
    return found


def move_aside(path: Path) -> Path:
    """Rename an outbox and SQLite's files beside it to a free name in the same directory. Call it under the lock.

    Processes that have the file open go on using it under its new name until ``identity`` shows them the difference.

    Args:
        path: As returned by ``prepare_directory``.

    Returns:
        The new name, such as ``spool.db.damaged-20261121T102400Z``; its WAL is beside it, so that ``sqlite3`` can
        open both.

    Raises:
        OutboxError: It cannot be renamed.
    """
    target = _free_name(path)
    with _failing_to("set aside", path):
        # The database first: if this process dies between the renames, ``prepare_file`` finds a WAL without its
        # database. In the other order SQLite would open a database without its latest commits.
        moved = False
        for suffix in ("", *COMPANIONS):
            # As in ``prepare_file``.
            with contextlib.suppress(FileNotFoundError):
                path.with_name(path.name + suffix).rename(target.with_name(target.name + suffix))
                moved = True
        if moved:
            sync_directory(path.parent)
    return target


def is_text(path: Path) -> bool:
    """Return whether a file that is no database begins as text does, so that it is somebody's, and no damaged outbox.

    The first page of any database holds zero bytes.
    """
    with _failing_to("read", path), path.open("rb") as file:
        start = file.read(4096)
    return bool(start) and b"\0" not in start and not _SQLITE_HEADER.startswith(start)


def try_lock(descriptor: int) -> bool:
    """Lock an open file, and return True; False if it is locked.

    Raises:
        OSError: Its file system has no locks.
    """
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # noqa: PLC0415

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # of flock, and of Windows
        return False
    return True


def sync_directory(directory: Path) -> None:
    """Sync the names in a directory to the disk, if the system can."""
    if sys.platform == "win32":
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make(path: Path) -> None:
    # O_EXCL: the file is new, so closing it drops no lock of SQLite's.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | NOFOLLOW, 0o600)
    try:
        if sys.platform != "win32":
            os.fchmod(descriptor, 0o600)  # whatever the umask took away
    finally:
        os.close(descriptor)
    sync_directory(path.parent)


def _free_name(path: Path) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    name, number = f"{path.name}.damaged-{stamp}", 1
    while any(os.path.lexists(path.with_name(name + suffix)) for suffix in ("", *COMPANIONS)):
        number += 1
        name = f"{path.name}.damaged-{stamp}.{number}"
    return path.with_name(name)


@contextlib.contextmanager
def _failing_to(verb: str, path: Path) -> Iterator[None]:
    """Raise an ``OutboxError`` for an error of the system in a block."""
    try:
        yield
    except OSError as error:
        raise _failure(verb, path, error) from error


def _failure(verb: str, path: Path, error: OSError) -> OutboxError:
    return OutboxError(f"cannot {verb} outbox {path}: {error.strerror or type(error).__name__}")

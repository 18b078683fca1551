"""The file of a SQLite outbox: made for its owner alone, refused where others could reach it, set aside when damaged.

SQLite gives its ``-wal`` and ``-shm`` files the mode of the database file, whatever the umask, so the mode of that
one decides. The database file is never opened here once it exists: closing any descriptor of it would drop the
locks that SQLite holds in this process (https://www.sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from printos_async._errors import OutboxError

from .permissions import check_directory, check_file

if TYPE_CHECKING:
    from collections.abc import Iterator

# What SQLite keeps beside a database, in the order in which they are set aside.
COMPANIONS = ("-wal", "-shm", "-journal")
LOCK = "-lock"
# Windows has neither: there a file belongs to whoever the folder's access list says.
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


@frozen
class FileIdentity:
    """Which file a path leads to; another one after it was set aside, deleted or replaced."""

    device: int
    inode: int


def identity(path: Path) -> FileIdentity | None:
    """Tell which file is at a path now; None if there is none.

    Whoever writes through a connection compares this with the file that it opened, after the commit and before it
    calls anything accepted: SQLite itself does not notice in WAL mode that its file is no longer there.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _failed("read", path, error) from error
    return FileIdentity(found.st_dev, found.st_ino)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes, and other threads of this one, from opening or setting aside an outbox meanwhile.

    Blocks until it has the lock, so it belongs into a thread. The lock is a file beside the database, which stays:
    deleting it would let two hold the lock at once. It ends with the process.

    Args:
        path: What ``prepare_directory`` gave.

    Raises:
        OutboxError: The lock file cannot be made.
    """
    lock = path.with_name(path.name + LOCK)
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | _NOFOLLOW, 0o600)
    except OSError as error:
        raise _failed("make", lock, error) from error
    try:
        _lock(descriptor, lock)
        yield
    finally:
        os.close(descriptor)


def prepare_directory(path: Path) -> Path:
    """Make the directory of an outbox where it is missing, and give the outbox's path without symlinks above it.

    Directories are made with mode 0700. Everything after this call has to use the path that it returns: what a link
    led to was checked, and the link may lead elsewhere later.

    Raises:
        OutboxError: Others could replace what is in the directory, or it cannot be made.
    """
    try:
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
    except OSError as error:
        raise _failed("make the directory of", path, error) from error
    return directory / path.name


def prepare_file(path: Path) -> FileIdentity:
    """Make the file of an outbox where it is missing, for its owner alone; call it while holding the lock.

    An existing file of this user that is open to others is closed to them.

    Args:
        path: What ``prepare_directory`` gave.

    Raises:
        OutboxError: It is a symlink, no regular file, or another user's; or it cannot be made.
    """
    try:
        if not os.path.lexists(path):
            # A WAL without its database: someone died while setting both aside, or deleted one of them. SQLite
            # would throw it away, and it may hold statuses that were accepted.
            move_aside(path)
            _make(path)
        for part in (path, *(path.with_name(path.name + suffix) for suffix in (*COMPANIONS, LOCK))):
            if os.path.lexists(part):
                check_file(part)
                if sys.platform != "win32" and stat.S_IMODE(part.lstat().st_mode) != 0o600:
                    part.chmod(0o600)
    except OSError as error:
        raise _failed("make", path, error) from error
    found = identity(path)
    if found is None:
        raise OutboxError(f"outbox {path}: someone deleted it while it was opened; try again")
    return found


def move_aside(path: Path) -> Path:
    """Rename an outbox, and what SQLite keeps beside it, to a free name in the same directory; under the lock.

    Whoever has the file open goes on using it under its new name, and finds by ``identity`` that it is no longer the
    outbox's.

    Args:
        path: What ``prepare_directory`` gave.

    Returns:
        The new name, such as ``spool.db.damaged-20261121T102400Z``; its WAL is beside it, so that ``sqlite3`` can
        open both.

    Raises:
        OutboxError: It cannot be renamed.
    """
    target = _free_name(path)
    try:
        # The database goes first. Should this process die between the renames, ``prepare_file`` finds a WAL without
        # its database; the other way round SQLite would take up a database without its latest commits.
        moved = False
        for suffix in ("", *COMPANIONS):
            source = path.with_name(path.name + suffix)
            if os.path.lexists(source):
                source.rename(target.with_name(target.name + suffix))
                moved = True
        if moved:
            sync_directory(path.parent)
    except OSError as error:
        raise _failed("set aside", path, error) from error
    return target


def sync_directory(directory: Path) -> None:
    """Have the names in a directory survive a loss of power, where the system can."""
    if sys.platform == "win32":
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make(path: Path) -> None:
    # O_EXCL: the file is new, so closing it drops no lock of SQLite's.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NOFOLLOW, 0o600)
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


def _lock(descriptor: int, path: Path) -> None:
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415

            msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
        else:
            import fcntl  # noqa: PLC0415

            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        raise _failed("lock", path, error) from error


def _failed(verb: str, path: Path, error: OSError) -> OutboxError:
    return OutboxError(f"cannot {verb} outbox {path}: {error.strerror or type(error).__name__}")

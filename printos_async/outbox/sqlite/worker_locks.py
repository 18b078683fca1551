"""Locks of a SQLite outbox's workers, which the operating system releases when their process ends.

Each worker has a file beside the database, such as ``spool.db-worker-42``. It is locked before the worker's row can be
seen, and deleted before it is unlocked. So a file that is there without a lock was left by a process that has ended,
and a worker without a file may be alive: only the end of its lease frees its devices.

The locks are those of ``flock``, which belong to an open file. POSIX locks belong to a process: one of two outboxes in
a process would not see the other's, and release it by closing the file.

Nothing here waits for a lock: each call is a few system calls on a local disk, four for each other worker. The
directory, which may hold many other files, is read only after it has changed.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import weakref
from typing import TYPE_CHECKING

from attrs import frozen

from .files import NOFOLLOW, try_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_INFIX = "-worker-"
# A file that is not locked yet. It was left behind if it is old; if it was not, it is created again.
_NEW = ".new"
_OLD_S = 60.0
_ATTEMPTS = 3
# The coarsest time of a directory's change, with a margin.
_SETTLED_S = 3.0
_MAX_CONTENT_BYTES = 4096


@frozen
class LockFile:
    """File of a worker, locked by this process.

    Attributes:
        owner: The worker's token.
    """

    owner: int
    _path: Path
    _descriptor: int

    def content(self) -> bytes:
        """Return its content; empty if it cannot be read."""
        try:
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            return os.read(self._descriptor, _MAX_CONTENT_BYTES)
        except OSError:
            return b""

    def close(self) -> None:
        """Release the lock, and leave the file for the next process that looks."""
        os.close(self._descriptor)

    def remove(self) -> None:
        """Delete the file, and release the lock."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self._descriptor)


class WorkerLocks:
    """The locks that one outbox holds, and its view of those of others.

    Where ``flock`` is missing or refused, as on Windows and some network file systems, there are no files, and the
    end of a lease alone frees the devices of a dead worker.

    Args:
        path: Returns the path of the database, as returned by ``prepare_directory``.
        boot_id: Identifies the boot of this machine; None if it is unknown.
    """

    def __init__(self, path: Callable[[], Path], boot_id: str | None) -> None:
        self._path = path
        self._boot = boot_id or ""
        self._held: dict[int, LockFile] = {}
        self._names: list[str] = []
        self._names_of: tuple[Path, int] | None = None
        _all.add(self)

    def hold(self, owner: int, tenant: str) -> None:
        """Create and lock the file of a worker that is about to join, if the system can."""
        if sys.platform == "win32":
            return
        with contextlib.suppress(OSError):
            path = self._path()
            self._held[owner] = _make(
                path.with_name(f"{path.name}{_INFIX}{owner}"), owner, self._content(tenant)
            )

    def drop(self, owner: int) -> None:
        """Delete the file of a worker that has left. Does nothing if it has none."""
        file = self._held.pop(owner, None)
        if file is not None:
            file.remove()

    def drop_all(self) -> None:
        """Delete the files of all workers of this outbox: nobody has to take over what they own."""
        for owner in tuple(self._held):
            self.drop(owner)

    def release_all(self) -> None:
        """Release the locks of workers that have not left and send nothing any more, so that others take over."""
        while self._held:
            self._held.popitem()[1].close()

    def lock_dead(self, tenant: str) -> list[LockFile]:
        """Return the files of the tenant's workers whose process has ended.

        Call ``remove`` on each of them after its lease was ended, or ``close``. Until then no other process gets it.
        Files of an earlier boot are deleted: its leases ended with it. This also keeps a network file system with
        locks of one machine only from making another machine's workers look dead.
        """
        dead: list[LockFile] = []
        if sys.platform == "win32":
            return dead
        path, content = self._path(), self._content(tenant)
        for owner, candidate in self._candidates(path):
            if owner in self._held or (file := _try_lock(candidate, owner)) is None:
                continue
            found = file.content()
            if candidate.suffix == _NEW or not found.startswith(content[: len(self._boot) + 1]):
                file.remove()
            elif found == content:
                dead.append(file)
            else:  # another tenant's
                file.close()
        return dead

    def _candidates(self, path: Path) -> Iterator[tuple[int, Path]]:
        """Return the files of workers beside a database, with their owners; none that is just being created."""
        self._read_names(path)
        for name in self._names:
            number = name[len(path.name) + len(_INFIX) :].removesuffix(_NEW)
            candidate = path.with_name(name)
            if number.isdecimal() and (candidate.suffix != _NEW or _is_old(candidate)):
                yield int(number), candidate

    def _read_names(self, path: Path) -> None:
        """Read the names of workers' files, unless the directory has not changed since they were read."""
        try:
            changed_ns = path.parent.stat().st_mtime_ns
            if self._names_of == (path, changed_ns):
                return
            # A change at the same time as the last one would not be noticed.
            is_settled = time.time_ns() - changed_ns > _SETTLED_S * 1e9
            prefix = path.name + _INFIX
            names = os.listdir(path.parent)  # noqa: PTH208 - as text: paths of a whole directory take time
        except OSError:
            self._names, self._names_of = [], None
        else:
            self._names = [name for name in names if name.startswith(prefix)]
            self._names_of = (path, changed_ns) if is_settled else None

    def _content(self, tenant: str) -> bytes:
        return f"{self._boot}\n{tenant}\n".encode()


_all: weakref.WeakSet[WorkerLocks] = weakref.WeakSet()


def _release_in_child() -> None:
    # A child has the same open files, and would hold the locks of a parent that has ended.
    for locks in _all:
        locks.release_all()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_release_in_child)


def _make(path: Path, owner: int, content: bytes) -> LockFile:
    """Create a file that is locked from the moment at which it has its name.

    Raises:
        OSError: It cannot be created or locked here.
    """
    new = path.with_name(path.name + _NEW)
    for _ in range(_ATTEMPTS):
        descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | NOFOLLOW, 0o600)
        try:
            os.fchmod(descriptor, 0o600)  # whatever the umask took away
            os.write(descriptor, content)
            if try_lock(descriptor):
                new.rename(path)  # the lock goes with the file
                return LockFile(owner, path, descriptor)
        except FileNotFoundError:
            pass  # it was deleted before it was locked
        except OSError:
            LockFile(owner, new, descriptor).remove()
            raise
        LockFile(owner, new, descriptor).remove()
    raise BlockingIOError


def _is_old(path: Path) -> bool:
    try:
        return abs(time.time() - path.lstat().st_mtime) > _OLD_S
    except OSError:
        return False


def _try_lock(path: Path, owner: int) -> LockFile | None:
    """Return the file, locked; None if its worker or another process that looks has the lock."""
    try:
        descriptor = os.open(path, os.O_RDWR | NOFOLLOW)
    except OSError:
        return None
    try:
        # Its worker may have deleted and unlocked it in the meantime, or renamed it.
        if try_lock(descriptor) and os.path.samestat(os.fstat(descriptor), path.lstat()):
            return LockFile(owner, path, descriptor)
    except OSError:
        pass
    os.close(descriptor)
    return None

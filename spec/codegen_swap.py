"""Replaces the old package with the new one atomically: a reader finds one of them whole, never a mixture."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from spec.codegen_tools import CodegenError

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "printos_device_api"
# Beside the package, because a rename is atomic only within one file system. Hidden, and outside the folders that
# pyproject.toml packs.
_STAGING_PREFIX = f".{PACKAGE}.codegen-"
_PREVIOUS = "previous"


@contextmanager
def locked(folder: Path, *, shared: bool = False) -> Iterator[int]:
    """Lock a folder against other runs; yield the descriptor. A child process that inherits it keeps the lock, too.

    The lock is on the folder itself, so it leaves no file behind, and the system releases it when its owner dies.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"codegen: waiting for another run in {folder}", file=sys.stderr, flush=True)
            fcntl.flock(descriptor, mode)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder on the same file system as ``folder``'s package; git ignores it."""
    staging = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=folder))
    try:
        (staging / ".gitignore").write_text("*\n", encoding="utf-8")
        yield staging
    finally:
        _clear(staging, folder / PACKAGE)


def recover(folder: Path) -> None:
    """Clean up after a killed run: restore the old package if it was moved away, and remove staging folders."""
    for staging in sorted(path for path in folder.iterdir() if is_staging(path)):
        _clear(staging, folder / PACKAGE)


def is_staging(path: Path) -> bool:
    """Return whether a path is a staging folder, in use or left by a killed run."""
    return path.name.startswith(_STAGING_PREFIX) and path.is_dir()


def replace(staging: Path, target: Path) -> None:
    """Swap the package in a staging folder with the one at ``target``; the old one stays in the staging folder.

    Atomic where the system can exchange two names (Linux, macOS). Elsewhere it takes two renames, and ``recover``
    restores the old package if the process dies between them.
    """
    staged = staging / PACKAGE
    if not target.exists():
        staged.rename(target)
    elif not exchange(staged, target):
        target.rename(staging / _PREVIOUS)
        staged.rename(target)


def exchange(first: Path, second: Path) -> bool:
    """Exchange two names atomically; return False where the system or the file system does not support it.

    Raises:
        CodegenError: The system supports it, but the call failed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(first), os.fsencode(second)
    if sys.platform == "darwin":
        call = getattr(libc, "renamex_np", None)
        arguments: tuple[object, ...] = (*names, ctypes.c_uint(2))  # RENAME_SWAP
    else:
        at_cwd = ctypes.c_int(-100)  # AT_FDCWD
        call = getattr(libc, "renameat2", None)  # absent from older C libraries
        arguments = (at_cwd, names[0], at_cwd, names[1], ctypes.c_uint(2))  # RENAME_EXCHANGE
    if call is None:
        return False
    if call(*arguments) == 0:
        return True
    code = ctypes.get_errno()
    if code in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}:
        return False
    raise CodegenError(f"cannot exchange {first} and {second}: {os.strerror(code)}")


def _clear(staging: Path, target: Path) -> None:
    previous = staging / _PREVIOUS
    if previous.exists() and not target.exists():
        previous.rename(target)
    shutil.rmtree(staging)

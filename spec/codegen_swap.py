"""Puts a finished package in place of the old one: at every moment the old one or the new one, never a mixture."""

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
# Beside the package, because only within one file system is a rename one step. Hidden, and outside the folders
# that pyproject.toml packs.
_STAGING_PREFIX = f".{PACKAGE}.codegen-"
_PREVIOUS = "previous"


@contextmanager
def locked(folder: Path, *, shared: bool = False) -> Iterator[int]:
    """Keep other runs out of a folder; the descriptor may be handed to a child, which then keeps it too.

    The lock is on the folder itself, so it leaves no file behind, and the system drops it when its owner dies.
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
    """Give a fresh folder on the same file system as ``folder``'s package; git does not see it."""
    staging = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=folder))
    try:
        (staging / ".gitignore").write_text("*\n", encoding="utf-8")
        yield staging
    finally:
        _clear(staging, folder / PACKAGE)


def recover(folder: Path) -> None:
    """Undo what a killed run left: put an old package back where it was taken away, remove staging folders."""
    for staging in sorted(path for path in folder.iterdir() if is_staging(path)):
        _clear(staging, folder / PACKAGE)


def is_staging(path: Path) -> bool:
    """Return whether a path is a staging folder, in use or left by a killed run."""
    return path.name.startswith(_STAGING_PREFIX) and path.is_dir()


def replace(staging: Path, target: Path) -> None:
    """Swap the package in a staging folder with the one at ``target``; the old one stays in the staging folder.

    One step where the system can exchange two names (Linux, macOS). Elsewhere two, and ``recover`` puts the old
    package back if the process dies between them.
    """
    staged = staging / PACKAGE
    if not target.exists():
        staged.rename(target)
    elif not exchange(staged, target):
        target.rename(staging / _PREVIOUS)
        staged.rename(target)


def exchange(first: Path, second: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system cannot.

    Raises:
        CodegenError: It can, but refused.
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

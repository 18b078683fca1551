"""Files that ``printos push`` writes: private files, and the file of statuses that were not sent."""

from __future__ import annotations

import io
import os
import stat
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from printos_async.cli.input.records import line_of
from printos_async.cli.input.source import write_all
from printos_async.cli.terminal.output import CommandError

if TYPE_CHECKING:
    from pathlib import Path

    from printos_async._models import StatusPush

_FLAGS = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
# Links to what this process already has open, such as a shell's >(...): nobody else can create them.
_OWN_DESCRIPTORS = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/self/fd/")


def open_private(path: Path, *, flags: int = 0) -> io.FileIO:
    """Return a file, open to be read and written, at its end; a new one is readable by its owner alone.

    In a directory such as ``/tmp`` somebody else may have put a link or a file of their own under this name. Both
    are refused, so that no other file is written to and nobody else gets the statuses.

    Half a line at the end, which a process that was killed may have left, is ended.

    Args:
        path: The file; made if it is not there.
        flags: More flags for ``os.open``.

    Raises:
        CommandError: It cannot be written, or is refused.
    """
    try:
        file = io.FileIO(path, "r+", opener=lambda *_: _open(path, flags))
        problem = _problem(os.fstat(file.fileno()))
        if problem is None:
            _end_last_line(file)
            return file
        file.close()
    except OSError as error:
        problem = str(error.strerror)
    raise CommandError(f"cannot write {path}: {problem}")


def _open(path: Path, flags: int) -> int:
    flags |= _FLAGS
    if str(path).startswith(_OWN_DESCRIPTORS):
        flags &= ~getattr(os, "O_NOFOLLOW", 0)
    elif path.is_symlink():
        raise CommandError(
            f"cannot write {path}: it is a symbolic link, by which somebody could have another file written to; "
            "give the path that it leads to, or delete the link"
        )
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)


def _problem(status: os.stat_result) -> str | None:
    if stat.S_ISCHR(status.st_mode):
        return None  # a device such as /dev/null, which only an administrator can make
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISFIFO(status.st_mode):
        return "it is not a regular file; give another one"
    if sys.platform != "win32" and status.st_uid != os.geteuid():
        return (
            f"it belongs to another user (uid {status.st_uid}, this process has {os.geteuid()}); "
            "run as that user, change the owner, or give another file"
        )
    return None


def _end_last_line(file: io.FileIO) -> None:
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode) and file.seek(0, os.SEEK_END):
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")


class FailuresFile:
    """Keeps, for each device, the newest status that was not sent, unless a newer one was.

    Pushing the file again must not put an old status over a newer one. So an obsolete line is overwritten
    with spaces, which are read as an empty line; the file is valid at every moment.
    Memory grows with the devices that fail, not with the statuses.

    What the file holds already stays; it is only readable by its owner if it is made here.

    Attributes:
        path: Where it is.
        is_regular: Whether it is a regular file, which can be read again.

    Args:
        path: The file; made if it is not there.

    Raises:
        CommandError: It cannot be written, is a symbolic link, or belongs to another user.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Where the line of a device begins, and how long it is.
        self._places: dict[str, tuple[int, int]] = {}
        self._file = open_private(path)
        self.is_regular = stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._file.fileno()

    def keep(self, push: StatusPush) -> None:
        """Write a status that was not sent, and drop an older one of its device.

        Raises:
            OSError: It cannot be written.
        """
        line = line_of(push)
        offset = self._file.seek(0, os.SEEK_END) if self.is_regular else 0
        try:
            write_all(self._file, line)
        except OSError:
            if self.is_regular:
                with suppress(OSError):
                    self._file.truncate(offset)  # the next line must not go on with a part of this one
            raise
        if self.is_regular:
            self.drop(push.device_id)
            self._places[push.device_id] = offset, len(line)

    def drop(self, device_id: str) -> None:
        """Drop the status of a device of which a newer one was sent.

        Raises:
            OSError: The file cannot be written.
        """
        place = self._places.pop(device_id, None)
        if place is not None:
            offset, length = place
            self._file.seek(offset)
            write_all(self._file, b" " * (length - 1))

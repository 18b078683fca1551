"""The file of what was not sent, in a form that can be pushed again."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Self

from attrs import define

from printos_async.cli.input.records import line_of

from .private_file import open_private

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from printos_async._models import StatusPush


@define
class _Place:
    offset: int
    length: int


class FailuresFile:
    """Keeps, for each device, the newest status that was not sent, unless a newer one was.

    Pushing the file again must not put an old status over a newer one. So a line that has become obsolete is
    overwritten with spaces, which are an empty line when the file is read; the file is right at every moment.
    Memory grows with the devices that fail, not with the statuses.

    What the file holds already stays; it is only readable by its owner if it is made here.

    Attributes:
        path: Where it is.
        is_regular: It can be read again; a pipe cannot.

    Args:
        path: The file; made if it is not there.

    Raises:
        CommandError: It cannot be written, is a symbolic link, or belongs to another user.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[str, _Place] = {}
        self._file = open_private(path)
        self.is_regular = stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def fileno(self) -> int:
        """Give the file descriptor."""
        return self._file.fileno()

    def keep(self, push: StatusPush) -> None:
        """Write a status that was not sent; an older one of its device is dropped.

        Raises:
            OSError: It cannot be written.
        """
        line = line_of(push)
        if self.is_regular:
            offset = self._file.seek(0, os.SEEK_END)
            self._write(line)
            self.drop(push.device_id)
            self._places[push.device_id] = _Place(offset, len(line))
        else:
            self._write(line)

    def drop(self, device_id: str) -> None:
        """Take note that a newer status of a device was sent.

        Raises:
            OSError: The file cannot be written.
        """
        place = self._places.pop(device_id, None)
        if place is not None:
            self._file.seek(place.offset)
            self._write(b" " * (place.length - 1))

    def _write(self, data: bytes) -> None:
        while data:
            data = data[self._file.write(data) :]

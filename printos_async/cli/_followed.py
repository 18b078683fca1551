"""A file that grows, as ``tail -F`` follows it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from ._source import Source, open_file

_POLL_S = 0.2


class FollowedSource(Source):
    """A file from its beginning on, and then what is appended, for as long as it is read.

    Where the file is cut, it is read from its beginning again; where another one takes its name, the rest of the
    old one is read and then the new one. Each such moment is an end that ``goes_on``. A file that is cut and
    written anew beyond the place that was read, all of it between two looks, cannot be told from one that grew.

    Args:
        path: The file; it must be there.

    Raises:
        CommandError: It cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._closed = threading.Event()
        self._reading = threading.Lock()
        super().__init__(path)
        self.goes_on = self.is_regular  # a named pipe has an end
        self.size_bytes = None  # not for long

    def read(self) -> bytes:
        """Give the next bytes, as soon as there are some; none at the end of this file."""
        if not self.goes_on:
            return super().read()
        while True:
            with self._reading:  # the descriptor must not become another file's between two looks
                if self._closed.is_set():
                    return b""
                # Asked before reading, so that the rest of a file that was replaced is read.
                is_replaced = self._is_replaced()
                if chunk := super().read():
                    return chunk
                if (is_replaced and self._open_next()) or self._was_cut():
                    return b""
            self._closed.wait(_POLL_S)

    def close(self) -> None:
        """Close the file and end a read that waits for more."""
        self._closed.set()
        if not self.goes_on:
            super().close()
            return
        with self._reading:
            super().close()

    def _is_replaced(self) -> bool:
        try:
            named = Path(self._path).stat()
        except OSError:
            return False  # taken away, and the next one is not there yet
        return not os.path.samestat(named, os.fstat(self.file_descriptor))

    def _open_next(self) -> bool:
        try:
            file_descriptor = open_file(self._path)
        except FileNotFoundError:  # it has gone again
            return False
        os.close(self.file_descriptor)
        self.file_descriptor = file_descriptor
        return True

    def _was_cut(self) -> bool:
        if os.fstat(self.file_descriptor).st_size >= os.lseek(self.file_descriptor, 0, os.SEEK_CUR):
            return False
        self.rewind()
        return True

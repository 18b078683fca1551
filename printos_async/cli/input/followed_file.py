"""A file that grows, as ``tail -F`` follows it."""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path

from .source import Source, open_file

# How often the end of the file is read again, and how often the file's name is looked at. What has the name for less
# than the latter may be missed: by the time of an event, too, such a file may have gone.
_POLL_S = 0.2
_LOOK_S = 0.05
# Files that wait to be read; each takes a descriptor.
_MAX_WAITING = 64


class FollowedSource(Source):
    """A file from its beginning on, and then what is appended, for as long as it is read.

    Where the file is cut, it is read from its beginning again; where another one takes its name, the rest of the
    old one is read and then the new one. Each such moment is an end that ``goes_on``. A thread opens every file that
    takes the name, so that none is missed while reading is behind or waits. A file that is cut and written anew
    beyond the place that was read, all of it between two looks, cannot be told from one that grew.

    Args:
        path: The file; it must be there.

    Raises:
        CommandError: It cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._waiting: deque[int] = deque()
        super().__init__(path)
        self.goes_on = self.is_regular  # a named pipe has an end
        self.size_bytes = None  # not for long
        if self.goes_on:
            threading.Thread(target=self._keep_looking, name="printos-follow", daemon=True).start()

    def read(self) -> bytes:
        """Give the next bytes, as soon as there are some; none at the end of this file."""
        if not self.goes_on:
            return super().read()
        while True:
            with self._lock:  # a descriptor must not become another file's between two steps
                if self._closed.is_set():
                    return b""
                # Asked before reading, so that the rest of a file that was replaced is read.
                is_replaced = bool(self._waiting)
                if chunk := super().read():
                    return chunk
                if is_replaced:
                    os.close(self.file_descriptor)
                    self.file_descriptor = self._waiting.popleft()
                    return b""
                self._look()
                is_replaced = bool(self._waiting)
                if not is_replaced and self._was_cut():
                    return b""
            if not is_replaced:
                self._closed.wait(_POLL_S)

    def close(self) -> None:
        """Close the file and end a read that waits for more."""
        self._closed.set()
        if not self.goes_on:
            super().close()
            return
        with self._lock:
            super().close()
            while self._waiting:
                os.close(self._waiting.popleft())

    def _keep_looking(self) -> None:
        while not self._closed.wait(_LOOK_S):
            # An error is left to reading, which meets it when it comes to the end of what is there.
            with self._lock, suppress(OSError):
                if not self._closed.is_set():
                    self._look()

    def _look(self) -> None:
        """Open the file that has the name now, if it is another one than the last."""
        if len(self._waiting) == _MAX_WAITING:
            return
        newest = os.fstat(self._waiting[-1] if self._waiting else self.file_descriptor)
        try:
            named = Path(self._path).stat()
        except OSError:
            return  # taken away, and the next one is not there yet
        if not os.path.samestat(named, newest):
            with suppress(FileNotFoundError):  # it has gone again
                self._waiting.append(open_file(self._path))

    def _was_cut(self) -> bool:
        if os.fstat(self.file_descriptor).st_size >= os.lseek(self.file_descriptor, 0, os.SEEK_CUR):
            return False
        self.rewind()
        return True

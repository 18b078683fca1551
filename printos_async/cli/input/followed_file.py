"""A file that grows, as ``tail -F`` follows it."""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path

from .source import Source, open_file

# Intervals of reading the end of the file again, and of checking its name. A file that has the name for a shorter
# time may be missed; so it may with file system events, for it may have gone when the event arrives.
_POLL_S = 0.2
_LOOK_S = 0.05
# Files that wait to be read; each holds a descriptor.
_MAX_WAITING = 64


class FollowedSource(Source):
    """A file that is read from its start, and on as it grows.

    A truncated file is read from its start again. When the file is replaced, the rest of the old one is read, then
    the new one. Each is an end of file after which reading goes on (``goes_on``). A thread opens every file that takes
    the name, so that none is missed while reading is behind or waits. A file that is truncated and written again
    beyond the offset that was read, between two polls, cannot be told from one that grew.

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
        """Return the next bytes, as soon as there are some; none at the end of this file."""
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
        """Open the file that has the name now, if it is not the last one."""
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

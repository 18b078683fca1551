"""Sources and their lines: a file or standard input, read in bounded memory without blocking the event loop."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from typing import TYPE_CHECKING, Self

from attrs import frozen

from printos_async.cli.terminal.output import CommandError

from .chunks import ChunkThread

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator
    from types import TracebackType

STANDARD_INPUT = "-"
MAX_LINE_BYTES = 1024 * 1024
_CHUNK_BYTES = 64 * 1024
_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


@frozen
class Line:
    """One line, without its end.

    Attributes:
        number: 1 for the first line of the file.
        data: Its bytes, at most ``MAX_LINE_BYTES`` of them.
        is_cut: True if there were more.
    """

    number: int
    data: bytes
    is_cut: bool = False


class Source:
    """An open file of lines.

    Attributes:
        name: The name to show.
        file_descriptor: The descriptor to read.
        is_regular: Whether it is a regular file, which can be read twice.
        size_bytes: Its size; None if unknown.
        goes_on: Whether reading continues after an end of file.

    Args:
        path: The file, or ``-`` for standard input.

    Raises:
        CommandError: It cannot be opened.
    """

    goes_on = False

    def __init__(self, path: str) -> None:
        self.name = "standard input" if path == STANDARD_INPUT else path
        self._is_ours = path != STANDARD_INPUT
        try:
            if self._is_ours:
                self.file_descriptor = open_file(path)
            else:
                self.file_descriptor = sys.stdin.fileno()
            status = os.fstat(self.file_descriptor)
        except (OSError, ValueError, AttributeError) as error:  # standard input may be closed, or None
            reason = (isinstance(error, OSError) and error.strerror) or "it is closed"
            raise CommandError(f"cannot read {self.name}: {reason}") from error
        if stat.S_ISDIR(status.st_mode):
            self.close()
            raise CommandError(f"cannot read {self.name}: it is a directory")
        self.is_regular = stat.S_ISREG(status.st_mode)
        self.size_bytes = status.st_size if self.is_regular else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, unless it is standard input."""
        # A thread may still read a pipe, whose number must not become another file's. The process's end closes it.
        if self._is_ours and getattr(self, "is_regular", True):
            os.close(self.file_descriptor)

    def read(self) -> bytes:
        """Return the next bytes; none at the end. Blocks until the writer of a pipe writes.

        Raises:
            OSError: Reading failed.
        """
        return os.read(self.file_descriptor, _CHUNK_BYTES)

    def rewind(self) -> None:
        """Read from the first line again; regular files only."""
        os.lseek(self.file_descriptor, 0, os.SEEK_SET)

    async def spool(self, *, stop: asyncio.Event) -> None:
        """Copy what cannot be read twice to a temporary file and read from there; waits for the end of a pipe.

        The temporary file has no name where the system allows that; only its owner can read it.
        """
        if self.is_regular:
            return
        chunks = ChunkThread(self.read, stop=stop)
        with tempfile.TemporaryFile(buffering=0) as spool:
            try:
                while chunk := await chunks.read():
                    spool.write(chunk)
            finally:
                chunks.close()
            self.file_descriptor = os.dup(spool.fileno())
        self.is_regular = self._is_ours = True
        self.size_bytes = os.fstat(self.file_descriptor).st_size
        self.rewind()


class LineReader:
    """The lines of a source, in batches, until its end or until ``stop`` is set.

    Attributes:
        bytes_read: Bytes read so far.
    """

    def __init__(self, source: Source, *, stop: asyncio.Event, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._source = source
        self._max_line_bytes = max_line_bytes
        self._chunks = ChunkThread(source.read, stop=stop)
        self._number = 0
        self._tail = b""
        self._is_cut = False
        self.bytes_read = 0

    async def batches(self) -> AsyncGenerator[list[Line], None]:
        """Return the lines in batches, one for each read, so that the lines of a slow writer come at once.

        Line numbers start at 1 again where a source goes on after an end of file.

        Raises:
            CommandError: The file is UTF-16.
            OSError: Reading failed.
        """
        try:
            goes_on = True
            while goes_on:
                while chunk := await self._chunks.read():
                    if batch := self._split(self._without_mark(chunk)):
                        yield batch
                # A line without a line end is complete only at the end of the file.
                if self._chunks.is_stopped:
                    return
                if self._tail or self._is_cut:
                    yield [self._line(self._tail)]
                self._number, self._tail, self.bytes_read = 0, b"", 0
                goes_on = self._source.goes_on
        finally:
            self._chunks.close()

    def _without_mark(self, chunk: bytes) -> bytes:
        is_first = not self.bytes_read
        self.bytes_read += len(chunk)
        if not is_first:
            return chunk
        if chunk.startswith(_UTF16_BOMS):
            raise CommandError(f"{self._source.name} is UTF-16; convert it to UTF-8")
        return chunk.removeprefix(_UTF8_BOM)

    def _split(self, chunk: bytes) -> list[Line]:
        *ended, tail = chunk.split(b"\n")
        lines = []
        for part in ended:
            lines.append(self._line(self._tail + part))
            self._tail = b""
        self._tail += tail
        if len(self._tail) > self._max_line_bytes:
            self._tail = self._tail[: self._max_line_bytes]
            self._is_cut = True
        return lines

    def _line(self, data: bytes) -> Line:
        self._number += 1
        line = Line(
            self._number, data[: self._max_line_bytes], self._is_cut or len(data) > self._max_line_bytes
        )
        self._is_cut = False
        return line


def open_file(path: str) -> int:
    """Open a file for reading bytes and return its descriptor."""
    return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

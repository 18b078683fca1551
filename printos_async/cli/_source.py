"""Reads a file or standard input line by line, in bounded memory and without holding up the event loop."""

from __future__ import annotations

import asyncio
import os
import queue
import stat
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, Self

from attrs import frozen

from ._output import CommandError

if TYPE_CHECKING:
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

    Args:
        path: The file, or ``-`` for standard input.

    Raises:
        CommandError: It cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.name = "standard input" if path == STANDARD_INPUT else path
        self._is_ours = path != STANDARD_INPUT
        try:
            if self._is_ours:
                self.file_descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
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
        # Of a pipe a thread may still read; its number must not become another file's. The process's end closes it.
        if self._is_ours and getattr(self, "is_regular", True):
            os.close(self.file_descriptor)

    def rewind(self) -> None:
        """Start from the first line again; of regular files only."""
        os.lseek(self.file_descriptor, 0, os.SEEK_SET)

    async def spool(self, *, stop: asyncio.Event) -> None:
        """Copy what cannot be read twice to a temporary file, and read from there; may take as long as its writer.

        The temporary file has no name where the system allows that, and is its owner's alone.
        """
        if self.is_regular:
            return
        chunks = _ChunkThread(self.file_descriptor, stop=stop)
        with tempfile.TemporaryFile(buffering=0) as spool:
            while chunk := await chunks.read():
                spool.write(chunk)
            self.file_descriptor = os.dup(spool.fileno())
        self.is_regular = self._is_ours = True
        self.size_bytes = os.fstat(self.file_descriptor).st_size
        self.rewind()


class LineReader:
    """The lines of a source, in batches, until its end or until asked to stop.

    Attributes:
        bytes_read: How far reading has come.
    """

    def __init__(self, source: Source, *, stop: asyncio.Event) -> None:
        self._name = source.name
        self._chunks = _ChunkThread(source.file_descriptor, stop=stop)
        self._number = 0
        self._tail = b""
        self._is_cut = False
        self.bytes_read = 0

    async def batches(self) -> AsyncGenerator[list[Line], None]:
        """Give the lines; a batch is what one read brought, so that a slow writer's lines come at once.

        Raises:
            CommandError: The file is UTF-16.
            OSError: It cannot be read on.
        """
        while chunk := await self._chunks.read():
            if not self.bytes_read:
                if chunk.startswith(_UTF16_BOMS):
                    raise CommandError(f"{self._name} is UTF-16; convert it to UTF-8")
                self.bytes_read, chunk = len(chunk), chunk.removeprefix(_UTF8_BOM)
            else:
                self.bytes_read += len(chunk)
            if batch := self._split(chunk):
                yield batch
        # What came without a line end is complete only if this was the end of the file.
        if not self._chunks.is_stopped and (self._tail or self._is_cut):
            yield [self._line(self._tail)]

    def _split(self, chunk: bytes) -> list[Line]:
        *ended, tail = chunk.split(b"\n")
        lines = []
        for part in ended:
            lines.append(self._line(self._tail + part))
            self._tail = b""
        self._tail += tail
        if len(self._tail) > MAX_LINE_BYTES:
            self._tail = self._tail[:MAX_LINE_BYTES]
            self._is_cut = True
        return lines

    def _line(self, data: bytes) -> Line:
        self._number += 1
        line = Line(self._number, data[:MAX_LINE_BYTES], self._is_cut or len(data) > MAX_LINE_BYTES)
        self._is_cut = False
        return line


class _ChunkThread:
    """Reads in a thread: a read of a pipe takes as long as its writer likes, and cannot be broken off.

    A daemon, for the process must end although its writer says nothing more. It reads only when asked to.
    """

    def __init__(self, file_descriptor: int, *, stop: asyncio.Event) -> None:
        self._file_descriptor = file_descriptor
        self._stop = stop
        self._requests: queue.SimpleQueue[asyncio.Future[bytes] | None] = queue.SimpleQueue()
        self._is_started = False

    @property
    def is_stopped(self) -> bool:
        """Whether reading was asked to stop."""
        return self._stop.is_set()

    async def read(self) -> bytes:
        """Give the next bytes; none at the end of the file, or once asked to stop.

        Raises:
            OSError: Reading failed.
        """
        if self._stop.is_set():
            self._requests.put(None)
            return b""
        loop = asyncio.get_running_loop()
        if not self._is_started:
            self._is_started = True
            threading.Thread(target=self._run, args=(loop,), name="printos-read", daemon=True).start()
        read = loop.create_future()
        self._requests.put(read)
        stopped = loop.create_task(self._stop.wait())
        try:
            await asyncio.wait({read, stopped}, return_when=asyncio.FIRST_COMPLETED)
            chunk = read.result() if read.done() else b""
        except BaseException:
            self._requests.put(None)
            raise
        finally:
            stopped.cancel()
        if not chunk:
            self._requests.put(None)
        return chunk

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while (read := self._requests.get()) is not None:
            result: bytes | OSError
            try:
                result = os.read(self._file_descriptor, _CHUNK_BYTES)
            except OSError as error:
                result = error
            try:
                loop.call_soon_threadsafe(_settle, read, result)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return


def _settle(read: asyncio.Future[bytes], result: bytes | OSError) -> None:
    if read.done():
        return
    if isinstance(result, OSError):
        read.set_exception(result)
    else:
        read.set_result(result)

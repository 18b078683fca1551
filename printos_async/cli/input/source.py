"""Sources of lines: a file or standard input, read in bounded memory without blocking the event loop."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import tempfile
import threading
from concurrent.futures import Future
from contextlib import aclosing
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Any, Self

from attrs import frozen

from printos_async.cli.terminal.output import EXIT_FAILED, CommandError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

STANDARD_INPUT = "-"
# Of a longer line one byte more is read, which tells that it is longer.
MAX_LINE_BYTES = 1024 * 1024
_CHUNK_BYTES = 64 * 1024
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


@frozen
class Line:
    """One line, without its end.

    Attributes:
        number: 1 for the first line of the file.
        data: Its bytes, without those after ``MAX_LINE_BYTES + 1``.
    """

    number: int
    data: bytes


class Source:
    """An open file of lines.

    Attributes:
        name: The name to show.
        file_descriptor: The descriptor to read.
        is_regular: Whether it is a regular file, which can be read twice.
        size_bytes: Its size; None if unknown.
        bytes_read: Bytes of it that ``batches`` has read so far.
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
        self.bytes_read = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
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
        self.bytes_read = 0

    async def chunks(self, *, stop: asyncio.Event) -> AsyncGenerator[bytes, None]:
        """Return what ``read`` returns, until the end of the file, or until ``stop`` is set.

        A read of a pipe can block for any time and cannot be cancelled. So a daemon thread reads, which does not keep
        the process alive, one chunk for each that is asked for.

        Raises:
            OSError: Reading failed.
        """
        requests: SimpleQueue[Future[bytes] | None] = SimpleQueue()
        threading.Thread(target=self._answer, args=(requests,), name="printos-read", daemon=True).start()
        stopped = asyncio.create_task(stop.wait())
        goes_on = True
        try:
            while goes_on and not stop.is_set():
                request: Future[bytes] = Future()
                requests.put(request)
                reading: asyncio.Future[Any] = asyncio.wrap_future(request)
                try:
                    await asyncio.wait({reading, stopped}, return_when=asyncio.FIRST_COMPLETED)
                    if not reading.done():
                        return
                finally:
                    reading.cancel()  # so that a read that ends after the event loop is ignored
                chunk = reading.result()
                goes_on = bool(chunk) or self.goes_on
                yield chunk
        finally:
            requests.put(None)
            stopped.cancel()

    def _answer(self, requests: SimpleQueue[Future[bytes] | None]) -> None:
        while (request := requests.get()) is not None:
            if not request.set_running_or_notify_cancel():
                continue
            try:
                request.set_result(self.read())
            except OSError as error:
                request.set_exception(error)

    async def batches(self, *, stop: asyncio.Event) -> AsyncGenerator[list[Line], None]:
        """Return the lines in batches, one for each read, so that the lines of a slow writer come at once.

        They end with the file, or when ``stop`` is set. Line numbers start at 1 again where a source goes on after an
        end of file.

        Raises:
            CommandError: The file is UTF-16.
            OSError: Reading failed.
        """
        number, tail = 0, b""
        async with aclosing(self.chunks(stop=stop)) as chunks:
            async for chunk in chunks:
                self.bytes_read += len(chunk)
                if chunk:
                    tail += chunk
                    if not number and tail.startswith(_UTF16_BOMS):
                        raise CommandError(f"{self.name} is UTF-16; convert it to UTF-8")
                    *ended, tail = tail.split(b"\n")
                    tail = tail[: MAX_LINE_BYTES + 1]
                else:
                    # A line without a line end is complete only at the end of the file.
                    ended, tail = [tail] if tail else [], b""
                batch = [Line(number + i, data[: MAX_LINE_BYTES + 1]) for i, data in enumerate(ended, 1)]
                number += len(batch)
                if batch:
                    yield batch
                if not chunk:
                    number = self.bytes_read = 0

    async def spool(self, *, stop: asyncio.Event) -> None:
        """Copy what cannot be read twice to a temporary file and read from there; waits for the end of a pipe.

        The temporary file has no name where the system allows that; only its owner can read it.

        Raises:
            CommandError: It cannot be copied.
        """
        if self.is_regular:
            return
        try:
            with tempfile.TemporaryFile(buffering=0) as spool:
                async with aclosing(self.chunks(stop=stop)) as chunks:
                    async for chunk in chunks:
                        write_all(spool, chunk)
                self.file_descriptor = os.dup(spool.fileno())
        except OSError as error:
            # None if no folder was found that can be written to.
            folder = f" in {tempfile.tempdir}" if tempfile.tempdir else ""
            raise CommandError(
                f"nothing was sent: cannot copy {self.name} to a temporary file{folder}: {error.strerror}; "
                "TMPDIR names another folder",
                exit_code=EXIT_FAILED,
            ) from error
        self.is_regular = self._is_ours = True
        self.size_bytes = os.fstat(self.file_descriptor).st_size
        self.rewind()


def open_file(path: str) -> int:
    """Open a file for reading bytes and return its descriptor."""
    return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))


def write_all(file: IO[bytes], data: bytes) -> None:
    """Write every byte to a file without a buffer: one that is nearly full takes a part of them, without an error.

    Raises:
        OSError: They cannot be written.
    """
    while data:
        data = data[file.write(data) :]

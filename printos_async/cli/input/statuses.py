"""Statuses of a source: read lazily, with a count of bad lines."""

from __future__ import annotations

from collections import deque
from contextlib import aclosing
from pathlib import PurePath
from typing import TYPE_CHECKING

from printos_async._models import DeviceStatusUpdate
from printos_async.cli.terminal.output import CommandError, complain

from .records import BadLineError, Format, make_parser, status_of
from .source import STANDARD_INPUT, LineReader, write_all

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator
    from typing import IO

    from printos_async._models import StatusPush

    from .source import Line, Source

FORMATS: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}


def format_of(path: str, asked_for: Format | None) -> Format:
    """Return a file's format: the one asked for, or that of its extension; JSON lines for standard input.

    Raises:
        CommandError: The extension is unknown.
    """
    if asked_for is not None:
        return asked_for
    if path == STANDARD_INPUT:
        return "jsonl"
    file_format = FORMATS.get(PurePath(path).suffix.lower())
    if file_format is None:
        raise CommandError(f"the name {path} has no known extension; add --format jsonl or --format csv")
    return file_format


class StatusLines:
    """Reads statuses from a source.

    Attributes:
        statuses: How many have been read.
        bad_lines: How many lines could not be read.
        last_line: The number of the last line that was taken, in the current file.
        bad_lines_file: Keeps the lines that could not be read, if anything does.
        reader: Reads the lines.
    """

    def __init__(
        self, source: Source, file_format: Format, *, stop: asyncio.Event, bad_lines_file: IO[bytes] | None
    ) -> None:
        self._source = source
        self._format = file_format
        self.reader = LineReader(source, stop=stop)
        self._stop = stop
        self.bad_lines_file = bad_lines_file
        self._batch: deque[Line] = deque()
        self._kept_header = b""
        self.statuses = 0
        self.bad_lines = 0
        self.last_line = 0

    async def __aiter__(self) -> AsyncGenerator[StatusPush, None]:
        async with aclosing(self.reader.batches()) as batches:
            async for batch in batches:
                self._batch.extend(batch)
                while self._batch and not self._stop.is_set():
                    push = self._take(self._batch.popleft())
                    if push is not None:
                        yield push

    def left_over(self) -> list[StatusPush]:
        """Return the statuses that were read from a pipe and not yielded because reading was stopped.

        They cannot be read again; the lines of a file are still in the file.
        """
        if self._source.is_regular:
            return []
        return [push for push in map(self._take, self._batch) if push is not None]

    def _take(self, line: Line) -> StatusPush | None:
        self.last_line = line.number
        if line.number == 1:
            # A file that follows has its own header.
            self._parser = make_parser(self._format, DeviceStatusUpdate)
        try:
            record = self._parser.parse(line.data)
            if record is None:
                return None
            push = status_of(record)
        except BadLineError as error:
            self.bad_lines += 1
            complain(f"{self._source.name}, line {line.number}: {error}")
            if self.bad_lines_file is not None:
                self._keep_bad_line(line.data, self.bad_lines_file)
            return None
        except CommandError as error:
            raise CommandError(f"{self._source.name}, line {line.number}: {error}") from error
        self.statuses += 1
        return push

    def _keep_bad_line(self, data: bytes, file: IO[bytes]) -> None:
        header = self._parser.header_line
        try:
            if header and header != self._kept_header:
                write_all(file, header + b"\n")
                self._kept_header = header
            write_all(file, data + b"\n")
        except OSError as error:
            error.filename = file.name  # tells it from an error of the file that is read
            raise

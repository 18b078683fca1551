"""Lines of a source: read lazily and parsed, with a count of bad ones."""

from __future__ import annotations

from collections import deque
from contextlib import aclosing
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from attrs import define, field

from printos_async.cli.terminal.output import CommandError, complain

from .records import BadLineError, Format, make_parser
from .source import STANDARD_INPUT, write_all

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Callable
    from typing import IO

    from printos_async._models import DeviceProvisionRequest, DeviceStatusUpdate

    from .records import Parser
    from .source import Line, Source

T = TypeVar("T")

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


@define(eq=False)
class ParsedLines(Generic[T]):
    """The values that the lines of a source describe; a line that cannot be read is reported and counted.

    Args:
        source: The source.
        file_format: The format of its lines.
        model: What the lines describe.
        value_of: Returns the value of a record; raises ``BadLineError`` if it cannot be used.
        stop: Ends reading when it is set.
        bad_lines_file: Keeps the lines that could not be read, if anything does.

    Attributes:
        values: How many have been read.
        bad_lines: How many lines could not be read.
        last_line: The number of the last line that was taken, in the current file.
    """

    _source: Source
    _file_format: Format
    _model: type[DeviceStatusUpdate | DeviceProvisionRequest]
    _value_of: Callable[[dict[str, Any]], T]
    _stop: asyncio.Event = field(kw_only=True)
    _bad_lines_file: IO[bytes] | None = field(default=None, kw_only=True)
    _batch: deque[Line] = field(factory=deque, init=False)
    _parser: Parser = field(init=False)
    _kept_header: bytes = field(default=b"", init=False)
    values: int = field(default=0, init=False)
    bad_lines: int = field(default=0, init=False)
    last_line: int = field(default=0, init=False)

    async def __aiter__(self) -> AsyncGenerator[T, None]:
        async with aclosing(self._source.batches(stop=self._stop)) as batches:
            async for batch in batches:
                self._batch.extend(batch)
                while self._batch and not self._stop.is_set():
                    value = self._take(self._batch.popleft())
                    if value is not None:
                        yield value

    def left_over(self) -> list[T]:
        """Return the values that were read from a pipe and not yielded because reading was stopped.

        They cannot be read again; the lines of a file are still in the file.
        """
        if self._source.is_regular:
            return []
        return [value for value in map(self._take, self._batch) if value is not None]

    def _take(self, line: Line) -> T | None:
        self.last_line = line.number
        if line.number == 1:
            # A file that follows has its own header.
            self._parser = make_parser(self._file_format, self._model)
        try:
            record = self._parser.parse(line.data)
            if record is None:
                return None
            value = self._value_of(record)
        except BadLineError as error:
            self.bad_lines += 1
            complain(f"{self._source.name}, line {line.number}: {error}")
            if self._bad_lines_file is not None:
                self._keep_bad_line(line.data, self._bad_lines_file)
            return None
        except CommandError as error:
            raise CommandError(f"{self._source.name}, line {line.number}: {error}") from error
        self.values += 1
        return value

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

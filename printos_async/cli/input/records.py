"""Records: one line of a file to the specification's values, and back.

The names come from the generated models, so that a regenerated client reads new fields as well.
"""

from __future__ import annotations

import csv
import json
import re
from abc import ABC, abstractmethod
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from uuid import UUID

from attrs import frozen

from printos_async._api.fields import fields_of
from printos_async._api.json_validation import raw_object_problem
from printos_async._api.validation import check_device_id, check_provision_request, check_status
from printos_async._errors import PrintOSError
from printos_async._models import DeviceProvisionRequest, DeviceStatusUpdate, StatusPush
from printos_async.cli.terminal.output import CommandError

from .source import MAX_LINE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Format = Literal["jsonl", "csv"]
T = TypeVar("T", DeviceStatusUpdate, DeviceProvisionRequest)

DEVICE_ID = "deviceId"
_TEXTS = frozenset({str, datetime, date, UUID})  # what is a text in JSON
# Every other JSON value that is no object is a number.
_JSON_NAMES = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
# Cells that are no texts: how they are written, in this order where a field takes several kinds.
_CELLS: dict[type, tuple[str, re.Pattern[str]]] = {
    float: ("a number", re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")),
    int: ("a whole number", re.compile(r"[+-]?[0-9]{1,30}")),
    bool: ("true or false", re.compile("true|false")),
}


class BadLineError(Exception):
    """A line that cannot be read; the message says why."""


def _no_constant(name: str) -> Any:
    raise BadLineError(f"holds {name}, which is not valid JSON")


_decode = json.JSONDecoder(parse_constant=_no_constant).decode


def decode_line(line: bytes, *, max_bytes: int) -> str:
    """Return the text of a line, without a byte order mark: files that begin with one can be concatenated.

    Raises:
        BadLineError: It is too long, or not UTF-8; quotes nothing of it, for it may hold a secret.
    """
    if len(line) > max_bytes:
        raise BadLineError(f"is longer than {max_bytes} bytes")
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadLineError(f"is not UTF-8 at byte {error.start + 1}") from error


def csv_cells(text: str) -> list[str]:
    """Return the cells of a line of CSV, with their spaces.

    Raises:
        BadLineError: It is not valid CSV; quotes nothing of it, for it may hold a secret.
    """
    # One record is one line: line breaks within quotes would make line numbers meaningless.
    try:
        [cells] = csv.reader([text], strict=True)
    except csv.Error as error:
        # Python's own text is about how a program should have opened the file.
        reason = "convert the file's line ends from CR to LF" if "\r" in text else error
        raise BadLineError(f"is not valid CSV: {reason}") from error
    return cells


class Parser(ABC):
    """Parser of one file: turns its lines into records, in order.

    Attributes:
        header_line: The header that the lines after it need; empty if there is none.
    """

    header_line = b""

    def parse(self, line: bytes) -> dict[str, Any] | None:
        """Return a line's record, or None where the line holds none.

        Raises:
            BadLineError: The line cannot be read.
            CommandError: The file cannot be read.
        """
        text = decode_line(line, max_bytes=MAX_LINE_BYTES)
        content = text.strip()
        if not content:
            return None
        record = self._parse(content)
        if record is None:
            self.header_line = text.encode()
        return record

    @abstractmethod
    def _parse(self, text: str) -> dict[str, Any] | None:
        """Return the record of a line that is not empty, or None if the line is a header."""


def make_parser(file_format: Format, model: type[DeviceStatusUpdate | DeviceProvisionRequest]) -> Parser:
    """Return the parser of one file whose lines describe ``model``."""
    return JsonLines() if file_format == "jsonl" else CsvLines(columns_of(model))


class JsonLines(Parser):
    """JSON objects, one on each line."""

    def _parse(self, text: str) -> dict[str, Any]:
        try:
            record = _decode(text)
        except json.JSONDecodeError as error:
            problem = f"is not valid JSON: {error.msg} at character {error.pos + 1}"
        except RecursionError:
            problem = "is nested too deeply"
        except ValueError:  # from int(): too many digits
            problem = "holds a number that does not fit into 64 bits"
        else:
            if isinstance(record, dict):
                return record
            problem = f"is not a JSON object but {_JSON_NAMES.get(type(record), 'a number')}"
        raise BadLineError(problem)


@frozen
class Column:
    """Where a cell goes in the record, and as what JSON value: ``str``, ``int``, ``float`` or ``bool``."""

    path: tuple[str, ...]
    kind: type


class CsvLines(Parser):
    """Comma-separated values under a header line; an empty cell leaves its field out.

    A header may come again, and then be another one, so that files of statuses can be put one behind the other.
    """

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self._columns = columns
        self._header: list[Column] | None = None

    def _parse(self, text: str) -> dict[str, Any] | None:
        cells = [cell.strip() for cell in csv_cells(text)]
        if self._header is None or DEVICE_ID in cells:
            problem = self._header_problem(cells)
            if problem is None:
                self._header = [self._columns[cell] for cell in cells]
                return None
            if self._header is None:
                raise CommandError(problem)
        if len(cells) != len(self._header):
            raise BadLineError(f"has {len(cells)} values; the header has {len(self._header)}")
        record: dict[str, Any] = {}
        for column, cell in zip(self._header, cells, strict=True):
            if cell:
                part = record
                for name in column.path[:-1]:
                    part = part.setdefault(name, {})
                part[column.path[-1]] = _value(column, cell)
        return record

    def _header_problem(self, cells: list[str]) -> str | None:
        """Return why a line is no header; None if it is one."""
        unknown = [cell for cell in cells if cell not in self._columns]
        if unknown:
            wanted = ",".join(self._columns)
            return f"the first line must name columns of {wanted}, separated by commas; {unknown[0][:60]!a} is unknown"
        if len(set(cells)) != len(cells):
            return "the first line names a column twice"
        if DEVICE_ID in self._columns and DEVICE_ID not in cells:
            return f"the first line must name the column {DEVICE_ID}"
        return None


def columns_of(model: type) -> dict[str, Column]:
    """Return the CSV columns of a generated model: its fields with a single value.

    A column has its field's name, also where the field is in a nested object. Only if another column has the name
    already, it has the whole path: ``location.site``.
    """
    columns = {DEVICE_ID: Column((DEVICE_ID,), str)} if model is DeviceStatusUpdate else {}
    for column in _columns(model, ()):
        name = column.path[-1]
        columns[".".join(column.path) if name in columns else name] = column
    return columns


def _columns(model: type, path: tuple[str, ...]) -> Iterator[Column]:
    for field in fields_of(model):
        place, kinds = (*path, field.name), field.allowed.kinds
        if field.allowed.model is not None:
            yield from _columns(field.allowed.model, place)
        elif kinds & _TEXTS:
            yield Column(place, str)
        elif kind := next((kind for kind in _CELLS if kind in kinds), None):
            yield Column(place, kind)


def status_of(record: dict[str, Any]) -> StatusPush:
    """Return the status that a record describes.

    Raises:
        BadLineError: It cannot be sent; names the field in the specification's words.
    """
    fields = dict(record)
    device_id = fields.pop(DEVICE_ID, None)
    if device_id is None:
        raise BadLineError(f"{DEVICE_ID} is missing")
    if not fields:
        raise BadLineError(f"has no field besides {DEVICE_ID}")
    _check(check_device_id, device_id)
    status = _build("status update", DeviceStatusUpdate, fields)
    _check(check_status, status)
    return StatusPush(device_id, status)


def provision_request_of(record: dict[str, Any]) -> DeviceProvisionRequest:
    """Return the provision request that a record describes.

    Raises:
        BadLineError: It cannot be sent; names the field in the specification's words.
    """
    if not record:
        raise BadLineError("has no field of its device")
    request = _build("provision request", DeviceProvisionRequest, record)
    _check(check_provision_request, request)
    return request


def line_of(push: StatusPush) -> bytes:
    """Return a status as a line that ``JsonLines`` and ``status_of`` read."""
    record = {DEVICE_ID: push.device_id, **push.status.to_dict()}
    return _encode(record).encode("ascii") + b"\n"


def _build(what: str, model: type[T], record: dict[str, Any]) -> T:
    try:
        _check_names(model, record, "")
        problem = raw_object_problem(record, model, "")
    except RecursionError:
        problem = "is nested too deeply"
    if problem is not None:
        raise BadLineError(f"{what}: {problem}")
    return model.from_dict(record)


def _check(check: Callable[[Any], object], value: object) -> None:
    try:
        check(value)
    except PrintOSError as error:
        raise BadLineError(str(error)) from error


def _check_names(model: type, record: dict[str, Any], prefix: str) -> None:
    # An unknown name would be sent as it is, and a misspelt field be missing without any error.
    names = {field.name: field.allowed.model for field in fields_of(model)}
    for name, value in record.items():
        if names and name not in names:  # a model without fields takes any name
            raise BadLineError(f"has an unknown field {prefix + name!a}; known are {', '.join(names)}")
        nested = names.get(name)
        if nested is not None and isinstance(value, dict):
            _check_names(nested, value, f"{prefix}{name}.")


def _value(column: Column, cell: str) -> Any:
    if column.kind is str:
        return cell
    description, pattern = _CELLS[column.kind]
    if not pattern.fullmatch(cell):
        raise BadLineError(f"{'.'.join(column.path)} must be {description}, not {cell[:60]!a}")
    return cell == "true" if column.kind is bool else column.kind(cell)

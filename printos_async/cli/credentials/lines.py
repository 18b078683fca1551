"""Lines of a credentials file: JSON lines or CSV, to the credentials of each device.

No message quotes anything of a line: where a column is missing or two are swapped, any part may be a secret.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

from attrs import frozen

from printos_async._api.validation import check_device_id
from printos_async._auth.base import secret_problem
from printos_async._auth.hmac import key_problem
from printos_async._errors import InvalidDeviceIdError
from printos_async.cli.input.records import BadLineError, csv_cells, decode_line
from printos_async.cli.terminal.output import CommandError, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

# In place of a device: the credentials for what concerns no single device, and for devices without a line.
DEFAULT_DEVICE = "*"
_DEVICE_ID = "deviceId"
_LOGIN = ("login", "password")
_KEY = ("key", "secret")
_WANTED = f"{_DEVICE_ID} with {' and '.join(_LOGIN)}, or with {' and '.join(_KEY)}"
_COLUMNS = [{_DEVICE_ID, *_LOGIN}, {_DEVICE_ID, *_KEY}]
_MAX_LINE_BYTES = 64 * 1024
_MAX_PROBLEMS_SHOWN = 5


@frozen(repr=False, cache_hash=True)
class Credentials:
    """A login with its password, or a key with its secret; without a repr, for it is a secret."""

    is_key: bool
    name: str
    secret: str


def parse_credentials(path: Path, data: bytes) -> dict[str, Credentials]:
    """Return the credentials by device. Equal credentials are one object: they are one account.

    Raises:
        CommandError: Lines are bad; names the first of them by number.
    """
    table: dict[str, Credentials] = {}
    first_lines: dict[str, int] = {}
    canonical: dict[Credentials, Credentials] = {}
    problems: list[str] = []
    read_record: Callable[[str], Mapping[str, object]] | None = None
    bad_lines = 0
    for number, line in enumerate(data.split(b"\n"), 1):
        text = ""
        try:
            text = decode_line(line, max_bytes=_MAX_LINE_BYTES).removesuffix("\r")
            if not text.strip():
                continue
            if read_record is None:
                # By content: files that a supervisor mounts have no extension.
                if not text.lstrip().startswith(("{", "[")):
                    read_record = partial(_csv_record, _csv_header(text))
                    continue
                read_record = _json_record
            device_id, credentials = _device_and_credentials(read_record(text))
            _check_first(first_lines.setdefault(device_id, number), number)
            table[device_id] = canonical.setdefault(credentials, credentials)
        except BadLineError as error:  # ends here, for its context may hold the line
            bad_lines += 1
            if len(problems) < _MAX_PROBLEMS_SHOWN:
                problems.append(f"line {number} {error}")
            if text and read_record is None:
                break  # what follows cannot be read without the header
    if problems:
        more = bad_lines - len(problems)
        named = "; ".join(problems) + (f"; and {counted(more, 'more bad line')}" if more else "")
        raise CommandError(f"cannot use {path}: {named}")
    if not table:
        raise CommandError(f"cannot use {path}: it holds no credentials; a line has {_WANTED}")
    return table


def _check_first(first_line: int, number: int) -> None:
    if first_line != number:
        raise BadLineError(f"repeats the {_DEVICE_ID} of line {first_line}")


def _json_record(text: str) -> Mapping[str, object]:
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadLineError(f"is not valid JSON at character {error.pos + 1}") from None
    except (RecursionError, ValueError):
        raise BadLineError("is not valid JSON") from None
    if not isinstance(record, dict):
        raise BadLineError("is not a JSON object")
    return record


def _csv_header(text: str) -> list[str]:
    header = [cell.strip() for cell in csv_cells(text)]
    if len(set(header)) != len(header) or set(header) not in _COLUMNS:
        raise BadLineError(f"must name the columns {_WANTED}, or be a JSON object")
    return header


def _csv_record(header: list[str], text: str) -> Mapping[str, object]:
    """Return the record of a line under a header; values are taken as they are, spaces included."""
    cells = csv_cells(text)
    if len(cells) != len(header):
        raise BadLineError(f"has {counted(len(cells), 'value')}; the header has {len(header)}")
    return dict(zip(header, cells, strict=True))


def _device_and_credentials(record: Mapping[str, object]) -> tuple[str, Credentials]:
    if record.keys() not in _COLUMNS:
        missing = (
            f"lacks {_DEVICE_ID}" if _DEVICE_ID not in record else f"must have {_WANTED}, and nothing else"
        )
        raise BadLineError(missing)
    is_key = _KEY[0] in record
    name_field, secret_field = _KEY if is_key else _LOGIN
    device_id, name, secret = record[_DEVICE_ID], record[name_field], record[secret_field]
    problem = (
        _device_problem(device_id)
        or (key_problem(name) if is_key else secret_problem(name_field, name))
        or secret_problem(secret_field, secret)
    )
    if problem:
        raise BadLineError(f"cannot be used: {problem}")
    return str(device_id), Credentials(is_key, str(name), str(secret))


def _device_problem(device_id: object) -> str:
    try:
        check_device_id(device_id)
    except InvalidDeviceIdError:
        return f"{_DEVICE_ID} must be a text of 1 to 256 characters without path separators"
    return ""

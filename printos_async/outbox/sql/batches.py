"""Conversion between values and statements: batches merged by device and encoded as JSON, checksums, ages."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, TypeVar
from zlib import crc32

from printos_async._errors import InvalidDeviceIdError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from printos_async.outbox.protocol import Draft

Item = TypeVar("Item")

_MAX_ROWS = 1000


def crc(device_id: str, body: bytes) -> int:
    """Return the checksum that is stored with a status."""
    return crc32(body, crc32(device_id.encode()))


def merge(drafts: Iterable[Draft]) -> list[tuple[str, int, str, int]]:
    """Return device, number of drafts, newest body and its checksum, in the order of devices.

    Raises:
        InvalidDeviceIdError: A database cannot store an identifier.
    """
    counts: dict[str, int] = {}
    bodies: dict[str, bytes] = {}
    for draft in drafts:
        counts[draft.device_id] = counts.get(draft.device_id, 0) + 1
        bodies[draft.device_id] = draft.body
    if "\0" in "".join(bodies):  # in one scan
        raise InvalidDeviceIdError("a device's identifier has a NUL, which no outbox in a database can store")
    try:
        return [
            (device_id, counts[device_id], body.decode("ascii"), crc(device_id, body))
            for device_id, body in sorted(bodies.items())
        ]
    except UnicodeEncodeError:
        raise InvalidDeviceIdError(
            "a device's identifier has half of a surrogate pair: it is no text"
        ) from None


def to_json(lines: Iterable[tuple[object, ...]]) -> str:
    """Return the parameter ``batch`` of a statement."""
    return json.dumps(list(lines), separators=(",", ":"))


def as_bytes(body: bytes | str) -> bytes:
    """Return a body as bytes; SQLite returns bytes, PostgreSQL text."""
    return body if isinstance(body, bytes) else body.encode()


def age(age_s: float | None) -> float | None:
    """Return an age, at least 0: it is negative if the clock was set back."""
    return None if age_s is None else max(age_s, 0.0)


def portions(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Return the items in lists of the size of one statement."""
    iterator = iter(items)
    while part := list(islice(iterator, _MAX_ROWS)):
        yield part

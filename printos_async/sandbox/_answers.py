"""Answers: the specification's, HP's error envelope, the ones that no client should believe, and their date."""

from __future__ import annotations

import json
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._faults import MalformedKind

Headers = tuple[tuple[bytes, bytes], ...]


@frozen
class Answer:
    """A response: status, body and the headers beyond content-length."""

    status: int
    body: bytes = b""
    headers: Headers = ()

    @property
    def is_success(self) -> bool:
        """Whether the status is a 2xx."""
        return self.status < 300


class RefusedError(Exception):
    """A request that is refused: its answer is an error."""

    def __init__(self, status: int, message: str, *, headers: Headers = ()) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


JSON: Headers = ((b"content-type", b"application/json"),)
HTML: Headers = ((b"content-type", b"text/html; charset=utf-8"),)
EMPTY_200 = Answer(200)
_DEEP = 100_000


def json_answer(status: int, value: Any, *, headers: Headers = ()) -> Answer:
    """Return a JSON answer."""
    return Answer(status, json.dumps(value, separators=(",", ":")).encode(), JSON + headers)


def error(refused: RefusedError, *, request_id: int) -> Answer:
    """Return HP's error envelope, with the request's number for the logs of both sides."""
    envelope = {
        "statusCode": refused.status,
        "message": str(refused),
        "moreInfoUrl": "",
        "developerInfo": str(refused),
        "subCode": 0,
        "serviceName": "printos-sandbox",
    }
    identified = (*refused.headers, (b"x-request-id", b"sandbox-%d" % request_id))
    return json_answer(refused.status, {"smsError": envelope}, headers=identified)


def malformed(kind: MalformedKind, good: Answer) -> Answer:
    """Spoil a good answer's body, and leave its status a success."""
    match kind:
        case "html":
            return Answer(good.status, b"<!DOCTYPE html><title>Welcome</title><p>Please sign in", HTML)
        case "empty":
            body = b""
        case "cut_json":
            body = good.body[: len(good.body) // 2]
        case "null":
            body = b"null"
        case "wrong_types":
            body = b'{"devices":{"id":1},"id":[],"model":1,"serialNumber":{},"registeredAt":7}'
        case "bad_date":
            device = b'{"id":"spoilt","model":"Spoilt","serialNumber":"SN","registeredAt":"the day before yesterday"}'
            body = b'{"devices":[%b],%b' % (device, device[1:])
        case "not_utf8":
            body = b'{"devices":[{"id":"\xff\xfe"}],"id":"\xff\xfe"}'
        case "deep":
            body = b'{"devices":' + b"[" * _DEEP + b"]" * _DEEP + b"}"
        case "nan":
            body = b'{"devices":NaN,"id":NaN,"registeredAt":Infinity}'
    return Answer(good.status, body, JSON)


def cut_off(good: Answer, date: Headers) -> bytes:
    """Return the bytes of an HTTP/1.1 response that announces more than it brings."""
    head = b"HTTP/1.1 %d Cut\r\n%bcontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    dated = b"".join(b"%b: %b\r\n" % header for header in date)
    return head % (good.status, dated, len(good.body) + 64) + good.body[: len(good.body) // 2]


@define
class ServerClock:
    """Seconds since the epoch as the server sees them.

    Attributes:
        unshifted_s: Returns the seconds since the epoch.
        offset_s: Seconds by which the server is ahead of that; negative if it is behind.
        date_header: Whether answers carry a ``Date``.
    """

    unshifted_s: Callable[[], float]
    offset_s: float = 0.0
    date_header: bool = True
    _second: int | None = field(default=None, init=False)
    _headers: Headers = field(default=(), init=False)

    def now_s(self) -> float:
        """Return the server's time."""
        return self.unshifted_s() + self.offset_s

    def date(self) -> Headers:
        """Return the ``Date`` header of an answer that is sent now; nothing where answers carry none."""
        if not self.date_header:
            return ()
        second = int(self.now_s())
        if second != self._second:  # formatting takes ten times as long as the comparison
            self._second = second
            self._headers = ((b"date", formatdate(second, usegmt=True).encode()),)
        return self._headers

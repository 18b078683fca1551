"""Malformed answers from a seed, and an independent rule for what counts as a success."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen

if TYPE_CHECKING:
    from random import Random

Operation = Literal["list", "provision", "status"]
MAX_BODY_BYTES = 20_000
DEVICE = {"id": "dev-1", "model": "Indigo", "serialNumber": "SN-1", "registeredAt": "2024-01-15T12:34:56Z"}


@frozen
class Answer:
    """One answer; ``headers`` without the framing."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


_STATUSES: tuple[int, ...] = (
    200,
    201,
    202,
    204,
    206,
    299,
    300,
    301,
    302,
    304,
    307,
    400,
    401,
    403,
    404,
    408,
    409,
    418,
    422,
    429,
    500,
    502,
    503,
    520,
    599,
    600,
    777,
    999,
)
_SCALARS: tuple[Any, ...] = (
    float("nan"),
    None,
    True,
    False,
    0,
    -1,
    2**70,
    1.5,
    "",
    "x",
    "\ud800",
    "\0",
    "9" * 300,
    [],
    {},
    [[]],
)
_DATES = (
    "2024-01-15",
    "2024-13-45T00:00:00Z",
    "yesterday",
    "01/02/2024",
    "0000-00-00",
    "20240115T123456Z",
    "1" * 70,
)
_PLAIN = (
    b"",
    b" \r\n",
    b"<html>",
    b" <?xml version='1.0'?><a/>",
    b"null",
    b"[]",
    b"{}",
    b"{",
    b"NaN",
    b'{"devices": NaN}',
    b"\xef\xbb\xbf{}",
    b"\xff\xfe{\0}\0",
    b"\0",
    b"[" * 5000,
    b'{"devices":' * 3000,
    b'{"smsError": {"message": "no"}}',
    b'{"smsError": {"message": ["no"]}}',
    b'{"devices": [], "devices": null}',
    b'{"id": "a", "id": null}',
    b"1" * 6000,
    b'{"devices": []}' + b" " * 30_000,
)
_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-type", b"text/html"),
    (b"content-type", b"application/json; charset=utf-7"),
    (b"location", b"/devices"),
    (b"location", b"http://[::1"),
    (b"retry-after", b"-1"),
    (b"retry-after", b"9" * 400),
    (b"retry-after", b"Fri, 31 Dec 9999 23:59:59 GMT"),
    (b"retry-after", b"Mon, 99 Foo 20"),
    (b"retry-after", b"1e9"),
    (b"set-cookie", b"a=b; path=/; expires=never"),
    (b"set-cookie", b"\xff=\xfe;;;"),
    (b"x-request-id", b"\x80\xff"),
    (b"x-empty", b""),
    (b"date", b"yesterday"),
    (b"content-encoding", b"br"),
    (b"content-encoding", b"gzip"),
    (b"content-encoding", b"deflate"),
    (b"content-encoding", b"identity"),
    (b"content-encoding", b"gzip, identity"),
    (b"www-authenticate", b"Basic"),
    (b"alt-svc", b'h3=":443"'),
    (b"upgrade", b"h2c"),
)


def draw_answer(random: Random) -> Answer:
    """Draw an answer: often nearly right, so that each check is reached."""
    status = random.choice(_STATUSES) if random.random() < 0.6 else random.choice((200, 201, 202, 299))
    headers = [random.choice(_HEADERS) for _ in range(random.choice((0, 0, 0, 1, 2, 5)))]
    body = _draw_body(random)
    if random.random() < 0.2:
        coding = random.choice((b"gzip", b"deflate"))
        body = gzip.compress(body, 1) if coding == b"gzip" else zlib.compress(body, 1)
        headers.append((b"content-encoding", coding))
    damage = random.random()
    if damage < 0.1 and body:
        body = body[: random.randrange(len(body))]
    elif damage < 0.2 and body:
        at = random.randrange(len(body))
        body = body[:at] + bytes([random.randrange(256)]) + body[at + 1 :]
    elif damage < 0.22:
        body = random.randbytes(random.randrange(200))
    if status in {204, 304}:
        body = b""
    return Answer(status, tuple(headers), body)


def _draw_body(random: Random) -> bytes:
    kind = random.random()
    if kind < 0.3:
        return random.choice(_PLAIN)
    if kind < 0.35:
        return json.dumps(random.choice(_SCALARS)).encode()
    device = dict(DEVICE)
    for _ in range(random.choice((0, 1, 1, 2, 4))):
        name = random.choice((*DEVICE, "status", "additionalProperties", "self", ""))
        value = random.choice(_DATES if name == "registeredAt" and random.random() < 0.6 else _SCALARS)
        device[name] = value
    if random.random() < 0.1:
        device.pop(random.choice(tuple(device)), None)
    if kind < 0.65:
        return json.dumps(device).encode()
    devices: Any = [device, DEVICE][: random.choice((0, 1, 2))]
    if random.random() < 0.2:
        devices = random.choice((*_SCALARS, [random.choice(_SCALARS)]))
    return json.dumps({"devices": devices} | ({"next": 1} if random.random() < 0.1 else {})).encode()


def plain_body(answer: Answer) -> bytes | None:
    """Return the body without its content coding; None if it must not be used."""
    codings = b", ".join(value for name, value in answer.headers if name == b"content-encoding")
    if len(answer.body) > MAX_BODY_BYTES:
        return None
    if codings in {b"", b"identity"} or not answer.body:
        return answer.body
    for wbits in {b"gzip": (31,), b"deflate": (15, -15)}.get(codings, ()):
        try:
            inflater = zlib.decompressobj(wbits)
            plain = inflater.decompress(answer.body) + inflater.flush()
        except zlib.error:
            continue
        if inflater.eof:
            return plain if len(plain) <= MAX_BODY_BYTES else None
        return None
    return None


def is_success(operation: Operation, answer: Answer) -> bool:
    """Return what the specification and common sense let pass, without the code under test."""
    body = plain_body(answer)
    if not 200 <= answer.status <= 299 or body is None:
        return False
    if operation == "status":
        content_types = [value for name, value in answer.headers if name == b"content-type"]
        is_page = body.lstrip()[:1] == b"<" or (b"html" in content_types[0] if content_types else False)
        return not answer.body or not (is_page or b'"smsError"' in body)
    try:
        value = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    if not isinstance(value, dict):
        return False
    if operation == "list":
        devices = value.get("devices", [] if not value else None)
        return isinstance(devices, list) and all(isinstance(device, dict) for device in devices)
    known = {"id", "model", "serialNumber", "status", "registeredAt"}
    has_id = isinstance(value.get("id"), str) and value["id"] != ""
    return bool(known & value.keys()) and ("id" not in value or has_id)


def expected_devices(operation: Operation, answer: Answer) -> list[dict[str, Any]]:
    """Return the devices of a successful answer as plain JSON."""
    value = json.loads(plain_body(answer) or b"")
    devices = value.get("devices", []) if operation == "list" else [value]
    return list(devices)


def _refuse(constant: str) -> None:
    raise ValueError(constant)

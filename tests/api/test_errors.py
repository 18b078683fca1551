"""Whatever a server answers, the caller sees a model or an error of the tree."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import tracemalloc
import zlib
from random import Random
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import httpx
import pytest

from printos_async import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ConcurrencyLimit,
    ConflictError,
    DeviceStatusUpdate,
    FieldUnreadable,
    HmacAuth,
    NotFoundError,
    PermissionDeniedError,
    PrintDevice,
    PrintOSClient,
    RateLimitError,
    RequestTimeoutError,
    ResponseDecodeError,
    RetryPolicy,
    ServerError,
    StatusError,
    TransportError,
)
from tests.transport.scripted import OK, ScriptedServer, always

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.transport.scripted import Handler, Peer

    Event: TypeAlias = Any

Operation = Literal["list", "provision", "status"]
OPERATIONS: tuple[Operation, ...] = ("list", "provision", "status")
DEVICE = {"id": "dev-1", "model": "Indigo", "serialNumber": "SN-1", "status": "DS_ON"}
LIST = json.dumps({"devices": [DEVICE]}).encode()
MIB = 1 << 20
LONG = bool(os.environ.get("PRINTOS_LONG_TESTS"))
GOOD = {"list": LIST, "provision": json.dumps(DEVICE).encode(), "status": b""}
# Both wires: the default one, and httpx's own transport.
Via: TypeAlias = Literal["http1", "httpx"]


def answer(status: int, body: bytes, *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status} x", f"content-length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def call(client: PrintOSClient, operation: Operation) -> Awaitable[Any]:
    if operation == "list":
        return client.list_devices()
    if operation == "provision":
        return client.provision_device(model="Indigo", serial_number="SN-1")
    return client.update_device_status("dev-1", DeviceStatusUpdate(status="DS_ON"))


@pytest.fixture(params=["http1", "httpx"])
def via(request: pytest.FixtureRequest) -> Via:
    chosen: Via = request.param
    return chosen


@pytest.fixture(params=OPERATIONS)
def operation(request: pytest.FixtureRequest) -> Operation:
    chosen: Operation = request.param
    return chosen


class Bench:
    """A scripted server, a client of it, and the events."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.server: ScriptedServer
        self.client: PrintOSClient


MakeBench: TypeAlias = "Callable[..., Awaitable[Bench]]"


@pytest.fixture
async def bench(via: Via) -> AsyncIterator[MakeBench]:
    made: list[Bench] = []
    # The servers speak plain HTTP, and loading certificates would take most of the time.
    transport = httpx.AsyncHTTPTransport(verify=False) if via == "httpx" else None

    async def make(handler: Handler, **given: Any) -> Bench:
        new = Bench()
        new.server = ScriptedServer(handler)
        await new.server.__aenter__()
        settings: dict[str, Any] = {"retry": RetryPolicy(max_attempts=1), "timeout_s": 5.0} | given
        new.client = PrintOSClient(
            str(new.server.origin),
            auth=HmacAuth("key", "secret"),
            transport=transport,
            hooks=[new.events.append],
            **settings,
        )
        made.append(new)
        return new

    yield make
    for each in made:
        await each.client.aclose()
        if transport is not None:
            await transport.aclose()
        await each.server.__aexit__(None, None, None)


@pytest.mark.parametrize(
    ("status", "error_class"),
    [
        (300, StatusError),
        (304, StatusError),
        (400, BadRequestError),
        (401, AuthenticationError),
        (402, StatusError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (408, StatusError),
        (409, ConflictError),
        (418, StatusError),
        (422, BadRequestError),
        (429, RateLimitError),
        (500, ServerError),
        (503, ServerError),
        (520, ServerError),
        (599, ServerError),
        (600, StatusError),
        (999, StatusError),
    ],
)
async def test_status_without_success_is_its_error(
    bench: MakeBench, operation: Operation, status: int, error_class: type[StatusError]
) -> None:
    body = b"" if status == 304 else b'{"smsError": {"message": "not\\ntoday", "statusCode": 1}}'
    made = await bench(always(answer(status, body, "x-request-id: r-1", "retry-after: 7")))
    with pytest.raises(StatusError) as caught:
        await call(made.client, operation)
    error = caught.value
    assert type(error) is error_class
    assert (error.status, error.attempts, error.request_id, error.retry_after_s) == (status, 1, "r-1", 7.0)
    assert error.method == {"list": "GET", "provision": "POST", "status": "PUT"}[operation]
    assert error.body.encode() == body
    if body:
        assert "not today" in str(error)
    assert str(status) in str(error)
    assert len(made.server.requests) == 1


HOSTILE = "a\x00\x07\x1b[2J\x1b]0;t\x07\b\r\nb\x7f\x85c\x9b31m\u200b\u202e\u2066\u2028\ufeff\ue000\ud83dd \xa0\u00e9\u2603"


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
async def test_what_a_terminal_would_obey_is_not_in_the_text_of_an_error(
    bench: MakeBench, operation: Operation, status: int
) -> None:
    body = json.dumps({"smsError": {"message": HOSTILE}}).encode()
    made = await bench(always(answer(status, body, "x-request-id: r\x9b\u00ad1").replace(b"\xc2", b"")))
    with pytest.raises(StatusError) as caught:
        await call(made.client, operation)
    assert str(caught.value).isprintable()
    assert str(caught.value).endswith("d \u00e9\u2603")
    assert caught.value.request_id == "r\ufffd\ufffd1"
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize("status", [200, 201, 202, 203, 206, 226, 299])
async def test_any_2xx_with_the_right_body_is_a_success(
    bench: MakeBench, operation: Operation, status: int
) -> None:
    made = await bench(always(answer(status, GOOD[operation])))
    result = await call(made.client, operation)
    device = PrintDevice(id="dev-1", model="Indigo", serial_number="SN-1", status="DS_ON")
    assert result == {"list": [device], "provision": device, "status": None}[operation]


@pytest.mark.parametrize("status", [200, 202, 204, 205])
async def test_success_without_a_body_is_one_for_a_status_only(
    bench: MakeBench, operation: Operation, status: int
) -> None:
    made = await bench(always(f"HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n".encode()))
    if operation == "status":
        await call(made.client, operation)
    else:
        with pytest.raises(ResponseDecodeError, match="empty") as caught:
            await call(made.client, operation)
        assert caught.value.status == status


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["/devices", "http://evil.invalid/", "http://[bad", "\x80 ://", ""])
async def test_redirect_is_an_error_and_never_followed(
    bench: MakeBench, operation: Operation, status: int, location: str
) -> None:
    head = f"HTTP/1.1 {status} x\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n".encode("latin-1")
    made = await bench(always(head))
    with pytest.raises(StatusError, match="redirects are not followed") as caught:
        await call(made.client, operation)
    assert caught.value.status == status
    assert len(made.server.requests) == 1


HTML = b"<!DOCTYPE html><title>Login</title>"
NO_MODEL = [
    HTML,
    b"{",
    b'{"devices": [',
    b'{"id": "a"',
    b"null",
    b"true",
    b"17",
    b'"text"',
    b"[]",
    b"[{}]",
    b'{"devices": null}',
    b'{"devices": {}}',
    b'{"devices": [null]}',
    b'{"devices": [[]]}',
    b'{"devices": ["dev-1"]}',
    b'{"device": []}',
    b'{"id": null}',
    b'{"id": 17, "model": "a"}',
    b'{"id": ""}',
    b'{"id": NaN}',
    b'{"devices": [NaN]}',
    b'{"devices": [{"id": Infinity}]}',
    b'{"smsError": {"statusCode": 500, "message": "no"}}',
    b"[" * 100_000,
    b'{"devices": [' + b'{"a":' * 100_000,
    b'{"id": ' + b"9" * 5000 + b"}",
    b"\xff\xfe\x00",
    b"\0\0\0\0",
]


@pytest.mark.parametrize("body", NO_MODEL, ids=range(len(NO_MODEL)))
@pytest.mark.parametrize("operation", ["list", "provision"], indirect=True)
async def test_success_without_a_model_is_an_error(
    bench: MakeBench, operation: Operation, body: bytes
) -> None:
    if operation == "provision" and body == b'{"device": []}':
        body = b'{"devices": []}'
    made = await bench(always(answer(200, body)))
    with pytest.raises(ResponseDecodeError) as caught:
        await call(made.client, operation)
    assert (caught.value.status, caught.value.attempts) == (200, 1)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (HTML, ()),
        (b"  \n" + HTML, ()),
        (b"please log in", ("content-type: text/html",)),
        (b'{"smsError": {"statusCode": 500, "message": "no"}}', ()),
        (gzip.compress(HTML, mtime=0), ("content-encoding: gzip",)),
        (b"whatever", ("content-encoding: br",)),
    ],
)
async def test_page_in_place_of_an_acknowledgement_is_no_success(
    bench: MakeBench, body: bytes, headers: tuple[str, ...]
) -> None:
    made = await bench(always(answer(200, body, *headers)))
    with pytest.raises(ResponseDecodeError):
        await call(made.client, "status")


async def test_device_with_odd_fields_keeps_them_raw_and_the_others_are_whole(bench: MakeBench) -> None:
    devices = [
        DEVICE | {"registeredAt": "2024-01-15T12:34:56.789Z"},
        DEVICE | {"id": "dev-2", "registeredAt": "the day before yesterday"},
        DEVICE | {"id": "dev-3", "registeredAt": None, "model": 12000, "status": None, "new": [1]},
        {},
        DEVICE | {"id": "dev-5", "registeredAt": "Mon, 15 Jan 2024 12:34:56 GMT"},
        DEVICE | {"id": "dev-6", "registeredAt": "01/02/2024"},
        {"id": 7, "registeredAt": 1705322096},
    ]
    made = await bench(always(answer(200, json.dumps({"devices": devices}).encode())))
    first, second, third, empty, fifth, sixth, last = await made.client.list_devices()
    assert first.to_dict() == DEVICE | {"registeredAt": "2024-01-15T12:34:56.789000+00:00"}
    assert second.to_dict() == devices[1]
    assert third.to_dict() == devices[2]
    assert third.additional_properties == {"registeredAt": None, "model": 12000, "status": None, "new": [1]}
    assert empty == PrintDevice()
    assert fifth.to_dict()["registeredAt"] == "2024-01-15T12:34:56+00:00"
    assert sixth.additional_properties == {"registeredAt": "01/02/2024"}
    assert last.to_dict() == devices[6]
    unreadable = [event for event in made.events if isinstance(event, FieldUnreadable)]
    assert {(event.device_id, event.field) for event in unreadable} == {
        ("dev-2", "registeredAt"),
        ("dev-3", "registeredAt"),
        ("dev-3", "model"),
        ("dev-3", "status"),
        ("dev-6", "registeredAt"),
        (None, "id"),
        (None, "registeredAt"),
    }
    assert {event.operation for event in unreadable} == {"listDevices"}
    assert unreadable[0].raw == "the day before yesterday"


def compressed(kind: str, body: bytes) -> bytes:
    if kind == "gzip":
        return gzip.compress(body)
    if kind == "zlib":
        return zlib.compress(body)
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(body) + deflater.flush()


@pytest.mark.parametrize(
    ("kind", "header"),
    [("gzip", "gzip"), ("gzip", "X-GZip"), ("zlib", "deflate"), ("raw", "deflate"), ("none", "identity")],
)
async def test_compressed_body_is_read(
    bench: MakeBench, operation: Operation, kind: str, header: str
) -> None:
    body = GOOD[operation] if kind == "none" else compressed(kind, GOOD[operation])
    made = await bench(always(answer(200, body, f"content-encoding: {header}")))
    result = await call(made.client, operation)
    assert (result is None) == (operation == "status")


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (gzip.compress(LIST, mtime=0)[:-9], ("content-encoding: gzip",)),
        (
            gzip.compress(LIST, mtime=0)[:20] + b"damage" + gzip.compress(LIST, mtime=0)[26:],
            ("content-encoding: gzip",),
        ),
        (LIST, ("content-encoding: gzip",)),
        (LIST, ("content-encoding: deflate",)),
        (LIST, ("content-encoding: br",)),
        (LIST, ("content-encoding: zstd",)),
        (gzip.compress(gzip.compress(LIST, mtime=0), mtime=0), ("content-encoding: gzip, gzip",)),
        (gzip.compress(LIST, mtime=0), ("content-encoding: identity", "content-encoding: gzip")),
        (LIST, ("content-encoding: identity", "content-encoding: br")),
    ],
)
async def test_damaged_or_unasked_compression_is_an_error(
    bench: MakeBench, operation: Operation, body: bytes, headers: tuple[str, ...]
) -> None:
    made = await bench(always(answer(200, body, *headers)))
    with pytest.raises(ResponseDecodeError):
        await call(made.client, operation)


@pytest.mark.parametrize("kind", ["gzip", "zlib", "raw", "plain"])
async def test_body_beyond_the_limit_is_an_error(bench: MakeBench, operation: Operation, kind: str) -> None:
    body = b'{"devices": []}' + b" " * 5_000_000
    headers = () if kind == "plain" else ("content-encoding: " + ("gzip" if kind == "gzip" else "deflate"),)
    sent = body if kind == "plain" else compressed(kind, body)
    made = await bench(always(answer(200, sent, *headers)), max_body_bytes=10_000)
    assert kind == "plain" or len(sent) < 10_000
    with pytest.raises(ResponseDecodeError, match=r"larger than max_body_bytes \(10000\)"):
        await call(made.client, operation)


async def test_large_body_of_an_error_is_bounded(bench: MakeBench, operation: Operation) -> None:
    for headers, body in (
        ((), b"x" * 200_000),
        (("content-encoding: gzip",), gzip.compress(b"x" * 9_000_000, mtime=0)),
    ):
        made = await bench(always(answer(500, body, *headers)), max_body_bytes=100_000)
        with pytest.raises(ServerError) as caught:
            await call(made.client, operation)
        assert len(caught.value.body) <= 2048
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("status", [200, 500])
async def test_bodies_of_which_only_the_beginning_counts_cost_no_more_than_it(
    bench: MakeBench, status: int
) -> None:
    in_flight, body_bytes, most_bytes = (32, 200 * MIB, 100 * MIB) if LONG else (16, 4 * MIB, 12 * MIB)
    piece = b"x" * 65_536

    async def handle(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n\r\n" % (status, body_bytes))
        for _ in range(body_bytes // len(piece)):
            if peer.client_left:
                return
            await peer.send(piece)

    made = await bench(handle, timeout_s=60.0, limit=ConcurrencyLimit(minimum=in_flight, maximum=in_flight))
    tracemalloc.start()
    try:
        calls = (call(made.client, "status") for _ in range(in_flight))
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert {type(outcome) for outcome in outcomes} == {type(None) if status == 200 else ServerError}
    assert peak_bytes < most_bytes


@pytest.mark.parametrize(
    ("status", "kind"),
    [(200, "plain"), (200, "gzip"), (200, "raw"), (500, "plain"), (500, "gzip"), (500, "zlib")],
)
async def test_the_beginning_of_a_long_body_is_enough(bench: MakeBench, status: int, kind: str) -> None:
    # Incompressible behind its beginning: more than 64 KiB once compressed, too.
    body = b'{"smsError": {"message": "no"}}' + Random(1).randbytes(300_000)
    headers = () if kind == "plain" else ("content-encoding: " + ("gzip" if kind == "gzip" else "deflate"),)
    sent = body if kind == "plain" else compressed(kind, body)
    made = await bench(always(answer(status, sent, *headers)))
    if status == 200:
        with pytest.raises(ResponseDecodeError, match="PrintOS's error envelope"):
            await call(made.client, "status")
        return
    with pytest.raises(ServerError) as caught:
        await call(made.client, "status")
    assert caught.value.body.startswith('{"smsError": {"message": "no"}}')


async def test_long_acknowledgement_is_a_success(bench: MakeBench) -> None:
    for headers, body in (
        ((), b" " * 200_000),
        (("content-encoding: gzip",), gzip.compress(b" " * 9_000_000, mtime=0)),
    ):
        made = await bench(always(answer(200, body, *headers)))
        await call(made.client, "status")


async def test_answer_that_drips_ends_at_the_timeout(bench: MakeBench, operation: Operation) -> None:
    async def handle(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        await peer.dribble(b" " * 1000)

    made = await bench(handle, timeout_s=0.5)
    async with asyncio.timeout(5):
        with pytest.raises(RequestTimeoutError) as caught:
            await call(made.client, operation)
    assert caught.value.may_have_arrived
    assert isinstance(caught.value, TimeoutError)


@pytest.mark.parametrize("cut", [0, 5, 30, 45])
async def test_truncated_answer_is_a_transport_error(
    bench: MakeBench, operation: Operation, cut: int
) -> None:
    async def handle(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(answer(200, b'{"devices": []}')[:cut])

    made = await bench(handle)
    with pytest.raises(TransportError) as caught:
        await call(made.client, operation)
    assert caught.value.may_have_arrived
    assert len(made.server.requests) == 1


async def test_server_that_is_not_there_got_nothing(via: Via, operation: Operation) -> None:
    async with ScriptedServer(always(OK)) as server:
        origin = str(server.origin)
    async with httpx.AsyncHTTPTransport() as transport:
        client = PrintOSClient(
            origin,
            auth=None,
            retry=RetryPolicy(max_attempts=1),
            transport=transport if via == "httpx" else None,
        )
        with pytest.raises(TransportError) as caught:
            await call(client, operation)
        assert not caught.value.may_have_arrived
        await client.aclose()


async def test_errors_are_api_errors_with_their_request(bench: MakeBench) -> None:
    made = await bench(always(answer(404, b"")))
    with pytest.raises(APIError) as caught:
        await made.client.update_device_status("a b", DeviceStatusUpdate(status="DS_ON"))
    assert (caught.value.method, caught.value.path) == ("PUT", "/devices/a%20b/status")

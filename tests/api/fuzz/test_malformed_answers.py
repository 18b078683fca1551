"""Thousands of malformed answers from fixed seeds: only errors of the tree, no false success, no hang."""

from __future__ import annotations

import asyncio
import gc
import os
from random import Random
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest

from printos_async import (
    DeviceStatusUpdate,
    HmacAuth,
    PrintDevice,
    PrintOSClient,
    PrintOSError,
    ResponseDecodeError,
    RetryPolicy,
    StatusError,
    TransportError,
)

from .answers import MAX_BODY_BYTES, Answer, Operation, draw_answer, expected_devices, is_success

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

# Answers for each operation; PRINTOS_LONG_TESTS=1 tries five times as many.
TIMES = 5 if os.environ.get("PRINTOS_LONG_TESTS") else 1
OVER_SOCKET = 2_000 * TIMES
OVER_MOCK = 1_000 * TIMES
RAW = 800 * TIMES
SEED = 20_240_115
RETRY = RetryPolicy(max_attempts=1)


@pytest.fixture(params=["list", "provision", "status"])
def operation(request: pytest.FixtureRequest) -> Operation:
    return cast("Operation", request.param)


@pytest.fixture(autouse=True)
async def nothing_goes_wrong_unseen() -> AsyncIterator[None]:
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    yield
    gc.collect()
    assert problems == []


async def call(client: PrintOSClient, operation: Operation) -> list[PrintDevice] | None:
    if operation == "list":
        return await client.list_devices()
    if operation == "provision":
        return [await client.provision_device(model="Indigo", serial_number="SN-1")]
    await client.update_device_status("dev-1", DeviceStatusUpdate(status="DS_ON"))
    return None


async def check(client: PrintOSClient, operation: Operation, answer: Answer) -> str:
    """Make one call, compare it with the rule, and name its outcome."""
    devices: list[PrintDevice] | None = None
    error: PrintOSError | None = None
    # An answer before this one may have asked for a pause of thousands of years, which the client keeps to.
    client._channel.executor.circuit_breaker.held_until_s = 0.0
    try:
        devices = await call(client, operation)
    except PrintOSError as caught:
        error = caught
    assert is_success(operation, answer) == (error is None), (answer, error)
    if error is not None:
        if 200 <= answer.status <= 299:
            assert isinstance(error, ResponseDecodeError), (answer, error)
        else:
            assert isinstance(error, StatusError), (answer, error)
            assert error.status == answer.status
        str(error).encode()
        return type(error).__name__
    if devices is not None:
        for device, want in zip(devices, expected_devices(operation, answer), strict=True):
            given = device.to_dict()
            # Whether a date of another form can be read is dateutil's to say.
            for both in (given, want):
                both.pop("registeredAt", None)
            assert given == want
    return "success"


class RawServer(asyncio.Protocol):
    """Answers each request of a connection with the bytes that its path's test number names."""

    def __init__(self, answers: Iterator[bytes]) -> None:
        self._answers = answers
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or b"0"
        if separator and len(body) >= int(length):
            self._received = b""
            answer = next(self._answers)
            self._transport.write(answer)
            if answer.endswith(END):
                self._transport.close()


# Marks answers after which the server hangs up; never a part of what is drawn.
END = b"\r\n--hang up--"


def framed(random: Random, answer: Answer) -> bytes:
    """Frame an answer correctly in one of HTTP's ways."""
    head = b"HTTP/1.1 %d %s\r\n" % (answer.status, random.choice((b"", b"OK", b"\xe9t\xe9")))
    head += b"".join(name + b": " + value + b"\r\n" for name, value in answer.headers)
    if answer.status in {204, 304}:
        return head + b"\r\n"
    if random.random() < 0.5:
        return head + b"content-length: %d\r\n\r\n" % len(answer.body) + answer.body
    cut = random.randrange(len(answer.body) + 1)
    chunks = [part for part in (answer.body[:cut], answer.body[cut:]) if part]
    head += b"transfer-encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


async def test_answers_over_a_socket_end_in_a_model_or_an_error_of_the_tree(operation: Operation) -> None:
    random = Random(f"{SEED} socket {operation}")
    answers = [draw_answer(random) for _ in range(OVER_SOCKET)]
    raw = iter([framed(random, answer) for answer in answers])
    server = await asyncio.get_running_loop().create_server(lambda: RawServer(raw), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    outcomes = set()
    async with (
        server,
        asyncio.timeout(120),
        PrintOSClient(
            f"http://127.0.0.1:{port}",
            auth=HmacAuth("key", "secret"),
            retry=RETRY,
            max_body_bytes=MAX_BODY_BYTES,
            timeout_s=10,
        ) as client,
    ):
        for answer in answers:
            outcomes.add(await check(client, operation, answer))
    # A fuzz that only ever finds one outcome finds nothing.
    assert {"success", "ResponseDecodeError", "ServerError", "NotFoundError", "StatusError"} <= outcomes


async def test_answers_of_a_transport_end_in_a_model_or_an_error_of_the_tree(operation: Operation) -> None:
    random = Random(f"{SEED} mock {operation}")
    current: Answer

    def respond(request: httpx.Request) -> httpx.Response:
        headers = [*current.headers, (b"content-length", b"%d" % len(current.body))]
        return httpx.Response(current.status, headers=headers, stream=httpx.ByteStream(current.body))

    outcomes = set()
    async with (
        asyncio.timeout(120),
        PrintOSClient(
            "https://printos.invalid",
            auth=HmacAuth("key", "secret"),
            retry=RETRY,
            max_body_bytes=MAX_BODY_BYTES,
            transport=httpx.MockTransport(respond),
        ) as client,
    ):
        for _ in range(OVER_MOCK):
            current = draw_answer(random)
            outcomes.add(await check(client, operation, current))
    assert {"success", "ResponseDecodeError", "ServerError", "NotFoundError", "StatusError"} <= outcomes


GOOD = {
    "list": b'{"devices": [{"id": "dev-1"}]}',
    "provision": b'{"id": "dev-1"}',
    "status": b"",
}


def mangled(random: Random, operation: Operation) -> bytes:
    """Break a good answer below HTTP, so that it cannot be read, or can be by luck."""
    body = GOOD[operation]
    good = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nx-pad: 1\r\n\r\n%s" % (len(body), body)
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(good))
        kind = random.random()
        if kind < 0.3:
            good = good[:at] + bytes([random.randrange(256)]) + good[at + 1 :]
        elif kind < 0.5:
            good = good[:at] + good[at + 1 :]
        elif kind < 0.7:
            good = (
                good[:at]
                + random.choice((b"\r\n", b"\0", b"\r\n ", b": ", b"\xff", b"HTTP/1.1 "))
                + good[at:]
            )
        elif kind < 0.85:
            good = good[:at] + good[random.randrange(len(good)) :]
        else:
            good = good[:at]
        good = good or b"x"
    return good + END


async def test_mangled_bytes_end_in_an_error_or_in_what_they_still_say(operation: Operation) -> None:
    random = Random(f"{SEED} raw {operation}")
    # Every mangled answer is followed by a good one, on another connection if need be.
    mangles = [mangled(random, operation) for _ in range(RAW)]
    good = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(GOOD[operation]), GOOD[operation])
    raw = iter([answer for mangle in mangles for answer in (mangle, good)])
    server = await asyncio.get_running_loop().create_server(lambda: RawServer(raw), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    outcomes: dict[str, int] = {}
    before = asyncio.all_tasks()
    async with (
        server,
        asyncio.timeout(120),
        PrintOSClient(
            f"http://127.0.0.1:{port}", auth=HmacAuth("key", "secret"), retry=RETRY, timeout_s=10
        ) as client,
    ):
        for mangle in mangles:
            outcome: Any
            client._channel.executor.circuit_breaker.held_until_s = 0.0
            try:
                await call(client, operation)
            except PrintOSError as error:
                outcome = type(error).__name__
            else:
                outcome = "success"
                # What passed must have said so: a status line with 2xx at its very beginning.
                first = mangle.lstrip(b"\r\n").partition(b"\r\n")[0]
                assert first.startswith(b"HTTP/"), mangle
                assert first.split(b" ")[1][:1] == b"2", mangle
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            await call(client, operation)  # the client still works
    assert asyncio.all_tasks() == before
    assert next(raw, None) is None  # each answer was asked for exactly once
    assert outcomes[TransportError.__name__] > RAW // 3
    assert "RequestTimeoutError" not in outcomes

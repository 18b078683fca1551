"""A maintenance page or a captive portal in place of PrintOS, on the path of the statuses or of the login."""

from __future__ import annotations

import asyncio
import json
import os
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

import pytest
from attrs import define, field

from printos_async import (
    CircuitChanged,
    MemoryOutbox,
    Outbox,
    PrintOSClient,
    ResponseDecodeError,
    SessionTokenAuth,
    SqlOutbox,
)
from tests.conftest import QUICK_RETRY, status
from tests.outbox.conftest import url_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from printos_async import Event

LONG_S = 5.0 if os.environ.get("PRINTOS_LONG_TESTS") else 0.0
STATUSES = 1_000
PAGE = b"<!DOCTYPE html><html>Sign in to the guest network</html>"
_LENGTH = b"content-length:"

Where = Literal["status", "login"]


@define
class Portal:
    """A PrintOS server behind something that answers in its place while ``page_on`` says so."""

    page_on: Where | None = None
    page: bytes = PAGE
    content_type: bytes = b"text/html"
    status: bytes = b"200 OK"  # of the page
    logins: int = 0
    applied: dict[str, int] = field(factory=dict)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _head(reader):
            method, path, *_ = head.split(b" ")
            length = next((line for line in head.lower().split(b"\r\n") if line.startswith(_LENGTH)), b":0")
            body = await reader.readexactly(int(length.partition(b":")[2]))
            code, content_type, answer = self._answer(method, path.decode(), body)
            writer.write(
                b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b"
                % (code, content_type, len(answer), answer)
            )
        writer.close()

    def _answer(self, method: bytes, path: str, body: bytes) -> tuple[bytes, bytes, bytes]:
        is_login = method == b"POST"
        self.logins += is_login
        if self.page_on == ("login" if is_login else "status"):
            return self.status, self.content_type, self.page
        if is_login:
            return b"200 OK", b"application/json", b'{"authToken": "token-1"}'
        self.applied[path.split("/")[2]] = json.loads(body)["metrics"]["pagesTotal"]
        return b"200 OK", b"application/json", b""


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


@asynccontextmanager
async def portal() -> AsyncIterator[Portal]:
    running = Portal()
    server = await asyncio.start_server(running.serve, "127.0.0.1", 0)
    async with server:
        running.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield running


@pytest.fixture(params=["none", "memory", "sqlite", "postgresql"])
def outbox(request: pytest.FixtureRequest, tmp_path: Path) -> Outbox | None:
    match request.param:
        case "none":
            return None
        case "memory":
            return MemoryOutbox()
    return SqlOutbox(url_of(request.param, request, tmp_path))


@pytest.mark.parametrize("where", ["status", "login"])
async def test_a_pusher_keeps_its_statuses_while_something_between_answers(
    where: Where, outbox: Outbox | None
) -> None:
    circuit = {"open": asyncio.Event(), "closed": asyncio.Event()}

    def watch(event: Event) -> None:
        if isinstance(event, CircuitChanged):
            circuit[event.circuit].set()

    async with portal() as server:
        server.page_on = where
        auth = SessionTokenAuth("login", "password")
        async with PrintOSClient(server.url, auth=auth, hooks=[watch]) as client:
            pusher = client.status_pusher(outbox=outbox)
            async with pusher:
                started_s = time.monotonic()
                # At once: one commit after the other would take seconds, and each second of the page is one login.
                await asyncio.gather(
                    *(pusher.put(f"dev-{device}", status(device)) for device in range(STATUSES))
                )
                async with asyncio.timeout(20.0):
                    await circuit["open"].wait()
                await asyncio.sleep(max(0.0, started_s + LONG_S - time.monotonic()))
                assert not server.applied
                server.page_on = None
                stats = await pusher.drain(70.0)
        assert (stats.sent, stats.failed, stats.pending) == (STATUSES, 0, 0)
        assert server.applied == {f"dev-{device}": device for device in range(STATUSES)}
        assert server.logins <= 10
        assert circuit["closed"].is_set()
        assert time.monotonic() - started_s < 70.0


@pytest.mark.parametrize("status_line", [b"429 Too Many Requests", b"503 Service Unavailable"])
async def test_a_fleet_is_sent_soon_after_its_login_was_refused_for_load(status_line: bytes) -> None:
    opened = asyncio.Event()

    def watch(event: Event) -> None:
        if isinstance(event, CircuitChanged) and event.circuit == "open":
            opened.set()

    async with portal() as server:
        server.page_on, server.status, server.page = "login", status_line, b""
        auth = SessionTokenAuth("login", "password")
        async with (
            PrintOSClient(server.url, auth=auth, hooks=[watch]) as client,
            client.status_pusher() as pusher,
        ):
            for device in range(500):
                await pusher.put(f"dev-{device}", status(1))
            async with asyncio.timeout(20.0):
                await opened.wait()
            for device in range(500):
                await pusher.put(f"dev-{device}", status(2))
            await asyncio.sleep(LONG_S)
            server.page_on, started_s = None, time.monotonic()
            stats = await pusher.drain(30.0)
        assert (stats.sent, stats.failed) == (500, 0)
        assert set(server.applied.values()) == {2}
        assert time.monotonic() - started_s < 10.0
        assert server.logins <= 10


@pytest.mark.parametrize("where", ["status", "login"])
@pytest.mark.parametrize("content_type", [b"text/html", b"application/json"])
async def test_single_calls_and_bulk_pushes_fail_at_once(where: Where, content_type: bytes) -> None:
    async with portal() as server:
        server.page_on, server.content_type = where, content_type
        auth = SessionTokenAuth("login", "password")
        async with PrintOSClient(server.url, auth=auth, retry=QUICK_RETRY) as client:
            with pytest.raises(ResponseDecodeError) as caught:
                await client.update_device_status("dev-1", status(1))
            report = await client.push_statuses({"dev-1": status(1), "dev-2": status(2)})
    assert caught.value.from_intermediary
    assert caught.value.attempts == 1
    assert caught.value.path == (
        "/devices/dev-1/status" if where == "status" else "/api/aaa/v1/devices/login"
    )
    assert [(type(failure.error), failure.attempts) for failure in report.failures] == [
        (ResponseDecodeError, 1)
    ] * 2


async def test_an_error_envelope_in_a_success_is_printos_own_answer() -> None:
    async with portal() as server:
        server.page_on, server.content_type = "status", b"application/json"
        server.page = b'{"smsError": {"statusCode": 500}}'
        async with PrintOSClient(server.url, auth=None) as client, client.status_pusher() as pusher:
            result = await pusher.push("dev-1", status(1))
    assert result.outcome == "failed"
    assert isinstance(result.error, ResponseDecodeError)
    assert not result.error.from_intermediary

"""Every test here runs with both wires, over TCP and TLS, on every event loop that is installed."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import httpx
import httpx2
import pytest
import trustme
from attrs import define

import printos_async
from printos_async._transport import (
    Http1Transport,
    HttpxTransport,
    Origin,
    RawRequest,
    RawResponse,
    Transport,
)

from .scripted import Handler, ScriptedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

LoopFactories: TypeAlias = "Mapping[str, Callable[[], asyncio.AbstractEventLoop]]"


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> LoopFactories:
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if importlib.util.find_spec("uvloop") is not None:
        import uvloop  # noqa: PLC0415  # has no build for Windows

        factories["uvloop"] = uvloop.new_event_loop
    return factories


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # httpx's transports speak through anyio, which does not care for the loop: once is enough. Those of httpx and
    # httpx2 differ in the classes of their messages and errors, for which TLS does not matter.
    again = ({"uvloop", "httpx"}, {"uvloop", "httpx2"}, {"tls", "httpx2"})
    twice = [
        item for item in items if any(repeated <= set(re.split(r"[\[\]-]", item.name)) for repeated in again)
    ]
    items[:] = [item for item in items if item not in twice]
    config.hook.pytest_deselected(items=twice)


class Serve(Protocol):
    async def __call__(self, handler: Handler, *, host: str = "127.0.0.1") -> ScriptedServer: ...


@define
class Tls:
    authority: trustme.CA
    server: ssl.SSLContext
    client: ssl.SSLContext


@define(eq=False)
class Carrier:
    """A wire with what a test needs around it; ``httpx`` is the kind of that over httpx2, too."""

    kind: Literal["http1", "httpx"]
    secure: bool
    wire: Transport

    async def send(
        self,
        server: ScriptedServer | Origin,
        *,
        method: str = "PUT",
        target: str = "/devices/a/status",
        headers: tuple[tuple[str, str], ...] = (),
        body: bytes = b"{}",
        timeout_s: float = 10.0,
        max_body_bytes: int = 1 << 20,
    ) -> RawResponse:
        origin = server if isinstance(server, Origin) else server.origin
        deadline = asyncio.get_running_loop().time() + timeout_s
        request = RawRequest(origin, method, target, headers, body)
        return await self.wire.send(request, deadline=deadline, max_body_bytes=max_body_bytes)


@pytest.fixture(scope="session")
def tls() -> Tls:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "::1", "localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Tls(authority, server, client)


@pytest.fixture(params=["tcp", "tls"])
def secure(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "tls")


@pytest.fixture(params=["http1", "httpx"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=["http1", "httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
async def serve(secure: bool, tls: Tls) -> AsyncIterator[Serve]:  # noqa: FBT001
    async with AsyncExitStack() as servers:

        async def start(handler: Handler, *, host: str = "127.0.0.1") -> ScriptedServer:
            server = ScriptedServer(handler, tls.server if secure else None, host)
            return await servers.enter_async_context(server)

        yield start


@pytest.fixture
async def carrier(
    library: Literal["http1", "httpx", "httpx2"],
    secure: bool,  # noqa: FBT001
    tls: Tls,
) -> AsyncIterator[Carrier]:
    before = asyncio.all_tasks()
    if library == "http1":
        wire: Transport = Http1Transport(make_ssl_context=lambda: tls.client)
        yield Carrier("http1", secure, wire)
        await wire.aclose()
    else:
        make = httpx.AsyncHTTPTransport if library == "httpx" else httpx2.AsyncHTTPTransport
        async with make(verify=tls.client) as transport:
            wire = HttpxTransport(transport)
            yield Carrier("httpx", secure, wire)
            await wire.aclose()
    assert _of_the_wire(asyncio.all_tasks() - before) == []


def _of_the_wire(tasks: set[asyncio.Task[Any]]) -> list[str]:
    """Return the tasks that run code of the package."""
    package = str(Path(printos_async.__file__).parent)
    coroutines = [(task, task.get_coro()) for task in tasks]
    return [
        repr(task)
        for task, coroutine in coroutines
        if isinstance(coroutine, CoroutineType) and coroutine.cr_code.co_filename.startswith(package)
    ]

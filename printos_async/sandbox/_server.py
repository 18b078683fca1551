"""A uvicorn server inside the caller's event loop: its own socket, no signal handlers, no logging settings."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ._app import CONNECTION_EXTENSION

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp

_GRACE_S = 0.5
# l_onoff and l_linger are ints everywhere but on Windows.
_LINGER_0 = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol, which puts itself into the scope: a socket can do more than ASGI.

    Attributes:
        on_lost: Called when the connection is lost.
    """

    def __init__(self, *args: Any, server: SandboxServer, **settings: Any) -> None:
        super().__init__(*args, **settings)
        # Set here: the setting of uvicorn's Config would change the process's loggers.
        self.access_log = False
        self.on_lost: Callable[[], None] | None = None
        self._sandbox_server = server

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._sandbox_server.count_connection()
        if self._sandbox_server.is_stopping:
            # Accepted, or in its TLS handshake, just when the server stopped.
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._sandbox_server.uncount_connection()
        if self.on_lost is not None:
            self.on_lost()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {CONNECTION_EXTENSION: self}  # type: ignore[dict-item]

    def is_closing(self) -> bool:
        """Return whether the connection is closed or about to be."""
        return self.transport.is_closing()

    def peer_has_left(self) -> bool:
        """Return whether the client has closed its side."""
        if self.transport.is_closing():
            return True
        wrapped = self.transport.get_extra_info("socket")
        # A second socket object over the same descriptor: asyncio's wrapper does not peek.
        raw = socket.socket(fileno=wrapped.fileno())
        try:
            return raw.recv(1, socket.MSG_PEEK) == b""
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True
        finally:
            raw.detach()

    def reset(self) -> None:
        """Close with a RST, unless the client has left already."""
        if self.transport.is_closing():
            return
        wrapped = self.transport.get_extra_info("socket")
        wrapped.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        self.transport.abort()

    def write_and_close(self, data: bytes) -> None:
        """Write bytes as they are, then close."""
        self.transport.write(data)
        self.transport.close()

    def finish(self) -> None:
        """Close politely where nothing is under way, else at once."""
        # The cycle is None before the first request, whatever uvicorn's annotation says.
        if getattr(self.cycle, "response_complete", True):
            self.transport.close()
        else:
            self.transport.abort()


class SandboxServer:
    """One listening socket and its connections.

    Attributes:
        accepted: How many connections it has accepted.
        open: How many of them are open.
        is_stopping: It wants no more connections.

    Args:
        app: What it serves.
        host: Address to listen on.
        port: Port to listen on; 0 for a free one.
        on_change: Called after each connection's start and end.
        settings: Further settings of uvicorn.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str,
        port: int,
        on_change: Callable[[], None],
        **settings: Any,
    ) -> None:
        self.accepted = 0
        self.open = 0
        self.is_stopping = False
        self._none_left = asyncio.Event()
        self._none_left.set()
        self._on_change = on_change
        self._host = host
        self._port = port
        self._config = uvicorn.Config(
            app,
            http=partial(Connection, server=self),  # type: ignore[arg-type]  # called as the class is
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            proxy_headers=False,
            date_header=False,  # the sandbox's own follows its clock
            **settings,
        )
        self._server = uvicorn.Server(self._config)

    def count_connection(self) -> None:
        """Count a new connection."""
        self.accepted += 1
        self.open += 1
        self._none_left.clear()
        self._on_change()

    def uncount_connection(self) -> None:
        """Count a connection's end."""
        self.open -= 1
        if not self.open:
            self._none_left.set()
        self._on_change()

    async def start(self) -> int:
        """Listen, and give the port."""
        self._config.load()
        listener = _bind(self._host, self._port)
        try:
            port: int = listener.getsockname()[1]
            self._server.lifespan = self._config.lifespan_class(self._config)
            # startup() alone: serve() would install signal handlers and poll ten times a second.
            await self._server.startup(sockets=[listener])
        except BaseException:
            listener.close()
            raise
        return port

    async def stop(self) -> None:
        """Stop listening, close what is idle and break off what is under way; takes a second at most."""
        self.is_stopping = True
        for server in self._server.servers:
            server.close()
        state = self._server.server_state
        for protocol in list(state.connections):
            protocol.finish()  # type: ignore[union-attr]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_S):
                await self._none_left.wait()
        # A TLS client need not answer a polite farewell.
        for protocol in list(state.connections):
            protocol.transport.abort()
        if sys.version_info >= (3, 13):
            for server in self._server.servers:
                server.abort_clients()
        await self._none_left.wait()
        for task in list(state.tasks):
            task.cancel()
        while state.tasks:
            await asyncio.wait(list(state.tasks))
        # From Python 3.12 on this waits for handshakes too, which a silent client can draw out.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_S):
                for server in self._server.servers:
                    await server.wait_closed()


def _bind(host: str, port: int) -> socket.socket:
    # Bound here, so that the port is known and an address in use is the caller's OSError, not an exit. The
    # protocol is named, because asyncio sets TCP_NODELAY only where it is; without, an answer with a body
    # waits for the client's delayed acknowledgement.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except BaseException:
        listener.close()
        raise
    return listener

"""The sandbox: the service, served on a socket while its async context manager is entered."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Self

from starlette.applications import Starlette
from starlette.routing import Mount

from printos_async._errors import ConfigurationError

from ._answers import ServerClock
from ._app import Api, Gates
from ._auth import Gatekeeper, accepted
from ._exchange import Traffic
from ._faults import Faults
from ._operations import Operations
from ._plan import FaultPlan
from ._schema import SCHEMA
from ._server import SandboxServer
from ._service import Service
from ._state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType


class Sandbox(Service):
    """A server of the PrintOS Device API for tests. It is in memory, and records what it receives.

    ::

        async with Sandbox() as sandbox:
            ...  # talk to sandbox.url
            assert sandbox.devices["dev-1"].status == {"status": "DS_ON"}

    Entering starts a server in the running event loop; leaving stops it within a second, even if requests hang. The
    records stay readable afterwards, and the sandbox may be entered again. All of it belongs to one event loop and is
    not thread-safe.

    Args:
        faults: The faults and their shares; none by default.
        hmac_keys: Secret by key. If given, requests need a valid signature (or a token, if there are logins too).
        device_keys: Key and secret by device. Such a key is valid only for the status of its device, and for requests
            that concern no device. May be combined with ``hmac_keys``.
        logins: Password by login. If given, requests need a session token (or a signature, see above). Without logins
            any login receives a token, and no request needs one.
        device_logins: Login and password by device. The tokens of such a login are valid only for the status of its
            device, and for requests that concern no device. May be combined with ``logins``.
        token_lifetime_requests: Number of requests for which a token is valid; None for no limit.
        token_lifetime_s: Seconds of ``clock`` for which a token is valid; None for no limit.
        login_path: Path to which ``{"login", "password"}`` is posted for a token.
        host: Address to listen on.
        port: Port to listen on; 0 for a free one.
        certfile: Certificate chain in PEM. If given, the server uses TLS.
        keyfile: The certificate's private key in PEM, unless ``certfile`` contains it.
        keep_alive_s: Seconds after which an idle connection is closed.
        record: Whether to record ``applied`` and ``requests``; counts are always recorded.
        record_limit: Number of the newest entries that these hold at least; they hold twice as many at most.
        record_headers: Whether ``requests`` have their headers, credentials included.
        clock: Returns the seconds since the epoch, for the check of signatures' dates and for the ``Date`` header.
        clock_offset_s: Seconds by which the server's clock is ahead of ``clock``; negative if it is behind.
        date_header: Whether answers have a ``Date`` header.

    Raises:
        ConfigurationError: A setting contradicts another, or is out of range.
    """

    _schema = SCHEMA  # the types of the specification; tests of a next one have others

    def __init__(
        self,
        *,
        faults: Faults | None = None,
        hmac_keys: Mapping[str, str] | None = None,
        device_keys: Mapping[str, tuple[str, str]] | None = None,
        logins: Mapping[str, str] | None = None,
        device_logins: Mapping[str, tuple[str, str]] | None = None,
        token_lifetime_requests: int | None = None,
        token_lifetime_s: float | None = None,
        login_path: str = "/api/aaa/v1/devices/login",
        host: str = "127.0.0.1",
        port: int = 0,
        certfile: Path | None = None,
        keyfile: Path | None = None,
        keep_alive_s: int = 75,
        record: bool = True,
        record_limit: int = 100_000,
        record_headers: bool = False,
        clock: Callable[[], float] = time.time,
        clock_offset_s: float = 0.0,
        date_header: bool = True,
    ) -> None:
        if keyfile is not None and certfile is None:
            raise ConfigurationError("keyfile: a key without a certificate")
        if record_limit < 1:
            raise ConfigurationError("record_limit: at least 1; record=False records nothing")
        self._clock = ServerClock(clock, clock_offset_s, date_header)
        self._gatekeeper = Gatekeeper(
            self._clock,
            accepted("device_keys", hmac_keys, device_keys),
            accepted("device_logins", logins, device_logins),
            token_lifetime_requests,
            token_lifetime_s,
        )
        self._state = State(record_limit=record_limit if record else 0)
        self._traffic = Traffic(self._state.changed)
        self._plan = FaultPlan(faults or Faults())
        self._gates = Gates()
        api = Api(
            self._state,
            self._traffic,
            Operations(self._state, self._gatekeeper, login_path, self._schema),
            self._plan,
            self._gates,
            self._gatekeeper,
            self._clock,
            record_headers=record_headers,
        )
        self.app: Starlette = Starlette(routes=[Mount("/", app=api)])
        """The ASGI application, for another server or ``httpx.ASGITransport``.

        Without the sandbox's own server there is no socket to break: a reset and a truncation raise
        ``ConnectionResetError`` out of the application, and a hang lasts until the caller cancels it.
        """
        self._scheme = "https" if certfile else "http"
        self._host = host
        self._port = port
        self._new_server = partial(
            SandboxServer,
            self.app,
            host=host,
            on_change=self._state.changed,
            ssl_certfile=certfile,
            ssl_keyfile=keyfile,
            timeout_keep_alive=keep_alive_s,
        )
        self._server: SandboxServer | None = None
        self._bound_port: int | None = None

    async def __aenter__(self) -> Self:
        await self._start(self._port)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the server, as entering does, but after ``stop()`` on the same port.

        Raises:
            RuntimeError: It is running already.
            OSError: It cannot listen on this address and port.
        """
        await self._start(self._bound_port or self._port)

    async def stop(self) -> None:
        """Stop the server, as leaving does. Devices, credentials and records stay.

        Requests in flight are broken off, and pending late writes are dropped. Does nothing if it is not running.
        """
        server, self._server = self._server, None
        if server is not None:
            self._state.drop_late()
            await server.stop()

    async def _start(self, port: int) -> None:
        if self._server is not None:
            raise RuntimeError("this sandbox is running already")
        server = self._new_server(port=port)
        self._bound_port = await server.start()
        self._server = server

    @property
    def port(self) -> int:
        """The port on which it listens, or listened last.

        Raises:
            RuntimeError: It was never started.
        """
        if self._bound_port is None:
            raise RuntimeError("the sandbox has no address before it is entered")
        return self._bound_port

    @property
    def url(self) -> str:
        """The base URL, such as ``http://127.0.0.1:40123``.

        Raises:
            RuntimeError: It was never started.
        """
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{self._scheme}://{host}:{self.port}"

    @property
    def connections_count(self) -> int:
        """Number of connections that the running server has accepted."""
        return self._server.accepted if self._server is not None else 0

    @property
    def open_connections(self) -> int:
        """Number of open connections."""
        return self._server.open if self._server is not None else 0

"""The sandbox's face: an ASGI application, and an async context manager that serves it on a socket."""

from __future__ import annotations

import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from starlette.applications import Starlette
from starlette.routing import Mount

from printos_async._errors import ConfigurationError

from ._app import Api
from ._auth import Gatekeeper
from ._faults import Faults
from ._operations import Operations
from ._plan import FaultPlan
from ._server import SandboxServer
from ._state import State
from ._traffic import Traffic

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from ._faults import FaultKind, Operation
    from ._records import AppliedStatus, RecordedRequest, SandboxDevice


class Sandbox:
    """A PrintOS Device API that keeps everything in memory and tells what it saw.

    ::

        async with Sandbox() as sandbox:
            ...  # talk to sandbox.url
            assert sandbox.devices["dev-1"].status == {"status": "DS_ON"}

    Entering starts a server in the running event loop; leaving stops it within a second, requests that hang
    included. What was recorded stays readable afterwards, and the sandbox may be entered again. All of it
    belongs to one event loop and is not thread-safe.

    Args:
        faults: What goes wrong; nothing by default.
        hmac_keys: Secret by key. Given, requests need a valid signature (or a token, if ``logins`` are given too).
        logins: Password by login. Given, requests need a session token (or a signature, see above). Without it
            any credentials get a token, and no token is asked for.
        token_lifetime_requests: How many requests a token is good for; None for any number.
        login_path: Where ``{"login", "password"}`` is posted for a token.
        host: Address to listen on.
        port: Port to listen on; 0 for a free one.
        certfile: Certificate chain in PEM; given, the server speaks TLS.
        keyfile: The certificate's private key in PEM, unless it stands in ``certfile``.
        keep_alive_s: Seconds after which an idle connection is closed.
        record: Whether ``applied`` and ``requests`` are kept; the counts always are.
        record_limit: How many of the newest entries these keep at least; they hold twice as many at most.
        record_headers: Whether ``requests`` keep their headers, credentials included.
        clock: Seconds since the epoch, against which signatures' dates are checked.

    Raises:
        ConfigurationError: A setting contradicts another, or is out of range.
    """

    def __init__(
        self,
        *,
        faults: Faults | None = None,
        hmac_keys: Mapping[str, str] | None = None,
        logins: Mapping[str, str] | None = None,
        token_lifetime_requests: int | None = None,
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
    ) -> None:
        if keyfile is not None and certfile is None:
            raise ConfigurationError("keyfile: a key without a certificate")
        if record_limit < 1:
            raise ConfigurationError("record_limit: at least 1; record=False records nothing")
        if token_lifetime_requests is not None and token_lifetime_requests < 1:
            raise ConfigurationError("token_lifetime_requests: at least 1")
        self._host = host
        self._port = port
        self._certfile = certfile
        self._keyfile = keyfile
        self._keep_alive_s = keep_alive_s
        self._state = State(record_limit=record_limit if record else 0)
        self._traffic = Traffic(self._state)
        self._gatekeeper = Gatekeeper(
            hmac_keys=hmac_keys, logins=logins, token_lifetime_requests=token_lifetime_requests, clock=clock
        )
        self._plan = FaultPlan(faults or Faults())
        self._operations = Operations(state=self._state, gatekeeper=self._gatekeeper, login_path=login_path)
        self._api = Api(
            state=self._state,
            traffic=self._traffic,
            operations=self._operations,
            plan=self._plan,
            record_headers=record_headers,
        )
        self._server: SandboxServer | None = None
        self._bound_port: int | None = None
        self.app: Starlette = Starlette(routes=[Mount("/", app=self._api)])
        """The ASGI application, for another server or ``httpx.ASGITransport``.

        Without the sandbox's own server there is no socket to break: a reset and a truncation raise
        ``ConnectionResetError`` out of the application, and a hang lasts until the caller cancels it.
        """

    async def __aenter__(self) -> Self:
        if self._server is not None:
            raise RuntimeError("this sandbox is running already")
        server = SandboxServer(
            self.app,
            host=self._host,
            port=self._port,
            certfile=self._certfile,
            keyfile=self._keyfile,
            keep_alive_s=self._keep_alive_s,
            on_change=self._state.changed,
        )
        self._bound_port = await server.start()
        self._server = server
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        server, self._server = self._server, None
        if server is not None:
            self._state.drop_late()
            await server.stop()

    # Where it is

    @property
    def port(self) -> int:
        """The port it listens on, or listened on last.

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
        return f"{'https' if self._certfile else 'http'}://{host}:{self.port}"

    # What it knows

    @property
    def devices(self) -> Mapping[str, SandboxDevice]:
        """The devices by id, in the order in which they came."""
        return MappingProxyType(self._state.devices)

    @property
    def applied(self) -> Sequence[AppliedStatus]:
        """The writes in the order in which they were applied; the newest ``record_limit`` of them at least."""
        return self._state.applied

    @property
    def applied_count(self) -> int:
        """How many writes were applied, recorded or not."""
        return self._state.applied_count

    @property
    def pending_late_writes(self) -> int:
        """How many accepted writes are still to be applied late."""
        return self._state.late_count

    # What it saw

    @property
    def requests(self) -> Sequence[RecordedRequest]:
        """The requests in the order of arrival; the newest ``record_limit`` of them at least."""
        return self._state.requests

    @property
    def request_count(self) -> int:
        """How many requests arrived, recorded or not."""
        return self._state.request_count

    @property
    def request_counts(self) -> Counter[tuple[str, str, int]]:
        """Finished requests by method, route (``/devices/{deviceId}/status``) and status; 0 for no answer."""
        return self._state.request_counts

    @property
    def in_flight(self) -> int:
        """Requests that are neither answered nor given up by their client."""
        return self._traffic.in_flight

    @property
    def in_flight_by_device(self) -> Mapping[str, int]:
        """Status updates in flight, of the devices that have any."""
        return self._traffic.in_flight_by_device

    @property
    def max_concurrency(self) -> int:
        """The most requests that were in flight at once."""
        return self._traffic.max_concurrency

    @property
    def max_in_flight_by_device(self) -> Mapping[str, int]:
        """The most status updates that were in flight at once, by device."""
        return MappingProxyType(self._traffic.max_in_flight_by_device)

    @property
    def logins_count(self) -> int:
        """How many well-formed login requests were served, refused ones included."""
        return self._operations.logins_count

    @property
    def connections_count(self) -> int:
        """How many connections the running server has accepted."""
        return self._server.connections.accepted if self._server is not None else 0

    @property
    def open_connections(self) -> int:
        """How many of them are open."""
        return self._server.connections.open if self._server is not None else 0

    # What a test can do

    def add_device(
        self,
        device_id: str,
        *,
        model: str = "Sandbox press",
        serial_number: str | None = None,
        location: str | None = None,
    ) -> SandboxDevice:
        """Register a device without HTTP; its serial number is its id unless given.

        A device of the same model and serial number is replaced, as a POST would.
        """
        return self._state.add(
            device_id,
            model=model,
            serial_number=device_id if serial_number is None else serial_number,
            location=location,
        )

    def set_faults(self, faults: Faults) -> None:
        """Let other things go wrong from the next request on; draws start from the beginning."""
        self._plan.use(faults)

    def inject(
        self,
        kind: FaultKind,
        *,
        times: int = 1,
        operation: Operation | None = None,
        device_id: str | None = None,
    ) -> None:
        """Make the next ``times`` matching requests suffer one fault, whatever the shares say.

        Args:
            kind: The fault; its details (``retry_after``, ``malformed_kinds``...) are those of the faults in force.
            times: How many requests.
            operation: Only requests of this operation.
            device_id: Only status updates of this device.

        Raises:
            ConfigurationError: There is no such fault.
        """
        self._plan.inject(kind, times=times, operation=operation, device_id=device_id)

    async def block(self, device_id: str | None = None) -> None:
        """Hold status updates of one device, or of all, from now on: neither applied nor answered.

        They count as in flight. They are applied when released, their clients still there or not.
        """
        self._api.gates.close(device_id)

    async def release(self, device_id: str | None = None) -> None:
        """Let the updates of one device go, or without a device every update that is held."""
        self._api.gates.open(device_id)

    async def wait_for(self, predicate: Callable[[], object], *, timeout_s: float = 10.0) -> None:
        """Return once ``predicate()`` is true; it is asked after every arrival, answer, write and connection.

        Raises:
            TimeoutError: It did not come true in time.
        """
        await self._state.wait_for(predicate, timeout_s=timeout_s)

    def apply_late_writes(self) -> None:
        """Apply now, in order of arrival, every write that waits to be applied late."""
        self._state.apply_late_now()

    def expire_tokens(self) -> None:
        """Refuse every session token handed out so far with 401."""
        self._gatekeeper.expire_tokens()

    def reset(self) -> None:
        """Forget statuses, records, counts, waiting late writes and injected faults; devices and tokens stay."""
        self._state.reset()
        self._traffic.reset()
        self._plan.restart()
        self._operations.logins_count = 0

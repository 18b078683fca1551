"""The sandbox without its socket: the service in memory, and what a test does to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.routing import Mount

from printos_async._errors import ConfigurationError

from ._app import Api
from ._exchange import Traffic
from ._observation import Observation
from ._operations import Operations
from ._plan import FaultPlan
from ._schema import SCHEMA
from ._state import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._auth import Gatekeeper
    from ._clock import ServerClock
    from ._faults import FaultKind, Faults, Operation
    from ._records import SandboxDevice
    from ._schema import Schema


class Service(Observation):
    """PrintOS in memory. ``Sandbox`` describes the arguments; ``schema`` has the types of the specification."""

    def __init__(
        self,
        *,
        faults: Faults,
        gatekeeper: Gatekeeper,
        clock: ServerClock,
        login_path: str,
        record: bool,
        record_limit: int,
        record_headers: bool,
        schema: Schema = SCHEMA,
    ) -> None:
        if record_limit < 1:
            raise ConfigurationError("record_limit: at least 1; record=False records nothing")
        self._state = State(record_limit=record_limit if record else 0)
        self._traffic = Traffic(self._state.changed)
        self._gatekeeper = gatekeeper
        self._clock = clock
        self._plan = FaultPlan(faults)
        self._api = Api(
            self._state,
            self._traffic,
            Operations(self._state, gatekeeper, login_path, schema),
            self._plan,
            gatekeeper,
            clock,
            record_headers=record_headers,
        )
        self.app: Starlette = Starlette(routes=[Mount("/", app=self._api)])
        """The ASGI application, for another server or ``httpx.ASGITransport``.

        Without the sandbox's own server there is no socket to break: a reset and a truncation raise
        ``ConnectionResetError`` out of the application, and a hang lasts until the caller cancels it.
        """

    # Actions of a test

    def add_device(
        self,
        device_id: str,
        *,
        model: str = "Sandbox press",
        serial_number: str | None = None,
        location: str | None = None,
    ) -> SandboxDevice:
        """Register a device without HTTP. By default its serial number is its identifier.

        As with a POST, a device of the same model and serial number is replaced.
        """
        given = {
            "model": model,
            "serialNumber": device_id if serial_number is None else serial_number,
            "location": location,
        }
        return self._state.add(device_id, {name: value for name, value in given.items() if value is not None})

    def remove_device(self, device_id: str) -> None:
        """Remove a device: from now on its status updates are answered with 404.

        Raises:
            ConfigurationError: There is no such device.
        """
        self._state.remove(device_id)

    def set_faults(self, faults: Faults) -> None:
        """Replace the faults from the next request on; the random draws start again from the seed."""
        self._plan.use(faults)

    def inject(
        self,
        kind: FaultKind,
        *,
        times: int = 1,
        operation: Operation | None = None,
        device_id: str | None = None,
    ) -> None:
        """Make the next ``times`` matching requests suffer one fault, independently of the shares.

        Args:
            kind: The fault; its details (``retry_after``, ``malformed_kinds``...) are those of the current faults.
            times: Number of requests.
            operation: Only requests of this operation.
            device_id: Only status updates of this device.

        Raises:
            ConfigurationError: There is no such fault.
        """
        self._plan.inject(kind, times=times, operation=operation, device_id=device_id)

    async def block(self, device_id: str | None = None) -> None:
        """Hold status updates of one device, or of all, from now on: they are neither applied nor answered.

        They count as in flight. They are applied when released, even if their clients have closed the connection.
        """
        self._api.gates.close(device_id)

    async def release(self, device_id: str | None = None) -> None:
        """Release the held updates of one device, or without a device all held updates."""
        self._api.gates.open(device_id)

    async def wait_for(self, predicate: Callable[[], object], *, timeout_s: float = 10.0) -> None:
        """Return once ``predicate()`` is true. It is called after each arrival, answer, write and connection.

        Raises:
            TimeoutError: It was not true in time.
        """
        await self._state.wait_for(predicate, timeout_s=timeout_s)

    def apply_late_writes(self) -> None:
        """Apply all pending late writes now, in the order of their arrival."""
        self._state.apply_late_now()

    # Credentials and clock

    def set_key(self, key: str, secret: str, *, device_id: str | None = None) -> None:
        """Add an HMAC key or change its secret: signatures with another secret are refused from now on.

        Args:
            key: The key.
            secret: Its secret.
            device_id: The only device for whose status it is valid. None does not change this for a known key, and
                makes a new key valid for all devices.
        """
        self._gatekeeper.set_key(key, secret, device_id=device_id)

    def remove_key(self, key: str) -> None:
        """Refuse an HMAC key from now on.

        Raises:
            ConfigurationError: There is no such key.
        """
        self._gatekeeper.remove_key(key)

    def set_login(self, login: str, password: str, *, device_id: str | None = None) -> None:
        """Add a login or change its password; earlier tokens stay valid.

        Args:
            login: The login.
            password: Its password.
            device_id: The only device for whose status its tokens are valid. None does not change this for a known
                login, and makes a new login valid for all devices.
        """
        self._gatekeeper.set_login(login, password, device_id=device_id)

    def remove_login(self, login: str) -> None:
        """Refuse a login and its tokens from now on.

        Raises:
            ConfigurationError: There is no such login.
        """
        self._gatekeeper.remove_login(login)

    def expire_tokens(self, *, login: str | None = None, device_id: str | None = None) -> None:
        """Refuse earlier session tokens with 401: all, those of one login, or those of one device."""
        self._gatekeeper.expire_tokens(login=login, device_id=device_id)

    @property
    def clock_offset_s(self) -> float:
        """Seconds by which the server's clock is ahead of ``clock``; may be set while it runs."""
        return self._clock.offset_s

    @clock_offset_s.setter
    def clock_offset_s(self, seconds: float) -> None:
        self._clock.offset_s = seconds

    @property
    def date_header(self) -> bool:
        """Whether answers have a ``Date`` header; may be set while it runs."""
        return self._clock.date_header

    @date_header.setter
    def date_header(self, value: bool) -> None:
        self._clock.date_header = value

    def reset(self) -> None:
        """Delete statuses, records, counts, pending late writes and injected faults; devices and tokens stay."""
        self._state.reset()
        self._traffic.reset()
        self._plan.restart()
        self._gatekeeper.reset()

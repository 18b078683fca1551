"""What tests read of the sandbox, and what they do to it."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Mapping, Sequence

    from ._answers import ServerClock
    from ._app import Gates
    from ._auth import Gatekeeper, RefusalCause
    from ._exchange import Traffic
    from ._faults import FaultKind, Faults, Operation
    from ._plan import FaultPlan
    from ._records import AppliedStatus, RecordedRequest, SandboxDevice
    from ._state import State


class Service:
    """PrintOS in memory: ``Sandbox`` without its arguments and its socket."""

    _state: State
    _traffic: Traffic
    _gatekeeper: Gatekeeper
    _clock: ServerClock
    _plan: FaultPlan
    _gates: Gates

    # State

    @property
    def devices(self) -> Mapping[str, SandboxDevice]:
        """The devices by identifier, in the order of registration."""
        return MappingProxyType(self._state.devices)

    @property
    def applied(self) -> Sequence[AppliedStatus]:
        """The writes in the order in which they were applied; at least the newest ``record_limit`` of them."""
        return self._state.applied

    @property
    def applied_count(self) -> int:
        """Number of writes that were applied, recorded or not."""
        return self._state.applied_count

    @property
    def pending_late_writes(self) -> int:
        """Number of late writes that have not been applied yet."""
        return self._state.late_count

    # Records

    @property
    def requests(self) -> Sequence[RecordedRequest]:
        """The requests in the order of arrival; at least the newest ``record_limit`` of them."""
        return self._state.requests

    @property
    def request_count(self) -> int:
        """Number of requests that arrived, recorded or not."""
        return self._state.request_count

    @property
    def request_counts(self) -> Counter[tuple[str, str, int]]:
        """Finished requests by method, route (``/devices/{deviceId}/status``) and status code; 0 for no answer."""
        return self._state.request_counts

    @property
    def in_flight(self) -> int:
        """Number of requests that are neither answered nor given up by their client."""
        return self._traffic.in_flight

    @property
    def in_flight_by_device(self) -> Mapping[str, int]:
        """Number of status updates in flight, by device; only devices with at least one."""
        return self._traffic.in_flight_by_device

    @property
    def max_concurrency(self) -> int:
        """Maximum number of requests that were in flight at once."""
        return self._traffic.max_concurrency

    @property
    def max_in_flight_by_device(self) -> Mapping[str, int]:
        """Maximum number of status updates that were in flight at once, by device."""
        return MappingProxyType(self._traffic.max_in_flight_by_device)

    @property
    def logins_count(self) -> int:
        """Number of well-formed login requests that were processed, refused ones included."""
        return self._gatekeeper.logins_by_login.total()

    @property
    def logins_by_login(self) -> Counter[str]:
        """Number of well-formed login requests, by login."""
        return self._gatekeeper.logins_by_login

    @property
    def logins_in_flight(self) -> int:
        """Number of logins that are neither answered nor given up by their client."""
        return self._traffic.logins_in_flight

    @property
    def max_logins_in_flight(self) -> int:
        """Maximum number of logins that were in flight at once."""
        return self._traffic.max_logins_in_flight

    @property
    def foreign_tokens_count(self) -> int:
        """Number of requests with a token of another device, refused or not."""
        return self._gatekeeper.foreign_tokens_count

    @property
    def refusals(self) -> Counter[RefusalCause]:
        """Number of requests and logins whose credentials were refused, by cause."""
        return self._gatekeeper.refusals

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
            times: Number of requests, at least 1.
            operation: Only requests of this operation.
            device_id: Only status updates of this device.

        Raises:
            ConfigurationError: There is no such fault, or ``times`` is less than 1.
        """
        self._plan.inject(kind, times=times, operation=operation, device_id=device_id)

    async def block(self, device_id: str | None = None) -> None:
        """Hold status updates of one device, or of all, from now on: they are neither applied nor answered.

        They count as in flight. They are applied when released, even if their clients have closed the connection.
        """
        self._gates.close(device_id)

    async def release(self, device_id: str | None = None) -> None:
        """Release the held updates of one device, or without a device all held updates."""
        self._gates.open(device_id)

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

"""The sandbox without its socket: the service in memory, what it saw, and what a test does to it."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.routing import Mount

from printos_async._errors import ConfigurationError

from ._app import Api
from ._auth import Gatekeeper
from ._operations import Operations
from ._plan import FaultPlan
from ._state import State
from ._traffic import Traffic

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Mapping, Sequence

    from ._faults import FaultKind, Faults, Operation
    from ._records import AppliedStatus, RecordedRequest, SandboxDevice


class Service:
    """PrintOS in memory; ``Sandbox`` says what the arguments are."""

    def __init__(
        self,
        *,
        faults: Faults,
        hmac_keys: Mapping[str, str] | None,
        logins: Mapping[str, str] | None,
        token_lifetime_requests: int | None,
        login_path: str,
        record: bool,
        record_limit: int,
        record_headers: bool,
        clock: Callable[[], float],
    ) -> None:
        if record_limit < 1:
            raise ConfigurationError("record_limit: at least 1; record=False records nothing")
        if token_lifetime_requests is not None and token_lifetime_requests < 1:
            raise ConfigurationError("token_lifetime_requests: at least 1")
        self._state = State(record_limit=record_limit if record else 0)
        self._traffic = Traffic(self._state)
        self._gatekeeper = Gatekeeper(
            hmac_keys=hmac_keys, logins=logins, token_lifetime_requests=token_lifetime_requests, clock=clock
        )
        self._plan = FaultPlan(faults)
        self._operations = Operations(state=self._state, gatekeeper=self._gatekeeper, login_path=login_path)
        self._api = Api(
            state=self._state,
            traffic=self._traffic,
            operations=self._operations,
            plan=self._plan,
            record_headers=record_headers,
        )
        self.app: Starlette = Starlette(routes=[Mount("/", app=self._api)])
        """The ASGI application, for another server or ``httpx.ASGITransport``.

        Without the sandbox's own server there is no socket to break: a reset and a truncation raise
        ``ConnectionResetError`` out of the application, and a hang lasts until the caller cancels it.
        """

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
        given = {
            "model": model,
            "serialNumber": device_id if serial_number is None else serial_number,
            "location": location,
        }
        return self._state.add(device_id, {name: value for name, value in given.items() if value is not None})

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

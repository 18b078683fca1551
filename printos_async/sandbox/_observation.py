"""What the sandbox knows and what it saw, for tests to read."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping, Sequence

    from ._auth import Gatekeeper, RefusalCause
    from ._operations import Operations
    from ._records import AppliedStatus, RecordedRequest, SandboxDevice
    from ._state import State
    from ._traffic import Traffic


class Observation:
    """The readable side of ``Sandbox``."""

    _state: State
    _traffic: Traffic
    _gatekeeper: Gatekeeper
    _operations: Operations

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
    def logins_by_login(self) -> Counter[str]:
        """The same by the login that they named."""
        return self._gatekeeper.logins_by_login

    @property
    def logins_in_flight(self) -> int:
        """Logins that are neither answered nor given up by their client."""
        return self._traffic.logins_in_flight

    @property
    def max_logins_in_flight(self) -> int:
        """The most logins that were in flight at once."""
        return self._traffic.max_logins_in_flight

    @property
    def foreign_tokens_count(self) -> int:
        """How many requests came with a token of another device, whatever became of them."""
        return self._gatekeeper.foreign_tokens_count

    @property
    def refusals(self) -> Counter[RefusalCause]:
        """How many requests and logins were refused for their credentials, by cause."""
        return self._gatekeeper.refusals

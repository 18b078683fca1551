"""State and records of the sandbox, for tests to read."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping, Sequence

    from ._auth import Gatekeeper, RefusalCause
    from ._exchange import Traffic
    from ._records import AppliedStatus, RecordedRequest, SandboxDevice
    from ._state import State


class Observation:
    """The readable side of ``Sandbox``."""

    _state: State
    _traffic: Traffic
    _gatekeeper: Gatekeeper

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

"""Records of the sandbox: devices, applied statuses and requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define, field, frozen

from ._schema import SCHEMA

if TYPE_CHECKING:
    from datetime import datetime

    from ._faults import FaultKind, Operation

T = TypeVar("T")


@define
class SandboxDevice:
    """A device that is registered at the sandbox.

    Attributes:
        id: Identifier in the path of status updates.
        model: As provisioned; None if the request did not have it.
        serial_number: As provisioned; None if the request did not have it.
        location: As provisioned; None if the request did not have it.
        registered_at: Time of its registration, in UTC.
        status: The body of the last PUT that was applied, or None.
        updates: Number of PUTs that were applied.
        properties: The body of the POST that provisioned it.
    """

    id: str
    model: str | None
    serial_number: str | None
    location: str | None
    registered_at: datetime
    status: dict[str, Any] | None = None
    updates: int = 0
    properties: dict[str, Any] = field(factory=dict, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return the specification's ``PrintDevice``. Unknown fields are omitted; required ones get made-up values."""
        return SCHEMA.device_to_json(self)


@frozen
class AppliedStatus:
    """One write, in the order in which writes were applied.

    Attributes:
        sequence: 1 for the first write since the start or the last ``reset()``.
        device_id: The device.
        status: The body as received.
        at_s: Time of the write, by ``time.monotonic()``.
        late: Whether the client was answered, or had closed the connection, before the write.
    """

    sequence: int
    device_id: str
    status: dict[str, Any]
    at_s: float
    late: bool


@define
class RecordedRequest:
    """One request, in the order of arrival.

    Attributes:
        sequence: 1 for the first request since the start or the last ``reset()``.
        method: The HTTP method.
        path: The path as it was sent, without the query.
        operation: The operation; None if there is none with this method and path.
        device_id: The device of a status update, otherwise None.
        at_s: Time of arrival, by ``time.monotonic()``.
        status: The status code of the answer; None if there is no answer, or not yet.
        fault: The fault that it suffered, or None.
        headers: The headers as received, names in lower case; emptied when the request ends, unless the sandbox was
            created with ``record_headers``.
    """

    sequence: int
    method: str
    path: str
    operation: Operation | None
    device_id: str | None
    at_s: float
    status: int | None = None
    fault: FaultKind | None = None
    headers: list[tuple[bytes, bytes]] = field(factory=list, repr=False)


class Record(list[T]):
    """The last entries of something: at least ``limit`` of them, at most twice as many."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def append(self, entry: T) -> None:
        """Add the newest entry; the oldest may go."""
        super().append(entry)
        # Halving now and then is cheaper than a deque that cannot be sliced.
        if len(self) > 2 * self._limit:
            del self[: -self._limit or None]

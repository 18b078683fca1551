"""What the sandbox remembers: devices, the order of writes, requests, and who waits for a change."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeVar, overload

from attrs import define, field, frozen

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._faults import FaultKind, Operation

T = TypeVar("T")


@define
class SandboxDevice:
    """A device as the sandbox knows it.

    Attributes:
        id: Identifier in the path of status updates.
        model: As provisioned; None where the request left it out, like the next two.
        serial_number: As provisioned.
        location: As provisioned.
        registered_at: When it was provisioned, in UTC.
        status: The body of the newest PUT that was applied, or None.
        updates: How many PUTs were applied.
    """

    id: str
    model: str | None
    serial_number: str | None
    location: str | None
    registered_at: datetime
    status: dict[str, Any] | None = None
    updates: int = 0

    def to_json(self) -> dict[str, str]:
        """Give the specification's ``PrintDevice``; what is unknown is left out."""
        values = {
            "id": self.id,
            "model": self.model,
            "serialNumber": self.serial_number,
            "status": (self.status or {}).get("status"),
            "registeredAt": self.registered_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        return {name: value for name, value in values.items() if value is not None}


@frozen
class AppliedStatus:
    """One write, in the order in which writes were applied.

    Attributes:
        sequence: 1 for the first write since the start or the last ``reset()``.
        device_id: The device written to.
        status: The body as received.
        at_s: When, on ``time.monotonic()``.
        late: True if the client had been answered, or had gone, before the write.
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
        operation: What it asked for, or None where nothing of that path and method exists.
        device_id: The device of a status update, else None.
        at_s: When it arrived, on ``time.monotonic()``.
        status: The status it was answered with; None while, or if ever since, it is unanswered.
        fault: What befell it, or None.
        headers: The headers as they came, names in lower case.
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


class Record(Sequence[T]):
    """The last entries of something: at least ``limit`` of them, at most twice as many."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: list[T] = []

    def append(self, entry: T) -> None:
        """Add the newest entry; the oldest may go."""
        self._entries.append(entry)
        # Halving now and then is cheaper than a deque that cannot be sliced.
        if len(self._entries) > 2 * self._limit:
            del self._entries[: -self._limit or None]

    def clear(self) -> None:
        """Forget all entries."""
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        return self._entries[index]

    def __repr__(self) -> str:
        return f"Record({self._entries!r})"


class State:
    """Devices and records; every change wakes those whose condition has come true."""

    def __init__(self, *, record_limit: int) -> None:
        self.devices: dict[str, SandboxDevice] = {}
        self.applied: Record[AppliedStatus] = Record(record_limit)
        self.requests: Record[RecordedRequest] = Record(record_limit)
        self.request_counts: Counter[tuple[str, str, int]] = Counter()
        self.applied_count = 0
        self.request_count = 0
        self._ids: dict[tuple[str, str], str] = {}
        self._generations: Counter[tuple[str, str]] = Counter()
        self._late: dict[asyncio.TimerHandle, Callable[[], None]] = {}
        self._waiters: list[tuple[Callable[[], object], asyncio.Future[None]]] = []

    def provision(self, model: str | None, serial_number: str | None, location: str | None) -> SandboxDevice:
        """Make a device; one of the same model and serial number is replaced and its id disappears."""
        identity = (model or "", serial_number or "")
        self._generations[identity] += 1
        # Derived, not counted: which device gets which id must not depend on the order of concurrent requests.
        material = "\0".join((*identity, str(self._generations[identity])))
        digest = blake2b(material.encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()
        return self.add(f"dev-{digest}", model=model, serial_number=serial_number, location=location)

    def add(
        self, device_id: str, *, model: str | None, serial_number: str | None, location: str | None
    ) -> SandboxDevice:
        """Register a device under an id; see ``provision`` for what it replaces."""
        if model is not None and serial_number is not None:
            replaced = self._ids.get((model, serial_number))
            if replaced is not None:
                self.devices.pop(replaced, None)
            self._ids[model, serial_number] = device_id
        device = SandboxDevice(device_id, model, serial_number, location, datetime.now(UTC))
        self.devices[device_id] = device
        self.changed()
        return device

    def apply(self, device_id: str, status: dict[str, Any], *, late: bool) -> None:
        """Write a status; the device may have been replaced since a late one was accepted."""
        device = self.devices.get(device_id)
        if device is None:
            return
        device.status = status
        device.updates += 1
        self.applied_count += 1
        self.applied.append(AppliedStatus(self.applied_count, device_id, status, time.monotonic(), late))
        self.changed()

    def apply_later(self, device_id: str, status: dict[str, Any], *, delay_s: float) -> None:
        """Write a status after a while, as a proxy's queue would."""

        def write() -> None:
            del self._late[handle]
            self.apply(device_id, status, late=True)

        handle = asyncio.get_running_loop().call_later(delay_s, write)
        self._late[handle] = write

    @property
    def late_count(self) -> int:
        """How many late writes wait."""
        return len(self._late)

    def apply_late_now(self) -> None:
        """Apply the waiting late writes in the order of their arrival."""
        for handle, write in list(self._late.items()):
            handle.cancel()
            write()

    def drop_late(self) -> None:
        """Forget the waiting late writes: the server is gone."""
        for handle in self._late:
            handle.cancel()
        self._late.clear()

    def reset(self) -> None:
        """Forget statuses, records, counts and waiting writes; the devices stay."""
        self.drop_late()
        for device in self.devices.values():
            device.status = None
            device.updates = 0
        self.applied.clear()
        self.requests.clear()
        self.request_counts.clear()
        self.applied_count = self.request_count = 0
        self.changed()

    def changed(self) -> None:
        """Wake whoever waits for what is now true."""
        if not self._waiters:
            return
        waiting = []
        for predicate, future in self._waiters:
            if future.done():
                continue
            try:
                met = predicate()
            except Exception as error:  # noqa: BLE001 - it is the waiter's error, not the request's
                future.set_exception(error)
                continue
            if met:
                future.set_result(None)
            else:
                waiting.append((predicate, future))
        self._waiters = waiting

    async def wait_for(self, predicate: Callable[[], object], *, timeout_s: float) -> None:
        """Return once the predicate holds; it is asked again after every change."""
        if predicate():
            return
        future = asyncio.get_running_loop().create_future()
        self._waiters.append((predicate, future))
        async with asyncio.timeout(timeout_s):
            await future

"""What the sandbox remembers, and who waits for a change of it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from printos_async._errors import ConfigurationError

from ._records import AppliedStatus, Record, RecordedRequest, SandboxDevice

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._faults import Operation


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

    def provision(self, properties: dict[str, Any]) -> SandboxDevice:
        """Make a device; one of the same model and serial number is replaced and its id disappears."""
        identity = (properties.get("model", ""), properties.get("serialNumber", ""))
        self._generations[identity] += 1
        # Derived, not counted: which device gets which id must not depend on the order of concurrent requests.
        material = "\0".join((*identity, str(self._generations[identity])))
        digest = blake2b(material.encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()
        return self.add(f"dev-{digest}", properties)

    def add(self, device_id: str, properties: dict[str, Any]) -> SandboxDevice:
        """Register a device under an id; see ``provision`` for what it replaces."""
        if device_id in self.devices:
            self._forget_identity(self.devices[device_id])
        model, serial_number = properties.get("model"), properties.get("serialNumber")
        if model is not None and serial_number is not None:
            replaced = self._ids.get((model, serial_number))
            if replaced is not None:
                self.devices.pop(replaced, None)
            self._ids[model, serial_number] = device_id
        device = SandboxDevice(
            device_id,
            model,
            serial_number,
            properties.get("location"),
            datetime.now(UTC),
            properties=properties,
        )
        self.devices[device_id] = device
        self.changed()
        return device

    def remove(self, device_id: str) -> None:
        """Forget a device."""
        device = self.devices.pop(device_id, None)
        if device is None:
            raise ConfigurationError(f"no device {device_id!r}")
        self._forget_identity(device)
        self.changed()

    def _forget_identity(self, device: SandboxDevice) -> None:
        # Else the next device of this model and serial number would replace whatever has the id by then.
        identity = (device.model or "", device.serial_number or "")
        if self._ids.get(identity) == device.id:
            del self._ids[identity]

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

    def new_request(
        self,
        method: str,
        path: str,
        *,
        operation: Operation | None,
        device_id: str | None,
        headers: list[tuple[bytes, bytes]],
    ) -> RecordedRequest:
        """Number and record a request that has just arrived."""
        self.request_count += 1
        request = RecordedRequest(
            self.request_count, method, path, operation, device_id, time.monotonic(), headers=headers
        )
        self.requests.append(request)
        return request

    def changed(self) -> None:
        """Wake whoever waits for what is now true."""
        waiters, self._waiters = self._waiters, []
        for predicate, future in waiters:
            try:
                if not future.done() and predicate():
                    future.set_result(None)
            except Exception as error:  # noqa: BLE001 - it is the waiter's error, not the request's
                future.set_exception(error)
            if not future.done():
                self._waiters.append((predicate, future))

    async def wait_for(self, predicate: Callable[[], object], *, timeout_s: float) -> None:
        """Return once the predicate holds; it is asked again after every change."""
        if predicate():
            return
        future = asyncio.get_running_loop().create_future()
        self._waiters.append((predicate, future))
        async with asyncio.timeout(timeout_s):
            await future

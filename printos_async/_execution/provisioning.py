"""Provisioning of many devices: concurrent, one result each, and no POST repeated blindly.

PrintOS replaces a device of the same model and serial number, so a POST that may have arrived is
repeated only after a look at the device list. With ``only_missing`` the list is read before the first POST, too.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

from attrs import define, field

from printos_async._errors import (
    APIError,
    ConfigurationError,
    InvalidProvisionRequestError,
    ResponseDecodeError,
)
from printos_async._models import DeviceProvisionRequest, PrintDevice, ProvisionResult

from .attempt import may_repeat
from .listing import list_all
from .retry import is_transient

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from printos_async._api.requests import Call
    from printos_async._transport import RawResponse

    from .channel import Channel

# Model and serial number, by which PrintOS identifies a device.
Identity: TypeAlias = tuple[str, str]


def identity_of(device: DeviceProvisionRequest | PrintDevice) -> Identity | None:
    """Return model and serial number, or None where one of them is missing."""
    if isinstance(device.model, str) and isinstance(device.serial_number, str):
        return device.model, device.serial_number
    return None


async def provision_all(
    channel: Channel, requests: Iterable[DeviceProvisionRequest], *, only_missing: bool = False
) -> list[ProvisionResult]:
    """Provision every request, or those whose device is not registered; see ``PrintOSClient``."""
    requests = list(requests)
    registered = await _read_list(channel) if only_missing and requests else None
    provisioner = _Provisioner(channel, registered)
    results: dict[int, ProvisionResult] = {}
    todo = iter(enumerate(requests))  # shared: each task takes the next one

    async def work() -> None:
        for index, request in todo:
            results[index] = await provisioner.provision(request)

    tasks = [asyncio.create_task(work()) for _ in range(min(channel.executor.limiter.maximum, len(requests)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return [results[index] for index in range(len(requests))]


@define(eq=False)
class _Provisioner:
    """Provisions one device after another, for several tasks.

    Args:
        channel: Where the devices are registered.
        registered: The devices that are not to be registered again; None to register whatever is requested.
    """

    _channel: Channel
    _registered: Mapping[Identity, PrintDevice] | None
    _taken: set[Identity] = field(factory=set)
    # Of the device list, in which devices are looked up.
    _lock: asyncio.Lock = field(factory=asyncio.Lock)
    _asked: int = 0
    _fresh: int = 0  # the number of the list that _devices is from
    _devices: Mapping[Identity, PrintDevice] = field(factory=dict)

    async def provision(self, request: DeviceProvisionRequest) -> ProvisionResult:
        """Provision one device; its failure is a result."""
        try:
            call = self._channel.operations.provision_device(request)
            identity = self._identify(request)
        except InvalidProvisionRequestError as error:
            return ProvisionResult(request, "failed", None, 0, error)
        if self._registered and identity is not None and identity in self._registered:
            await asyncio.sleep(0)  # a fleet that is all registered must not block the event loop
            return ProvisionResult(request, "found", self._registered[identity], 0)
        return await self._send(request, call, identity)

    async def _send(
        self, request: DeviceProvisionRequest, call: Call, identity: Identity | None
    ) -> ProvisionResult:
        failed = 0  # attempts so far

        async def provisioned(response: RawResponse) -> ProvisionResult:
            device = await self._channel.answers.provisioned(response)
            return ProvisionResult(request, "provisioned", device, failed + 1)

        async def look_up(error: APIError) -> ProvisionResult | None:
            nonlocal failed
            failed = error.attempts
            if identity is None or not _may_be_applied(call, error):
                return None
            try:
                found = await self._find(identity)
            except (APIError, ConfigurationError) as unknown:
                error.add_note(f"whether the device was provisioned is not known: {unknown}")
                return ProvisionResult(request, "failed", None, failed, error)
            return None if found is None else ProvisionResult(request, "found", found, failed)

        try:
            return await self._channel.executor.run(
                call, provisioned, recover=look_up, repeat=identity is not None
            )
        except APIError as error:
            return ProvisionResult(request, "failed", None, error.attempts, error)

    def _identify(self, request: DeviceProvisionRequest) -> Identity | None:
        identity = identity_of(request)
        if identity is None:
            if self._registered is None:
                return None
            raise InvalidProvisionRequestError(
                "model and serial number are both needed to find a device that is registered; "
                "provision_device registers one without them"
            )
        if identity in self._taken:
            model, serial_number = identity
            raise InvalidProvisionRequestError(
                f"model {model!a} with serial number {serial_number!a} is there twice: one would replace the other"
            )
        self._taken.add(identity)
        return identity

    async def _find(self, identity: Identity) -> PrintDevice | None:
        """Return the device from a list that is requested after this call, or None.

        Callers that ask while a list is in flight share the next one.
        """
        wanted = self._asked + 1
        async with self._lock:
            if self._fresh < wanted:
                self._asked += 1
                number = self._asked
                self._devices, self._fresh = await _read_list(self._channel), number
        return self._devices.get(identity)


def _may_be_applied(call: Call, error: APIError) -> bool:
    if may_repeat(call, error):
        return False
    return is_transient(error) or isinstance(error, ResponseDecodeError)


async def _read_list(channel: Channel) -> dict[Identity, PrintDevice]:
    """Return the registered devices that have a model and a serial number."""
    devices = await list_all(channel)
    return {identity: device for device in devices if (identity := identity_of(device)) is not None}

"""Provisioning many devices: bounded, a result each, and no device sent twice without a look first.

PrintOS replaces a device of the same model and serial number, so a POST that may have arrived is not repeated
before the device list was asked for it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

from ._errors import APIError, InvalidProvisionRequestError, ResponseDecodeError
from ._exchange import may_repeat
from ._models import DeviceProvisionRequest, PrintDevice, ProvisionResult
from ._retry import is_transient

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ._answers import Answers
    from ._core import Core
    from ._encode import Call
    from ._operations import Operations

# Model and serial number: what PrintOS tells devices apart by.
_Identity: TypeAlias = tuple[str, str]


async def provision_all(
    core: Core, operations: Operations, answers: Answers, requests: Iterable[DeviceProvisionRequest]
) -> list[ProvisionResult]:
    """Provision every request; see ``PrintOSClient.provision_devices``."""
    requests = list(requests)
    results: dict[int, ProvisionResult] = {}
    provisioner = _Provisioner(core, operations, answers)
    todo = iter(enumerate(requests))  # shared: each worker takes the next one

    async def work() -> None:
        for index, request in todo:
            results[index] = await provisioner.provision(request)

    workers = [asyncio.create_task(work()) for _ in range(min(core.limiter.maximum, len(requests)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [results[index] for index in range(len(requests))]


class _Provisioner:
    def __init__(self, core: Core, operations: Operations, answers: Answers) -> None:
        self._core = core
        self._operations = operations
        self._answers = answers
        self._taken: set[_Identity] = set()
        self._lookup = _Lookup(core, operations, answers)

    async def provision(self, request: DeviceProvisionRequest) -> ProvisionResult:
        """Provision one device; its failure is a result."""
        try:
            call = self._operations.provision_device(request)
            identity = self._claim(request)
        except InvalidProvisionRequestError as error:
            return ProvisionResult(request, "failed", None, 0, error)
        attempts = 0
        while True:
            attempts += 1
            try:
                device = await self._core.attempt_in_turn(call, self._answers.provisioned, attempt=attempts)
            except APIError as error:
                error.attempts = attempts if error.attempts else attempts - 1
                failure = error
            else:
                self._core.budget.refund(retried=attempts > 1)
                return ProvisionResult(request, "provisioned", device, attempts)
            delay_s = self._core.retry_delay_s(call, failure, attempt=attempts, repeat=identity is not None)
            if delay_s is not None:
                await asyncio.sleep(delay_s)
            if identity is not None and _may_be_applied(call, failure):
                try:
                    found = await self._lookup.find(identity)
                except APIError as error:
                    failure.add_note(f"whether the device was provisioned is not known: {error}")
                    return ProvisionResult(request, "failed", None, attempts, failure)
                if found is not None:
                    return ProvisionResult(request, "found", found, attempts)
            if delay_s is None or not self._core.take_retry():
                return ProvisionResult(request, "failed", None, attempts, failure)

    def _claim(self, request: DeviceProvisionRequest) -> _Identity | None:
        model, serial_number = request.model, request.serial_number
        if not isinstance(model, str) or not isinstance(serial_number, str):
            return None
        if (model, serial_number) in self._taken:
            raise InvalidProvisionRequestError(
                f"model {model!a} with serial number {serial_number!a} is there twice: one would replace the other"
            )
        self._taken.add((model, serial_number))
        return model, serial_number


def _may_be_applied(call: Call, error: APIError) -> bool:
    if may_repeat(call, error):
        return False
    return is_transient(error) or isinstance(error, ResponseDecodeError)


class _Lookup:
    """Finds devices in the list; those who ask while a list is on its way share the next one."""

    def __init__(self, core: Core, operations: Operations, answers: Answers) -> None:
        self._core = core
        self._operations = operations
        self._answers = answers
        self._lock = asyncio.Lock()
        self._asked = 0
        self._fresh = 0  # the number of the list that _devices is from
        self._devices: dict[_Identity, PrintDevice] = {}

    async def find(self, identity: _Identity) -> PrintDevice | None:
        """Give the device as a list asked for from now on shows it."""
        wanted = self._asked + 1
        async with self._lock:
            if self._fresh < wanted:
                self._asked += 1
                number = self._asked
                devices = await self._core.run(self._operations.list_devices(), self._answers.device_list)
                self._devices, self._fresh = dict(_by_identity(devices)), number
        return self._devices.get(identity)


def _by_identity(devices: Iterable[PrintDevice]) -> Iterator[tuple[_Identity, PrintDevice]]:
    for device in devices:
        if isinstance(device.model, str) and isinstance(device.serial_number, str):
            yield (device.model, device.serial_number), device

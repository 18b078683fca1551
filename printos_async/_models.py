"""Values that callers pass and receive; the generated models are exported from here.

A field of a model that was not set is ``UNSET``. The specification allows no field to be null: a field set to None is
refused, and a null in an answer leaves its field unset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from attrs import define, field, fields, frozen
from printos_device_api.models import (
    DeviceProvisionRequest,
    DeviceStatusUpdate,
    DeviceStatusUpdateMetrics,
    PrintDevice,
    PrintDeviceList,
)
from printos_device_api.types import UNSET, Unset

if TYPE_CHECKING:
    from ._errors import PrintOSError

__all__ = [
    "UNSET",
    "DeviceProvisionRequest",
    "DeviceStatusUpdate",
    "DeviceStatusUpdateMetrics",
    "PrintDevice",
    "PrintDeviceList",
    "ProvisionResult",
    "PushReport",
    "PushResult",
    "StatusPush",
    "Unset",
]

# The specification lets a device come without an identifier, so ``device.id`` is one or unset. Where it is unset it
# is refused; that it may be given spares every caller a check.
DeviceId: TypeAlias = str | Unset

MAX_FAILURES_KEPT = 10_000


def unset_fields(model: Any) -> dict[str, Any]:
    """Return every field of a generated model as ``UNSET``, also those that it requires."""
    return {attribute.name: UNSET for attribute in fields(model) if attribute.init}


class StoredStatus(DeviceStatusUpdate):
    """A status in an outbox that cannot be read as this version's ``DeviceStatusUpdate``.

    All its properties are additional ones, because a required field may be missing.
    """

    def __init__(self, properties: dict[str, Any]) -> None:
        super().__init__(**unset_fields(DeviceStatusUpdate))
        self.additional_properties = properties

    def to_dict(self) -> dict[str, Any]:
        """Return the properties as they were stored."""
        return dict(self.additional_properties)


@frozen
class StatusPush:
    """One status of one device, to be sent.

    Attributes:
        device_id: Identifier that PrintOS gave the device; 1 to 256 characters, no path separators.
        status: The status to send.
    """

    device_id: str
    status: DeviceStatusUpdate


@frozen
class PushResult:
    """Outcome of one status.

    Attributes:
        device_id: The device, as the caller gave it.
        outcome: ``"sent"``: the server answered with a success. ``"superseded"``: a newer status of the same device
            replaced it before it was sent. ``"failed"``: ``error`` says why. If other workers of an outbox handle the
            status, ``"sent"`` may mean that a newer one, put by another process, was sent in its place.
        attempts: Requests made for it; 0 if it was refused or replaced before the first one. If another worker of an
            outbox has handled it, 0 may mean that the number is not known.
        latency_s: Seconds from acceptance to the outcome, waiting and retries included.
        error: The last error of a failed status, otherwise None.
        status: The failed status, so that it can be pushed again; None for other outcomes. If a status in an outbox
            cannot be read as this version's ``DeviceStatusUpdate``, all its properties are in
            ``additional_properties``; if it is not a JSON object, this is None.
        seq: Sequence number; 0 if it was refused. The pusher counts from 1 in the order of acceptance. A shared outbox
            numbers each device's statuses itself, with gaps.
        superseded_by: The sequence number of the newer status that replaced it, otherwise None. Also None if the put
            of the newer status failed, but the outbox may have stored it.
    """

    device_id: str
    outcome: Literal["sent", "superseded", "failed"]
    attempts: int
    latency_s: float
    error: PrintOSError | None = None
    status: DeviceStatusUpdate | None = None
    seq: int = 0
    superseded_by: int | None = None


@define
class PushReport:
    """Report of one ``push_statuses``: ``sent + superseded + failed`` is the number of statuses passed.

    Attributes:
        sent: Statuses that the server acknowledged.
        superseded: Statuses replaced by a newer one of the same device before they were sent.
        failed: Statuses given up; always the exact number.
        failures: The first 10,000 failed results; ``on_result`` of ``push_statuses`` receives every one.
        elapsed_s: Seconds from the first status read to the last outcome.
    """

    sent: int = 0
    superseded: int = 0
    failed: int = 0
    failures: list[PushResult] = field(factory=list)
    elapsed_s: float = 0.0

    def raise_for_failures(self) -> None:
        """Raise an ``ExceptionGroup`` of the failures' errors, or return None if nothing failed.

        Raises:
            ExceptionGroup: One ``PrintOSError`` for each result in ``failures``.
        """
        errors = [result.error for result in self.failures if result.error is not None]
        if errors:
            raise ExceptionGroup(
                f"{self.failed} of {self.sent + self.superseded + self.failed} statuses failed", errors
            )


@frozen
class ProvisionResult:
    """Outcome of one provision request.

    Attributes:
        request: The request, as the caller gave it.
        outcome: ``"provisioned"``: the server answered with the device. ``"found"``: the device list has a device of
            this model and serial number, before anything was sent (``ensure_devices`` only) or after a lost answer.
            ``"failed"``: ``error`` says why.
        device: The device; None if the outcome is ``"failed"``.
        attempts: POST requests made.
        error: The last error of a failed request, otherwise None.
    """

    request: DeviceProvisionRequest
    outcome: Literal["provisioned", "found", "failed"]
    device: PrintDevice | None
    attempts: int
    error: PrintOSError | None = None

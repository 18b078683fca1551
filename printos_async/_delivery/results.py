"""From an engine's outcomes to results and events, and between its devices and an outbox's rows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from printos_async._events import StatusFailed, StatusSent, StatusSuperseded
from printos_async._models import DeviceStatusUpdate, PushResult
from printos_async.outbox.protocol import Release

from .device_state import PendingStatus

if TYPE_CHECKING:
    from printos_async._api.requests import Operations
    from printos_async._errors import PrintOSError
    from printos_async._events import Hooks
    from printos_async.outbox import Claim, Kept

    from .device_state import DeliveryPolicy, DeviceState, Outcome


def make_result(
    pending: PendingStatus,
    outcome: Outcome,
    error: PrintOSError | None,
    superseded_by: int | None,
    *,
    now_s: float,
) -> PushResult:
    """Give the result of one accepted status; a failed one carries its status, so that it can be pushed again."""
    # Built anew from what was accepted: the caller may have changed its object since.
    status = None if error is None else _status_of(pending.call.body)
    device_id = pending.device_id
    latency_s = now_s - pending.accepted_s
    return PushResult(
        device_id, outcome, pending.attempts, latency_s, error, status, pending.seq, superseded_by
    )


def _status_of(body: bytes) -> DeviceStatusUpdate | None:
    """Give the status of an encoded one; all in additional properties if the model cannot be made of it.

    An outbox may hold what another version of this package, or of the specification, has encoded.
    """
    try:
        properties = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(properties, dict):
        return None
    try:
        return DeviceStatusUpdate.from_dict(properties)
    except Exception:  # noqa: BLE001  # generated code says nothing of what it raises
        status = DeviceStatusUpdate()
        status.additional_properties = properties
        return status


def emit_outcome(
    hooks: Hooks,
    pending: PendingStatus,
    outcome: Outcome,
    error: PrintOSError | None,
    superseded_by: int | None,
    *,
    now_s: float,
) -> None:
    """Tell the hooks what became of one accepted status."""
    device_id = pending.device_id
    if outcome == "sent":
        hooks.emit(StatusSent(device_id, pending.seq, pending.attempts, now_s - pending.accepted_s))
    elif outcome == "superseded":
        hooks.emit(StatusSuperseded(device_id, pending.seq, superseded_by or 0))
    else:
        hooks.emit(
            StatusFailed(device_id, pending.seq, pending.attempts, type(error).__name__, str(error or ""))
        )


def claimed_status(claim: Claim, operations: Operations, *, now_s: float) -> PendingStatus:
    """Give what an engine takes for a claim.

    Raises:
        InvalidDeviceIdError: The outbox holds an identifier that would change the request's path.
    """
    call = operations.stored_status(claim.device_id, claim.body)
    return PendingStatus(claim.seq, claim.device_id, call, now_s - claim.waited_s, claim.attempts)


def uncertain_until_s(claim: Claim | Kept, policy: DeliveryPolicy, *, now_s: float) -> float | None:
    """Give the time until which a write of somebody else may still land on a claimed device."""
    return None if claim.doubt_age_s is None else now_s + policy.ambiguity_s - claim.doubt_age_s


def release_of(device: DeviceState, *, now_s: float, timeout_s: float) -> Release:
    """Say how a device is given back whose newest status was not sent."""
    pending = device.in_flight or device.waiting
    doubt_in_s = 0.0 if device.is_uncertain(now_s) else None
    if device.in_flight is not None:
        doubt_in_s = timeout_s
    attempts = 0 if pending is None else pending.attempts
    return Release(device.device_id, max(0.0, device.not_before_s - now_s), attempts, doubt_in_s)

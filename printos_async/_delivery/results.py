"""From an engine's outcomes to results and events, and between its slots and an outbox's rows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from printos_async._events import StatusFailed, StatusSent, StatusSuperseded
from printos_async._models import DeviceStatusUpdate, PushResult
from printos_async.outbox.protocol import Release

from .device_state import Entry

if TYPE_CHECKING:
    from printos_async._api.requests import Operations
    from printos_async._errors import PrintOSError
    from printos_async._events import Hooks
    from printos_async.outbox import Claim, Kept

    from .device_state import Outcome, Promises, Slot


def make_result(
    entry: Entry, outcome: Outcome, error: PrintOSError | None, superseded_by: int | None, *, now_s: float
) -> PushResult:
    """Give the result of one accepted status; a failed one carries its status, so that it can be pushed again."""
    # Built anew from what was accepted: the caller may have changed its object since.
    status = None if error is None else _status_of(entry.call.body)
    device_id = entry.device_id
    latency_s = now_s - entry.accepted_s
    return PushResult(device_id, outcome, entry.attempts, latency_s, error, status, entry.seq, superseded_by)


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
    entry: Entry,
    outcome: Outcome,
    error: PrintOSError | None,
    superseded_by: int | None,
    *,
    now_s: float,
) -> None:
    """Tell the hooks what became of one accepted status."""
    device_id = entry.device_id
    if outcome == "sent":
        hooks.emit(StatusSent(device_id, entry.seq, entry.attempts, now_s - entry.accepted_s))
    elif outcome == "superseded":
        hooks.emit(StatusSuperseded(device_id, entry.seq, superseded_by or 0))
    else:
        hooks.emit(StatusFailed(device_id, entry.seq, entry.attempts, type(error).__name__, str(error or "")))


def claimed_entry(claim: Claim, operations: Operations, *, now_s: float) -> Entry:
    """Give what an engine takes for a claim.

    Raises:
        InvalidDeviceIdError: The outbox holds an identifier that would change the request's path.
    """
    call = operations.stored_status(claim.device_id, claim.body)
    return Entry(claim.seq, claim.device_id, call, now_s - claim.waited_s, claim.attempts)


def doubt_until_s(claim: Claim | Kept, promises: Promises, *, now_s: float) -> float | None:
    """Give the time until which a write of somebody else may still land on a claimed device."""
    return None if claim.doubt_age_s is None else now_s + promises.ambiguity_s - claim.doubt_age_s


def release_of(slot: Slot, *, now_s: float, timeout_s: float) -> Release:
    """Say how a device is given back whose newest status was not sent."""
    entry = slot.in_flight or slot.waiting
    doubt_in_s = 0.0 if slot.in_doubt(now_s) else None
    if slot.in_flight is not None:
        doubt_in_s = timeout_s
    attempts = 0 if entry is None else entry.attempts
    return Release(slot.device_id, max(0.0, slot.not_before_s - now_s), attempts, doubt_in_s)

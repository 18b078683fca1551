"""From an engine's outcomes to results and events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ._events import StatusFailed, StatusSent, StatusSuperseded
from ._models import DeviceStatusUpdate, PushResult

if TYPE_CHECKING:
    from ._errors import PrintOSError
    from ._events import Hooks
    from ._slot import Entry, Outcome


def make_result(
    entry: Entry, outcome: Outcome, error: PrintOSError | None, superseded_by: int | None, *, now_s: float
) -> PushResult:
    """Give the result of one accepted status; a failed one carries its status, so that it can be pushed again."""
    # Built anew from what was accepted: the caller may have changed its object since.
    status = None if error is None else DeviceStatusUpdate.from_dict(json.loads(entry.call.body))
    device_id = entry.device_id
    latency_s = now_s - entry.accepted_s
    return PushResult(device_id, outcome, entry.attempts, latency_s, error, status, entry.seq, superseded_by)


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

"""Results and events of accepted statuses, and a pusher's counts of them."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from printos_async._errors import PusherClosedError
from printos_async._events import (
    StatusAccepted,
    StatusFailed,
    StatusSent,
    StatusSuperseded,
    StatusWithdrawn,
)
from printos_async._models import DeviceStatusUpdate, PushResult, StoredStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from printos_async._events import Hooks

    from .device_state import Outcome, OutcomeKind, PendingStatus


class Reporter:
    """Counts a pusher's statuses, emits their events, and resolves the futures of waiting callers.

    Attributes:
        accepted: Statuses accepted so far, without those that their caller withdrew.
        counts: Outcomes so far, by kind.
    """

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._loop = asyncio.get_running_loop()
        self.accepted = 0
        self.counts: dict[OutcomeKind, int] = {"sent": 0, "superseded": 0, "failed": 0}

    @property
    def pending(self) -> int:
        """Number of accepted statuses without an outcome."""
        return self.accepted - sum(self.counts.values())

    def accept(self, pending: PendingStatus) -> None:
        """Report an accepted status."""
        self.accepted += 1
        if self._hooks:
            self._hooks.emit(StatusAccepted(pending.device_id, pending.seq))

    def settle(self, pending: PendingStatus, outcome: Outcome) -> None:
        """Report the outcome of a status. One that has ended already, by being withdrawn, is ignored."""
        if pending.has_ended:
            return
        pending.has_ended = True
        self.counts[outcome.kind] += 1
        now_s = self._loop.time()
        if outcome.kind == "failed" or self._hooks:  # a failure is logged even without hooks
            emit_outcome(self._hooks, pending, outcome, now_s=now_s)
        waiter = pending.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(make_result(pending, outcome, now_s=now_s))

    def cancel(self, pending: PendingStatus) -> None:
        """Report a status that its caller withdrew; it counts as never accepted."""
        self.accepted -= 1
        withdraw([pending], self._hooks)


def withdraw(statuses: Iterable[PendingStatus], hooks: Hooks) -> None:
    """Report statuses that end without an outcome, also to the callers that wait for their results."""
    reason = PusherClosedError("the pusher was closed before this status was settled")
    for pending in statuses:
        if not pending.has_ended:
            pending.has_ended = True
            if hooks:
                hooks.emit(StatusWithdrawn(pending.device_id, pending.seq))
            pending.abandon(reason)


def make_result(pending: PendingStatus, outcome: Outcome, *, now_s: float) -> PushResult:
    """Return the result of an accepted status; that of a failed one has its status, so that it can be pushed again."""
    # Decoded from the request: the caller may have changed its object since.
    status = None if outcome.error is None else _decode_status(pending.call.body)
    return PushResult(
        pending.device_id,
        outcome.kind,
        pending.attempts,
        now_s - pending.accepted_s,
        outcome.error,
        status,
        pending.seq,
        outcome.superseded_by,
    )


def _decode_status(body: bytes) -> DeviceStatusUpdate | None:
    """Return the status that was encoded; with additional properties only, where the model does not fit.

    An outbox may hold a status that another version of this package, or of the specification, has encoded.
    """
    try:
        properties = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(properties, dict):
        return None
    try:
        return DeviceStatusUpdate.from_dict(properties)
    except Exception:  # noqa: BLE001  # the generated code does not document what it raises
        return StoredStatus(properties)


def emit_outcome(hooks: Hooks, pending: PendingStatus, outcome: Outcome, *, now_s: float) -> None:
    """Emit the end event of an accepted status."""
    device_id, seq, attempts = pending.device_id, pending.seq, pending.attempts
    if outcome.kind == "sent":
        hooks.emit(StatusSent(device_id, seq, attempts, now_s - pending.accepted_s))
    elif outcome.kind == "superseded":
        hooks.emit(StatusSuperseded(device_id, seq, outcome.superseded_by or 0))
    else:
        error = outcome.error
        hooks.emit(StatusFailed(device_id, seq, attempts, type(error).__name__, str(error or "")))

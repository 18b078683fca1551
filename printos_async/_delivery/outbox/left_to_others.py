"""Statuses that were put here and left to other workers, until their outcome is known. No I/O."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from printos_async._delivery.device_state import SENT, Outcome
from printos_async._errors import OutboxError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from printos_async._delivery.device_state import PendingStatus
    from printos_async._delivery.results import Reporter
    from printos_async.outbox import Progress


class LeftToOthers:
    """The newest status of each device that was put here, and that another worker sends, or this one after a later claim.

    A status is reported as sent only if it was: a newer one of its device may have been sent in its place.

    Args:
        reporter: Is told of the outcomes.
        is_active: Returns whether this worker has work pending for a device, such as a request of a lost lease.

    Attributes:
        statuses: By device.
        in_old_file: Statuses that were in a file that was replaced, by device, until the new file has them or newer
            ones. Sequence numbers of the two files cannot be compared.
        put_failed: Devices whose last put failed. Its status may be in the outbox nevertheless.
    """

    def __init__(self, reporter: Reporter, is_active: Callable[[str], bool]) -> None:
        self._reporter = reporter
        self._is_active = is_active
        self._loop = asyncio.get_running_loop()
        self.statuses: dict[str, PendingStatus] = {}
        self.in_old_file: dict[str, PendingStatus] = {}
        self.put_failed: set[str] = set()

    def add(self, pending: PendingStatus) -> None:
        """Leave a status to others, unless it has ended, or a newer one of its device was left to them before."""
        if pending.has_ended:
            return
        device_id = pending.device_id
        if not self._is_in_old_file(pending):
            self._supersede_in_old_file(device_id, pending.seq)
        other = self.statuses.get(device_id, pending)
        if other.seq > pending.seq:
            self.supersede(pending, other.seq)
            return
        if other is not pending:
            self.supersede(other, pending.seq)
        self.statuses[device_id] = pending

    def take(self, device_id: str, seq: int) -> PendingStatus | None:
        """Remove a device's status, because this worker sends status ``seq`` now; None if that is not the same."""
        if self.in_old_file:
            self._supersede_in_old_file(device_id, seq)
        pending = self.statuses.pop(device_id, None)
        if pending is not None and pending.seq != seq:
            self.supersede(pending, seq)
            return None
        return pending

    def supersede(self, pending: PendingStatus, newer_seq: int) -> None:
        """Settle a status, left to others or not, because the outbox has a newer one of its device."""
        if self.statuses.get(pending.device_id) is pending:
            del self.statuses[pending.device_id]
        self._reporter.settle(pending, Outcome("superseded", superseded_by=newer_seq))

    def file_replaced(self, in_flight: Iterable[PendingStatus]) -> None:
        """Remember the statuses that the new file lacks. Those ``in_flight`` are written to it if they fail."""
        self.in_old_file |= self.statuses
        for pending in in_flight:
            newer = self.statuses.get(pending.device_id)
            if newer is None:
                self.in_old_file[pending.device_id] = pending
            else:
                self.supersede(pending, newer.seq)

    def written(self, pending: PendingStatus) -> None:
        """Record that a put has succeeded: the outbox has the status."""
        self.put_failed.discard(pending.device_id)
        if self.in_old_file and self._is_in_old_file(pending):
            del self.in_old_file[pending.device_id]

    def to_put_again(self) -> dict[str, PendingStatus]:
        """Return the statuses that have to be written to the new file, by device."""
        left = self.statuses
        return {device_id: one for device_id, one in self.in_old_file.items() if left.get(device_id) is one}

    def are_due_by(self, until_s: float) -> bool:
        """Return whether one of the statuses may be sent by ``until_s``."""
        return any(pending.held_until_s <= until_s for pending in self.statuses.values())

    def settle_by(self, progress: Progress) -> None:
        """Settle the status of a device if the outbox has its outcome.

        If an older one is in flight here, whose lease was lost, the newer one stays until that has ended: it tells
        that the older one was superseded.
        """
        self._supersede_in_old_file(progress.device_id, progress.seq)
        pending = self.statuses.pop(progress.device_id, None)
        if pending is None:
            return
        if progress.done_seq < pending.seq or self._is_active(progress.device_id):
            pending.held_until_s = self._loop.time() + progress.hold_s if progress.hold_s else 0.0
            # Reinserted at the end: the next look-up asks for others first.
            self.statuses[progress.device_id] = pending
            return
        pending.attempts = progress.attempts
        if progress.done_seq > pending.seq:
            outcome = Outcome("superseded", superseded_by=progress.seq)
        elif progress.error is None:
            outcome = SENT
        else:
            outcome = Outcome("failed", OutboxError(f"given up by another worker: {progress.error}"))
        self._reporter.settle(pending, outcome)

    def settle_gone(self, pending: PendingStatus) -> None:
        """Settle a status whose device has no row any more: the device's newest status was delivered.

        If a later put has failed, that one's status may be the newest. Otherwise it is this one, as far as is known
        here. It stays while the device is active, as in ``settle_by``.
        """
        device_id = pending.device_id
        is_left = self.statuses.get(device_id) is pending and not self._is_in_old_file(pending)
        if is_left and not self._is_active(device_id):
            del self.statuses[device_id]
            is_newest = device_id not in self.put_failed
            self._reporter.settle(pending, SENT if is_newest else Outcome("superseded"))

    def _is_in_old_file(self, pending: PendingStatus) -> bool:
        return self.in_old_file.get(pending.device_id) is pending

    def _supersede_in_old_file(self, device_id: str, newer_seq: int) -> None:
        older = self.in_old_file.pop(device_id, None)
        if older is not None:
            self.supersede(older, newer_seq)

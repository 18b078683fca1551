"""Hands the rows of one tenant of a ``MemoryOutbox`` to another, as ``sql.statements.adoption`` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .memory_rows import Row, TenantRows


def adopt_rows(ours: TenantRows, theirs: TenantRows, now: float) -> int:
    """Hand over all rows that nobody owns; return how many of them had a status that waits or is a dead letter."""
    theirs.take_over(now)
    count = 0
    for row in [row for row in theirs.rows.values() if row.owner is None]:
        is_status = row.waits or row.is_dead
        if _adopt(ours, row):
            theirs.delete(row)
            count += is_status
    for device_id, delivered_at in theirs.deliveries.items():
        ours.deliveries[device_id] = max(delivered_at, ours.deliveries.get(device_id, delivered_at))
    theirs.deliveries.clear()
    return count


def _adopt(ours: TenantRows, theirs: Row) -> bool:
    """Merge a row into that of its device; False if it has to stay."""
    row = ours.rows.get(theirs.device_id)
    is_newer = row is None or theirs.put_at > row.put_at
    if row is None:
        row = ours.add(theirs.device_id, theirs.put_at)
        row.due_at = theirs.due_at
        row.done_at, row.done_attempts, row.error = theirs.done_at, theirs.done_attempts, theirs.error
    if theirs.is_dead and is_newer and (row.waits or row.owner is not None):
        # A dead letter does not take the place of a status that will be sent. It can be adopted later.
        return False
    if theirs.waits and row.waits:
        row.waiting_since = min(row.waiting_since, theirs.waiting_since)
    elif theirs.waits and is_newer:
        row.waiting_since = theirs.waiting_since
    if is_newer and (theirs.waits or theirs.is_dead):
        row.seq += 1
        row.body, row.put_at, row.attempts = theirs.body, theirs.put_at, theirs.attempts
        if theirs.waits:
            ours.mark(row, put_by=None)
    if is_newer and theirs.is_dead:
        row.done_seq = row.seq
        row.done_at, row.done_attempts, row.error = theirs.done_at, theirs.done_attempts, theirs.error
    row.due_at = max(row.due_at, theirs.due_at)
    if row.owner is None:
        ours.free(row, theirs.uncertain_since)  # queues it
    elif theirs.uncertain_since is not None:
        row.uncertain_since = max(theirs.uncertain_since, row.uncertain_since or theirs.uncertain_since)
    return True

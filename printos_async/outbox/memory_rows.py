"""Rows and leases of one tenant in a ``MemoryOutbox``."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from attrs import define, field

from .administration import DeviceDelivery
from .deliveries import NewDeliveries
from .protocol import Claim

if TYPE_CHECKING:
    from collections.abc import Iterator


@define(eq=False)
class Row:
    """The state of one device; times are those of the outbox's clock."""

    device_id: str
    put_at: float
    due_at: float
    body: bytes = b""
    seq: int = 0
    attempts: int = 0
    owner: int | None = None
    uncertain_since: float | None = None  # end of the last uncertain write
    done_seq: int = 0
    done_at: float = 0.0
    done_attempts: int = 0
    error: str | None = None
    waiting_since: float = 0.0  # when the first of the waiting statuses was put
    # The owner, from when somebody else puts a status of its device until the owner has received it.
    unseen_by: int | None = None

    @property
    def waits(self) -> bool:
        """Whether the newest status is neither delivered nor given up."""
        return self.seq > self.done_seq

    @property
    def is_dead(self) -> bool:
        """Whether the newest status is a dead letter."""
        return self.seq == self.done_seq and self.error is not None

    @property
    def is_idle(self) -> bool:
        """Whether the row can be deleted once its hold has passed."""
        return (
            self.owner is None
            and self.seq == self.done_seq
            and self.error is None
            and self.uncertain_since is None
        )

    def hold_s(self, now: float) -> float:
        """Return the seconds in which nobody may claim the waiting status."""
        return max(0.0, self.due_at - now) if self.waits and self.owner is None else 0.0

    def uncertain_age_s(self, now: float) -> float | None:
        """Return the seconds since the last uncertain write has ended, as in ``Claim``; None if there is none."""
        return None if self.uncertain_since is None else now - self.uncertain_since

    def add_uncertain(self, since: float | None) -> None:
        """Record an uncertain write, unless a later one is known."""
        if since is not None:
            self.uncertain_since = max(since, self.uncertain_since or since)

    def free(self, uncertain_since: float | None) -> None:
        """Take the device from its owner."""
        self.owner = self.unseen_by = None
        self.add_uncertain(uncertain_since)

    def claim(self, now: float) -> Claim:
        """Return the newest status for the worker that owns the device."""
        waited_s, uncertain_age_s = now - self.put_at, self.uncertain_age_s(now)
        return Claim(self.device_id, self.seq, self.body, self.attempts, waited_s, uncertain_age_s)


@define(eq=False)
class TenantRows:
    """Everything that is stored for one tenant.

    There is no queue of what is due: a pusher takes all rows at once, so entries of a queue would only pile up.

    Attributes:
        rows: By device.
        leases: The end of each worker's lease.
        floor: Sequence numbers of deleted rows are not above it.
        label: As in ``TenantStats``.
        host: As in ``TenantStats``.
        deliveries: When each device was delivered last.
        new_deliveries: Finds the deliveries among completions.
    """

    rows: dict[str, Row] = field(factory=dict)
    leases: dict[int, float] = field(factory=dict)
    floor: int = 0
    label: str = ""
    host: str = ""
    deliveries: dict[str, float] = field(factory=dict)
    new_deliveries: NewDeliveries = field(factory=NewDeliveries)

    def is_live(self, owner: int | None, now: float) -> bool:
        """Return whether the lease of a worker runs."""
        return owner is not None and self.leases.get(owner, 0.0) > now

    def live_workers(self, now: float) -> int:
        """Return how many workers' leases run."""
        return sum(until > now for until in self.leases.values())

    def claimable(self, owner: int, now: float) -> Iterator[Row]:
        """Return the rows that a worker may claim, those in a hold included; none if its lease has ended."""
        rows = self.rows.values() if self.is_live(owner, now) else ()
        return (row for row in rows if row.owner is None and row.waits)

    def owned(self, owner: int, device_id: str) -> Row | None:
        """Return the row of a device if the worker owns it."""
        row = self.rows.get(device_id)
        return row if row is not None and row.owner == owner else None

    def add(self, device_id: str, now: float) -> Row:
        """Insert a row for a device, without a status."""
        # Numbers up to the floor may have been those of a row that was deleted.
        row = Row(device_id, put_at=now, due_at=now, seq=self.floor, done_seq=self.floor)
        self.rows[device_id] = row
        return row

    def raise_floor(self, seq: int) -> None:
        """Make sure that new rows count on from a number above this one."""
        self.floor = max(self.floor, seq)

    def delete(self, row: Row) -> None:
        """Delete a row. Its device counts on from a higher number."""
        self.raise_floor(row.seq)
        del self.rows[row.device_id]

    def delete_idle(self, now: float) -> None:
        """Delete idle rows whose hold has passed."""
        for row in [row for row in self.rows.values() if row.is_idle and row.due_at <= now]:
            self.delete(row)

    def take_over(self, now: float) -> None:
        """Remove workers whose lease has ended, and free their devices, with their writes uncertain."""
        ended = {owner: until for owner, until in self.leases.items() if until <= now}
        for row in self.rows.values() if ended else ():
            if row.owner in ended:
                row.due_at = max(row.due_at, ended[row.owner])
                row.free(ended[row.owner])
        for owner in ended:
            del self.leases[owner]

    def devices(self, now: float, silent_for_s: float, limit: int, after: str) -> list[DeviceDelivery]:
        """Return a page as ``OutboxAdministration.devices``."""
        silent_since = now - silent_for_s

        def is_chosen(device_id: str) -> bool:
            if device_id in self.deliveries:
                return self.deliveries[device_id] <= silent_since
            row = self.rows[device_id]
            has_failed = row.error is not None
            return row.is_dead or (row.waits and (has_failed or row.waiting_since <= silent_since))

        known = {device_id for device_id in (*self.deliveries, *self.rows) if device_id > after}
        return [
            self._device(device_id, now) for device_id in heapq.nsmallest(limit, filter(is_chosen, known))
        ]

    def _device(self, device_id: str, now: float) -> DeviceDelivery:
        row, delivered_at = self.rows.get(device_id), self.deliveries.get(device_id)
        error = None if row is None else row.error
        return DeviceDelivery(
            device_id=device_id,
            delivered_age_s=None if delivered_at is None else now - delivered_at,
            waiting_s=now - row.waiting_since if row is not None and row.waits else None,
            failed_age_s=now - row.done_at if row is not None and error is not None else None,
            error=error,
        )

    def purge_deliveries(self, until: float) -> int:
        """Forget the deliveries of devices without a row up to a time; return how many there were."""
        gone = [
            device_id
            for device_id, delivered_at in self.deliveries.items()
            if delivered_at <= until and device_id not in self.rows
        ]
        for device_id in gone:
            del self.deliveries[device_id]
        return len(gone)

    def adopt(self, theirs: TenantRows, now: float) -> int:
        """Take over another tenant's rows that nobody owns, as ``sql.adoption``; return how many had a status."""
        theirs.take_over(now)
        count = 0
        for row in [row for row in theirs.rows.values() if row.owner is None]:
            is_status = row.waits or row.is_dead
            if self._adopt(row):
                theirs.delete(row)
                count += is_status
        for device_id, delivered_at in theirs.deliveries.items():
            self.deliveries[device_id] = max(delivered_at, self.deliveries.get(device_id, delivered_at))
        theirs.deliveries.clear()
        return count

    def _adopt(self, theirs: Row) -> bool:
        """Merge a row into that of its device; False if it has to stay."""
        row = self.rows.get(theirs.device_id)
        is_newer = row is None or theirs.put_at > row.put_at
        if row is None:
            row = self.add(theirs.device_id, theirs.put_at)
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
                row.unseen_by = row.owner
        if is_newer and theirs.is_dead:
            row.done_seq = row.seq
            row.done_at, row.done_attempts, row.error = theirs.done_at, theirs.done_attempts, theirs.error
        row.due_at = max(row.due_at, theirs.due_at)
        row.add_uncertain(theirs.uncertain_since)
        return True

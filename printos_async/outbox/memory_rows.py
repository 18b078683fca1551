"""Rows, leases and queues of one tenant in a ``MemoryOutbox``."""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING

from attrs import define, field

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
        """Return the seconds since the last uncertain write has ended; None if there is none."""
        return None if self.uncertain_since is None else max(now - self.uncertain_since, 0.0)

    def claim(self, now: float) -> Claim:
        """Return the newest status for the worker that owns the device."""
        waited_s, uncertain_age_s = now - self.put_at, self.uncertain_age_s(now)
        return Claim(self.device_id, self.seq, self.body, self.attempts, waited_s, uncertain_age_s)


@define(eq=False)
class TenantRows:
    """Everything that is stored for one tenant.

    The queues are cleaned lazily: entries that are out of date are skipped when they are reached.

    Attributes:
        rows: By device.
        leases: The end of each worker's lease.
        claimable: Heap of devices that wait and have no owner, by ``due_at``.
        idle: Heap of idle rows, by ``due_at``.
        unseen: By owner and device: statuses that others have put, and that the owner has not received yet.
        floor: Sequence numbers of deleted rows are not above it.
        label: As in ``TenantStats``.
        host: As in ``TenantStats``.
        deliveries: When each device was delivered last.
        new_deliveries: Finds the deliveries among completions.
    """

    rows: dict[str, Row] = field(factory=dict)
    leases: dict[int, float] = field(factory=dict)
    claimable: list[tuple[float, int, Row]] = field(factory=list)
    idle: list[tuple[float, int, Row]] = field(factory=list)
    unseen: dict[int, dict[str, Row]] = field(factory=dict)
    floor: int = 0
    label: str = ""
    host: str = ""
    deliveries: dict[str, float] = field(factory=dict)
    new_deliveries: NewDeliveries = field(factory=NewDeliveries)
    _entries: Iterator[int] = field(factory=count)  # breaks ties in the heaps

    def is_live(self, owner: int | None, now: float) -> bool:
        """Return whether the lease of a worker runs."""
        return owner is not None and self.leases.get(owner, 0.0) > now

    def live_workers(self, now: float) -> int:
        """Return how many workers' leases run."""
        return sum(until > now for until in self.leases.values())

    def is_claimable(self, row: Row) -> bool:
        """Return whether a row has a waiting status and no owner, and is not deleted."""
        return row.owner is None and row.waits and self.rows.get(row.device_id) is row

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
        self.unmark(row)
        self.raise_floor(row.seq)
        del self.rows[row.device_id]

    def delete_idle(self, now: float) -> None:
        """Delete idle rows whose hold has passed."""
        while self.idle and self.idle[0][0] <= now:
            _, _, row = heapq.heappop(self.idle)
            if row.is_idle and row.due_at <= now and self.rows.get(row.device_id) is row:
                self.delete(row)

    def take_over(self, now: float) -> None:
        """Remove workers whose lease has ended, and free their devices, with their writes uncertain."""
        ended = {owner: until for owner, until in self.leases.items() if until <= now}
        for row in self.rows.values() if ended else ():
            if row.owner in ended:
                row.due_at = max(row.due_at, ended[row.owner])
                self.free(row, ended[row.owner])
        for owner in ended:
            del self.leases[owner]
            self.unseen.pop(owner, None)

    def free(self, row: Row, uncertain_since: float | None) -> None:
        """Take a device from its owner, and queue it."""
        self.unmark(row)
        row.owner = None
        if uncertain_since is not None:
            row.uncertain_since = max(uncertain_since, row.uncertain_since or uncertain_since)
        if row.waits:
            self.make_claimable(row)
        elif row.is_idle:
            heapq.heappush(self.idle, (row.due_at, next(self._entries), row))

    def mark(self, row: Row, *, put_by: int | None) -> None:
        """Mark a newer status as unseen by the owner, unless the owner itself has put it."""
        if row.owner is not None and row.owner != put_by:
            self.unseen.setdefault(row.owner, {})[row.device_id] = row
        else:
            self.unmark(row)

    def unmark(self, row: Row) -> None:
        """Remove the mark of ``mark``."""
        if row.owner in self.unseen:
            self.unseen[row.owner].pop(row.device_id, None)

    def make_claimable(self, row: Row) -> None:
        """Queue a waiting device that has no owner."""
        heapq.heappush(self.claimable, (row.due_at, next(self._entries), row))

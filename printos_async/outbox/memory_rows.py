"""What an outbox in memory keeps for an account: rows, leases, and which devices may be claimed next."""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING

from attrs import define, field

from .protocol import Claim

if TYPE_CHECKING:
    from collections.abc import Iterator


@define(eq=False)
class Row:
    """What is known of a device; times are the clock's."""

    device_id: str
    put_at: float
    due_at: float
    body: bytes = b""
    seq: int = 0
    attempts: int = 0
    owner: int | None = None
    doubt_since: float | None = None
    done_seq: int = 0
    done_at: float = 0.0
    done_attempts: int = 0
    error: str | None = None
    waiting_since: float = 0.0  # when the first of the waiting statuses was put

    @property
    def waits(self) -> bool:
        return self.seq > self.done_seq

    @property
    def is_dead(self) -> bool:
        return self.seq == self.done_seq and self.error is not None

    @property
    def is_idle(self) -> bool:
        """Nothing is left to do but to delete it after its hold."""
        return (
            self.owner is None
            and self.seq == self.done_seq
            and self.error is None
            and self.doubt_since is None
        )

    def hold_s(self, now: float) -> float:
        """Give the seconds in which nobody may claim what waits."""
        return max(0.0, self.due_at - now) if self.waits and self.owner is None else 0.0

    def doubt_age_s(self, now: float) -> float | None:
        return None if self.doubt_since is None else max(now - self.doubt_since, 0.0)


@define(eq=False)
class Account:
    """What is kept for one account."""

    rows: dict[str, Row] = field(factory=dict)
    leases: dict[int, float] = field(factory=dict)
    # Of devices that wait and are owned by nobody, by due_at; what is not so any more is skipped.
    claimable: list[tuple[float, int, Row]] = field(factory=list)
    # Of devices that are idle, by due_at, likewise.
    idle: list[tuple[float, int, Row]] = field(factory=list)
    # By owner and device: what others have put, and the owner was not told of; what is not so any more is skipped.
    unseen: dict[int, dict[str, Row]] = field(factory=dict)
    floor: int = 0  # no number of a row that was deleted is above it
    _entries: Iterator[int] = field(factory=count)

    def is_live(self, owner: int | None, now: float) -> bool:
        return owner is not None and self.leases.get(owner, 0.0) > now

    def is_claimable(self, row: Row) -> bool:
        return row.owner is None and row.waits and self.rows.get(row.device_id) is row

    def owned(self, owner: int, device_id: str) -> Row | None:
        row = self.rows.get(device_id)
        return row if row is not None and row.owner == owner else None

    def add(self, device_id: str, now: float) -> Row:
        # Whatever the device had before is done.
        row = Row(device_id, put_at=now, due_at=now, seq=self.floor, done_seq=self.floor)
        self.rows[device_id] = row
        return row

    def raise_floor(self, seq: int) -> None:
        self.floor = max(self.floor, seq)

    def forget(self, row: Row) -> None:
        self.unmark(row)
        self.raise_floor(row.seq)
        del self.rows[row.device_id]

    def forget_rested(self, now: float) -> None:
        while self.idle and self.idle[0][0] <= now:
            _, _, row = heapq.heappop(self.idle)
            if row.is_idle and row.due_at <= now and self.rows.get(row.device_id) is row:
                self.forget(row)

    def take_over(self, now: float) -> None:
        ended = {owner: until for owner, until in self.leases.items() if until <= now}
        for row in self.rows.values() if ended else ():
            if row.owner in ended:
                row.due_at = max(row.due_at, ended[row.owner])
                self.free(row, ended[row.owner])
        for owner in ended:
            del self.leases[owner]
            self.unseen.pop(owner, None)

    def free(self, row: Row, doubt_since: float | None) -> None:
        self.unmark(row)
        row.owner = None
        if doubt_since is not None:
            row.doubt_since = max(doubt_since, row.doubt_since or doubt_since)
        if row.waits:
            self.make_claimable(row)
        elif row.is_idle:
            heapq.heappush(self.idle, (row.due_at, next(self._entries), row))

    def mark(self, row: Row, *, put_by: int | None) -> None:
        """Note of an owned row that has got a newer status whether its owner knows."""
        if row.owner is not None and row.owner != put_by:
            self.unseen.setdefault(row.owner, {})[row.device_id] = row
        else:
            self.unmark(row)

    def unmark(self, row: Row) -> None:
        if row.owner in self.unseen:
            self.unseen[row.owner].pop(row.device_id, None)

    def make_claimable(self, row: Row) -> None:
        heapq.heappush(self.claimable, (row.due_at, next(self._entries), row))


def claim_of(row: Row, now: float) -> Claim:
    return Claim(row.device_id, row.seq, row.body, row.attempts, now - row.put_at, row.doubt_age_s(now))

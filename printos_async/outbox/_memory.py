"""An outbox in memory: nothing outlives the process."""

from __future__ import annotations

import heapq
import time
from itertools import count
from typing import TYPE_CHECKING

from attrs import define, evolve, field

from printos_async._checks import require_number
from printos_async._errors import ConfigurationError, OutboxError

from ._base import Claim, DeadLetter, Kept, OutboxStats, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ._base import Draft, Finish, Release


@define(eq=False)
class _Row:
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

    @property
    def waits(self) -> bool:
        return self.seq > self.done_seq

    @property
    def is_dead(self) -> bool:
        return self.seq == self.done_seq and self.error is not None

    def doubt_age_s(self, now: float) -> float | None:
        return None if self.doubt_since is None else max(now - self.doubt_since, 0.0)


@define(eq=False)
class _Account:
    """What is kept for one account."""

    rows: dict[str, _Row] = field(factory=dict)
    leases: dict[int, float] = field(factory=dict)
    # Of devices that wait and are owned by nobody, by due_at; what is not so any more is skipped.
    claimable: list[tuple[float, int, _Row]] = field(factory=list)


class MemoryOutbox:
    """Keeps statuses in this process. Another pusher may open it after the first has closed it.

    Args:
        lease_s: Seconds after which a worker that does not renew has lost its devices.
        clock: Gives seconds; for tests.
    """

    is_shared = False

    def __init__(self, *, lease_s: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        require_number("lease_s", lease_s, 0.001)
        self.lease_s = lease_s
        self._clock = clock
        self._tokens = count(1)
        self._entries = count()
        self._accounts: dict[str, _Account] = {}
        self._account: str | None = None

    async def open(self, account: str) -> None:
        """As ``Outbox.open``."""
        if self._account not in {None, account}:
            raise ConfigurationError("this outbox is open for another account: make one for each")
        self._account = account
        self._accounts.setdefault(account, _Account())

    async def aclose(self) -> None:
        """As ``Outbox.aclose``; what was kept stays."""
        self._account = None

    async def put(self, drafts: Sequence[Draft], *, owner: int | None = None) -> list[Kept]:
        """As ``Outbox.put``."""
        state, now = self._opened(), self._clock()
        live = owner if self._is_live(state, owner) else None
        kept = []
        for draft in drafts:
            row = state.rows.get(draft.device_id)
            if row is None:
                row = state.rows[draft.device_id] = _Row(draft.device_id, put_at=now, due_at=now)
            was_claimable = row.waits and row.owner is None
            if not row.waits:
                row.due_at = max(row.due_at, now)
            if row.owner is None and row.due_at <= now:
                row.owner = live
            row.seq += 1
            row.body, row.put_at, row.attempts = draft.body, now, 0
            if row.owner is None and not was_claimable:
                self._make_claimable(state, row)
            claimed = owner is not None and row.owner == owner
            kept.append(Kept(row.seq, claimed, row.doubt_age_s(now) if claimed else None))
        return kept

    async def join(self) -> int:
        """As ``Outbox.join``."""
        owner = next(self._tokens)
        self._opened().leases[owner] = self._clock() + self.lease_s
        return owner

    async def renew(self, owner: int) -> bool:
        """As ``Outbox.renew``."""
        state, now = self._opened(), self._clock()
        if not self._is_live(state, owner):
            return False
        state.leases[owner] = now + self.lease_s
        self._take_over(state, now)
        return True

    async def claim(self, owner: int, limit: int) -> list[Claim]:
        """As ``Outbox.claim``."""
        state, now = self._opened(), self._clock()
        claims: list[Claim] = []
        if not self._is_live(state, owner):
            return claims
        while state.claimable and len(claims) < limit and state.claimable[0][0] <= now:
            due_at, _, row = heapq.heappop(state.claimable)
            if self._is_claimable(state, row) and row.due_at == due_at:
                row.owner = owner
                claims.append(_claim(row, now))
        return claims

    async def claim_all(self, owner: int) -> list[Claim]:
        """As ``PrivateOutbox.claim_all``."""
        state, now = self._opened(), self._clock()
        claims = []
        for row in (
            sorted(state.rows.values(), key=lambda row: row.due_at) if self._is_live(state, owner) else ()
        ):
            if self._is_claimable(state, row):
                row.owner = owner
                doubt_age_s = None if row.doubt_since is None else now - row.doubt_since
                hold_s = max(0.0, row.due_at - now)
                claims.append(evolve(_claim(row, now), doubt_age_s=doubt_age_s, hold_s=hold_s))
        return claims

    async def finish(self, owner: int, finished: Sequence[Finish]) -> list[Claim]:
        """As ``Outbox.finish``."""
        state, now = self._opened(), self._clock()
        newer: dict[str, Claim] = {}
        for one in sorted(finished, key=lambda finish: finish.seq):
            row = self._owned(state, owner, one.device_id)
            if row is None or not row.done_seq <= one.seq <= row.seq:
                continue
            row.done_seq, row.done_at, row.done_attempts = one.seq, now, one.attempts
            row.error, row.due_at, row.doubt_since = one.error, now + one.hold_s, None
            if row.waits:
                newer[row.device_id] = _claim(row, now)
            else:
                newer.pop(row.device_id, None)
                row.owner = row.owner if one.keep else None
        return list(newer.values())

    async def release(self, owner: int, released: Sequence[Release]) -> None:
        """As ``Outbox.release``."""
        state, now = self._opened(), self._clock()
        for one in released:
            row = self._owned(state, owner, one.device_id)
            if row is None:
                continue
            doubt_since = None if one.doubt_in_s is None else now + one.doubt_in_s
            row.due_at = max(now + one.hold_s, doubt_since or now)
            row.attempts = one.attempts
            self._free(state, row, doubt_since)

    async def leave(self, owner: int) -> None:
        """As ``Outbox.leave``."""
        state, now = self._opened(), self._clock()
        if self._is_live(state, owner):
            state.leases[owner] = now
            self._take_over(state, now)

    async def newer(self, owner: int, known: Mapping[str, int]) -> list[Claim]:
        """As ``Outbox.newer``."""
        state, now = self._opened(), self._clock()
        return [
            _claim(row, now)
            for row in state.rows.values()
            if row.owner == owner and row.waits and row.seq > known.get(row.device_id, 0)
        ]

    async def progress(self, device_ids: Iterable[str]) -> list[Progress]:
        """As ``Outbox.progress``."""
        rows = self._opened().rows
        found = [rows[device_id] for device_id in dict.fromkeys(device_ids) if device_id in rows]
        return [Progress(row.device_id, row.seq, row.done_seq, row.done_attempts, row.error) for row in found]

    async def stats(self) -> OutboxStats:
        """As ``Outbox.stats``."""
        state, now = self._opened(), self._clock()
        waiting = [row for row in state.rows.values() if row.waits]
        oldest = min((row.put_at for row in waiting), default=None)
        return OutboxStats(
            devices=len(state.rows),
            waiting=len(waiting),
            claimed=sum(row.owner is not None for row in waiting),
            failed=sum(row.is_dead for row in state.rows.values()),
            workers=sum(until > now for until in state.leases.values()),
            oldest_waiting_s=None if oldest is None else now - oldest,
        )

    async def failed(self, *, limit: int = 100, after: str = "") -> list[DeadLetter]:
        """As ``Outbox.failed``."""
        state, now = self._opened(), self._clock()
        dead = [row for row in state.rows.values() if row.is_dead and row.device_id > after]
        return [
            DeadLetter(
                row.device_id, row.seq, row.body, row.done_attempts, row.error or "", now - row.done_at
            )
            for row in heapq.nsmallest(limit, dead, key=lambda row: row.device_id)
        ]

    async def requeue(self, device_ids: Iterable[str] | None = None) -> int:
        """As ``Outbox.requeue``."""
        state, now = self._opened(), self._clock()
        names = list(state.rows) if device_ids is None else dict.fromkeys(device_ids)
        dead = [state.rows[name] for name in names if name in state.rows and state.rows[name].is_dead]
        for row in dead:
            # A number of its own: done_seq never goes back.
            row.seq += 1
            row.put_at, row.due_at, row.attempts = now, max(row.due_at, now), 0
            self._make_claimable(state, row)
        return len(dead)

    async def purge(self, *, failed: bool = False, older_than_s: float = 0.0) -> int:
        """As ``Outbox.purge``."""
        state, now = self._opened(), self._clock()
        gone = [
            row.device_id
            for row in state.rows.values()
            if not row.waits and row.is_dead == failed and row.done_at <= now - older_than_s
        ]
        for device_id in gone:
            del state.rows[device_id]
        return len(gone)

    def _opened(self) -> _Account:
        if self._account is None:
            raise OutboxError("the outbox is not open")
        return self._accounts[self._account]

    def _is_live(self, state: _Account, owner: int | None) -> bool:
        return owner is not None and state.leases.get(owner, 0.0) > self._clock()

    def _is_claimable(self, state: _Account, row: _Row) -> bool:
        return row.owner is None and row.waits and state.rows.get(row.device_id) is row

    def _owned(self, state: _Account, owner: int, device_id: str) -> _Row | None:
        row = state.rows.get(device_id)
        return row if row is not None and row.owner == owner else None

    def _take_over(self, state: _Account, now: float) -> None:
        ended = {owner: until for owner, until in state.leases.items() if until <= now}
        for row in state.rows.values() if ended else ():
            if row.owner in ended:
                row.due_at = max(row.due_at, ended[row.owner])
                self._free(state, row, ended[row.owner])
        for owner in ended:
            del state.leases[owner]

    def _free(self, state: _Account, row: _Row, doubt_since: float | None) -> None:
        row.owner = None
        if doubt_since is not None:
            row.doubt_since = max(doubt_since, row.doubt_since or doubt_since)
        if row.waits:
            self._make_claimable(state, row)

    def _make_claimable(self, state: _Account, row: _Row) -> None:
        heapq.heappush(state.claimable, (row.due_at, next(self._entries), row))


def _claim(row: _Row, now: float) -> Claim:
    return Claim(row.device_id, row.seq, row.body, row.attempts, now - row.put_at, row.doubt_age_s(now))

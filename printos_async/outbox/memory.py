"""An outbox in memory, which does not outlive the process."""

from __future__ import annotations

import heapq
import time
from itertools import count
from typing import TYPE_CHECKING

from attrs import evolve

from printos_async._common.checks import require_number
from printos_async._errors import ConfigurationError, OutboxError

from .administration import DeadLetter, DeviceDelivery, OutboxStats, TenantStats
from .memory_rows import TenantRows
from .protocol import Kept, Progress
from .tenants import find_tenant, refuse_live_workers, warn_of_waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .protocol import Claim, Draft, Finish, Release


class MemoryOutbox:
    """An outbox in the memory of this process. After one pusher or spooler has closed it, another one may open it.

    Args:
        lease_s: Seconds after which a worker that does not renew its lease loses its devices.
        clock: Returns seconds; for tests.
    """

    is_shared = False

    def __init__(self, *, lease_s: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        require_number("lease_s", lease_s, 0.001)
        self.lease_s = lease_s
        self.on_replaced: Callable[[], None] | None = None  # never called: memory is not replaced
        self._clock = clock
        self._tokens = count(1)
        self._tenants: dict[str, TenantRows] = {}
        self._tenant: str | None = None

    async def open(self, account: str, *, label: str = "", host: str = "") -> None:
        """As ``LabellingOutbox.open``."""
        if self._tenant not in {None, account}:
            raise ConfigurationError("this outbox is open for another account: make one for each")
        if self._tenant is not None:
            return
        self._tenant = account
        own = self._tenants.setdefault(account, TenantRows())
        own.label, own.host = label or own.label, host or own.host
        warn_of_waiting([one for one in await self.tenants() if not one.is_own], own.host)

    async def aclose(self) -> None:
        """As ``Outbox.aclose``; the statuses stay."""
        self._tenant = None

    async def put(self, drafts: Sequence[Draft], *, owner: int | None = None) -> list[Kept]:
        """As ``Outbox.put``."""
        state, now = self._opened(), self._clock()
        live = owner if state.is_live(owner, now) else None
        kept = []
        for draft in drafts:
            row = state.rows.get(draft.device_id)
            if row is None:
                row = state.add(draft.device_id, now)
            if not row.waits:
                row.due_at = max(row.due_at, now)
                row.waiting_since = now
            if row.owner is None and row.due_at <= now:
                row.owner = live
            row.seq += 1
            row.body, row.put_at, row.attempts = draft.body, now, 0
            row.unseen_by = None if row.owner == live else row.owner
            claimed = owner is not None and row.owner == owner
            kept.append(Kept(row.seq, claimed, row.uncertain_age_s(now) if claimed else None))
        return kept

    async def join(self) -> int:
        """As ``Outbox.join``."""
        owner = next(self._tokens)
        self._opened().leases[owner] = self._clock() + self.lease_s
        return owner

    async def renew(self, owner: int) -> bool:
        """As ``Outbox.renew``."""
        state, now = self._opened(), self._clock()
        if not state.is_live(owner, now):
            return False
        state.leases[owner] = now + self.lease_s
        state.take_over(now)
        state.delete_idle(now)
        return True

    async def claim(self, owner: int, limit: int) -> list[Claim]:
        """As ``Outbox.claim``."""
        state, now = self._opened(), self._clock()
        due = (row for row in state.claimable(owner, now) if row.due_at <= now)
        chosen = heapq.nsmallest(limit, due, key=lambda row: row.due_at)
        for row in chosen:
            row.owner = owner
        return [row.claim(now) for row in chosen]

    async def claim_all(self, owner: int) -> list[Claim]:
        """As ``PrivateOutbox.claim_all``."""
        state, now = self._opened(), self._clock()
        claims = []
        for row in sorted(state.claimable(owner, now), key=lambda row: row.due_at):
            # A pusher completes it when it has it in its own memory: that is no delivery.
            state.new_deliveries.expect(row.device_id, row.seq)
            claims.append(evolve(row.claim(now), hold_s=row.hold_s(now)))
            row.owner = owner
        return claims

    async def finish(self, owner: int, finished: Sequence[Finish]) -> list[Claim]:
        """As ``Outbox.finish``."""
        state, now = self._opened(), self._clock()
        newer: list[Claim] = []
        # Of two completions for one device the later one counts.
        latest = {one.device_id: one for one in sorted(finished, key=lambda one: one.seq)}
        state.deliveries |= dict.fromkeys(state.new_deliveries.find(latest.values()), now)
        for one in latest.values():
            if one.may_forget:
                state.raise_floor(one.seq)
            row = state.owned(owner, one.device_id)
            if row is None or not row.done_seq <= one.seq <= row.seq:
                continue
            row.done_seq, row.done_at, row.done_attempts = one.seq, now, one.attempts
            row.error, row.due_at, row.uncertain_since = one.error, now + one.hold_s, None
            row.waiting_since = row.put_at
            row.unseen_by = None
            if row.waits:
                newer.append(row.claim(now))
            elif one.may_forget:
                state.delete(row)
            elif not one.keep:
                row.free(None)
        return newer

    async def release(self, owner: int, released: Sequence[Release]) -> None:
        """As ``Outbox.release``."""
        state, now = self._opened(), self._clock()
        for one in released:
            row = state.owned(owner, one.device_id)
            if row is None:
                continue
            uncertain_since = None if one.uncertain_in_s is None else now + one.uncertain_in_s
            row.due_at = max(now + one.hold_s, uncertain_since or now)
            row.attempts = 0 if row.unseen_by == owner else one.attempts
            row.free(uncertain_since)

    async def leave(self, owner: int) -> None:
        """As ``Outbox.leave``."""
        state, now = self._opened(), self._clock()
        if state.is_live(owner, now):
            state.leases[owner] = now
            state.take_over(now)

    async def newer(self, owner: int, limit: int) -> list[Claim]:
        """As ``Outbox.newer``."""
        state, now = self._opened(), self._clock()
        due = [row for row in state.rows.values() if row.unseen_by == owner and row.due_at <= now]
        newer = sorted(due, key=lambda row: row.due_at)[:limit]
        for row in newer:
            row.unseen_by = None
        return [row.claim(now) for row in newer]

    async def progress(self, device_ids: Iterable[str]) -> list[Progress]:
        """As ``Outbox.progress``."""
        rows, now = self._opened().rows, self._clock()
        found = [rows[device_id] for device_id in dict.fromkeys(device_ids) if device_id in rows]
        return [
            Progress(row.device_id, row.seq, row.done_seq, row.done_attempts, row.error, row.hold_s(now))
            for row in found
        ]

    async def stats(self) -> OutboxStats:
        """As ``OutboxAdministration.stats``."""
        state, now = self._opened(), self._clock()
        waiting = [row for row in state.rows.values() if row.waits]
        oldest = min((row.waiting_since for row in waiting), default=None)
        return OutboxStats(
            devices=len(state.rows),
            waiting=len(waiting),
            claimed=sum(row.owner is not None for row in waiting),
            failed=sum(row.is_dead for row in state.rows.values()),
            workers=state.live_workers(now),
            oldest_waiting_s=None if oldest is None else now - oldest,
        )

    async def failed(self, *, limit: int = 100, after: str = "") -> list[DeadLetter]:
        """As ``OutboxAdministration.failed``."""
        state, now = self._opened(), self._clock()
        dead = [row for row in state.rows.values() if row.is_dead and row.device_id > after]
        return [
            DeadLetter(
                row.device_id, row.seq, row.body, row.done_attempts, row.error or "", now - row.done_at
            )
            for row in heapq.nsmallest(limit, dead, key=lambda row: row.device_id)
        ]

    async def devices(
        self, *, silent_for_s: float = 0.0, limit: int = 100, after: str = ""
    ) -> list[DeviceDelivery]:
        """As ``OutboxAdministration.devices``; a pusher takes all statuses out at its start, with their deliveries."""
        return self._opened().devices(self._clock(), silent_for_s, limit, after)

    async def requeue(self, device_ids: Iterable[str] | None = None) -> int:
        """As ``OutboxAdministration.requeue``."""
        state, now = self._opened(), self._clock()
        names = list(state.rows) if device_ids is None else dict.fromkeys(device_ids)
        dead = [state.rows[name] for name in names if name in state.rows and state.rows[name].is_dead]
        for row in dead:
            # With the next number: done_seq never goes back.
            row.seq += 1
            row.put_at = row.waiting_since = now
            row.due_at, row.attempts = max(row.due_at, now), 0
            row.unseen_by = row.owner
        return len(dead)

    async def purge(self, *, failed: bool = False, older_than_s: float = 0.0) -> int:
        """As ``OutboxAdministration.purge``."""
        state, now = self._opened(), self._clock()
        gone = [
            row
            for row in state.rows.values()
            if row.owner is None
            and not row.waits
            and row.is_dead == failed
            and row.done_at <= now - older_than_s
        ]
        for row in gone:
            state.delete(row)
        return len(gone)

    async def purge_deliveries(self, *, older_than_s: float = 0.0) -> int:
        """As ``OutboxAdministration.purge_deliveries``."""
        return self._opened().purge_deliveries(self._clock() - older_than_s)

    async def tenants(self) -> list[TenantStats]:
        """As ``OutboxAdministration.tenants``."""
        self._opened()
        now = self._clock()
        found = [
            TenantStats(
                account=account,
                label=each.label,
                host=each.host,
                waiting=sum(row.waits for row in each.rows.values()),
                failed=sum(row.is_dead for row in each.rows.values()),
                workers=each.live_workers(now),
                is_own=account == self._tenant,
            )
            for account, each in self._tenants.items()
        ]
        return sorted(found, key=lambda one: (one.label, one.account))

    async def adopt(self, tenant: str) -> int:
        """As ``OutboxAdministration.adopt``."""
        other = find_tenant(await self.tenants(), tenant)
        refuse_live_workers(other.workers)
        return self._opened().adopt(self._tenants[other.account], self._clock())

    def _opened(self) -> TenantRows:
        if self._tenant is None:
            raise OutboxError("the outbox is not open")
        return self._tenants[self._tenant]

"""Between an engine and the ownership of a shared outbox: what comes in, what is over, what is left to others. No I/O."""

from __future__ import annotations

import asyncio
from types import MappingProxyType
from typing import TYPE_CHECKING

from printos_async._delivery.results import claimed_status, uncertain_until_s
from printos_async._errors import APIError, InvalidDeviceIdError, OutboxError
from printos_async.outbox.protocol import Finish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from printos_async._api.requests import Operations
    from printos_async._delivery.device_state import DeliveryPolicy, DeviceState, Outcome, PendingStatus
    from printos_async._delivery.engine import Engine
    from printos_async._errors import PrintOSError
    from printos_async.outbox import Claim, Kept, Progress

    from .ownership import Ownership

    Settle = Callable[[PendingStatus, Outcome, PrintOSError | None, int | None], None]

_NOTHING: Mapping[str, int] = MappingProxyType({})


class Dispatcher:
    """Hands statuses of the outbox to the engine, and notes in the ownership what the engine says of them.

    ``accepted`` is called with each status that is new to this process, ``settle`` with those of which another
    process was seen to have made something.

    Attributes:
        news: Set where the ownership has something to tell the outbox.
        progress: Set where something may be done that somebody waits for.
    """

    def __init__(
        self,
        engine: Engine,
        ownership: Ownership,
        operations: Operations,
        policy: DeliveryPolicy,
        *,
        accepted: Callable[[PendingStatus], None],
        settle: Settle,
    ) -> None:
        self._engine = engine
        self._ownership = ownership
        self._operations = operations
        self._policy = policy
        self._accepted = accepted
        self._settle = settle
        self._loop = asyncio.get_running_loop()
        self.news = asyncio.Event()
        self.progress = asyncio.Event()

    # What the engine tells

    def settled(self, pending: PendingStatus, outcome: Outcome, error: PrintOSError | None) -> None:
        """Take note of what became of a status that the engine had."""
        # A client that was closed, or may not send at all, says nothing about a status: it stays in the outbox.
        if outcome != "superseded" and (error is None or isinstance(error, APIError)):
            self._ownership.settle(pending, None if error is None else str(error))

    def rested(self, device: DeviceState) -> None:
        """Note in the outbox what became of a device's newest status."""
        now_s = self._loop.time()
        hold_s = max(0.0, device.not_before_s - now_s)
        keep = device.remembers(self._policy, now_s=now_s)
        if self._ownership.rest(device.device_id, hold_s=hold_s, keep=keep):
            self.news.set()
        self.progress.set()

    def forgotten(self, device: DeviceState) -> None:
        """Give a device back that was only owned for what was remembered."""
        if self._ownership.forget(device.device_id):
            self.news.set()

    # What the outbox tells

    def take_kept(
        self, pending: PendingStatus, kept: Kept, told: Mapping[str, int], *, is_ours: bool, is_new: bool
    ) -> None:
        """Take a status that was put.

        Args:
            pending: The status, with its number.
            kept: What the outbox said of it.
            told: What the outbox was told meanwhile: the answer may be older.
            is_ours: The worker for which it was put still has its lease.
            is_new: It was not accepted before.
        """
        known = self._known_seq(pending.device_id, told)
        if known == pending.seq and self._engine.adopt(pending):
            return  # it came by another way in the same moment
        if is_new:
            self._accepted(pending)
        if known > pending.seq:
            self._settle(pending, "superseded", None, known)
        elif kept.claimed and known < pending.seq and is_ours:
            self._hand_over(pending, kept)
        else:
            self.leave_to_others(pending)

    def take_claims(self, claims: Iterable[Claim], told: Mapping[str, int] = _NOTHING) -> None:
        """Take statuses that were claimed; ``told`` is that of ``take_kept``."""
        for claim in claims:
            if claim.seq <= self._known_seq(claim.device_id, told):
                continue
            pending = self._ownership.elsewhere.pop(claim.device_id, None)
            if pending is not None and pending.seq != claim.seq:
                self._settle(pending, "superseded", None, claim.seq)
                pending = None
            if pending is None:
                try:
                    pending = claimed_status(claim, self._operations, now_s=self._loop.time())
                except InvalidDeviceIdError as error:  # put by something else than this package
                    self._ownership.finished[claim.device_id] = Finish(
                        claim.device_id, claim.seq, error=str(error)
                    )
                    self.news.set()
                    continue
                self._accepted(pending)
            self._hand_over(pending, claim)

    def _known_seq(self, device_id: str, told: Mapping[str, int]) -> int:
        """Give the number up to which the statuses of a device are under way here, or were finished meanwhile.

        A finished one counts no more once the outbox was told. If it comes again, the outbox has forgotten: a server
        that failed may be followed by one that lacks what was committed last.
        """
        is_under_way = self._engine.is_active(device_id) or self._ownership.is_untold(device_id)
        return max(self._ownership.held_seq(device_id) if is_under_way else 0, told.get(device_id, 0))

    def _hand_over(self, pending: PendingStatus, claim: Claim | Kept) -> None:
        self._ownership.hold(pending)
        until_s = uncertain_until_s(claim, self._policy, now_s=self._loop.time())
        self._engine.take(pending, uncertain_until_s=until_s)

    def leave_to_others(self, pending: PendingStatus) -> None:
        """Let somebody else send a status, or this process later."""
        other = self._ownership.elsewhere.pop(pending.device_id, pending)
        older, newer = (pending, other) if pending.seq < other.seq else (other, pending)
        if older is not newer:
            self._settle(older, "superseded", None, newer.seq)
        self._ownership.elsewhere[pending.device_id] = newer

    def settle_by(self, progress: Progress) -> None:
        """Settle a status that was left to others, if the outbox says that it is done."""
        pending = self._ownership.elsewhere.pop(progress.device_id, None)
        if pending is None:
            return
        if progress.done_seq < pending.seq:
            pending.held_until_s = self._loop.time() + progress.hold_s if progress.hold_s else 0.0
            self._ownership.elsewhere[progress.device_id] = (
                pending  # as the last one: the next look sees others
            )
            return
        pending.attempts = progress.attempts
        if progress.done_seq > pending.seq:
            self._settle(pending, "superseded", None, progress.seq)
        elif progress.error is None:
            self._settle(pending, "sent", None, None)
        else:
            self._settle(
                pending, "failed", OutboxError(f"given up by another worker: {progress.error}"), None
            )

    def settle_gone(self, pending: PendingStatus, superseded_by: int | None = None) -> None:
        """Settle a status that was left to others: delivered, or superseded by a newer one."""
        if self._ownership.elsewhere.get(pending.device_id) is pending:
            del self._ownership.elsewhere[pending.device_id]
            self._settle(pending, "sent" if superseded_by is None else "superseded", None, superseded_by)

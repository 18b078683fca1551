"""Dispatches claimed statuses to the engine, and records their outcomes for the outbox. No I/O."""

from __future__ import annotations

import asyncio
from types import MappingProxyType
from typing import TYPE_CHECKING

from attrs import evolve

from printos_async._delivery.device_state import SENT, DeviceState, Outcome, PendingStatus
from printos_async._errors import ClientClosedError, InvalidDeviceIdError, OutboxError
from printos_async.outbox.protocol import Finish, Release

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from printos_async._api.requests import Operations
    from printos_async._delivery.device_state import DeliveryPolicy
    from printos_async._delivery.engine import Engine
    from printos_async._delivery.results import Reporter
    from printos_async.outbox import Claim, Kept, Progress

    from .ownership import Ownership

_NOTHING: Mapping[str, int] = MappingProxyType({})


class Dispatcher:
    """Passes statuses from the outbox to the engine, and what became of them to ``Ownership``.

    An outcome goes one way. The engine's outcomes are recorded for the outbox and then reported; outcomes that were
    read from the outbox are only reported.

    Attributes:
        news: Set when there are completions to be written to the outbox.
        progress: Set when a status may have been settled.
    """

    def __init__(
        self,
        engine: Engine,
        ownership: Ownership,
        operations: Operations,
        policy: DeliveryPolicy,
        reporter: Reporter,
    ) -> None:
        self._engine = engine
        self._ownership = ownership
        self._operations = operations
        self._policy = policy
        self._reporter = reporter
        self._loop = asyncio.get_running_loop()
        self.news = asyncio.Event()
        self.progress = asyncio.Event()

    # From the engine

    def rested(self, device: DeviceState) -> None:
        """Record the completion of a device's newest status."""
        now_s = self._loop.time()
        hold_s = max(0.0, device.not_before_s - now_s)
        keep = device.remembers(self._policy, now_s=now_s)
        if self._ownership.complete(device.device_id, hold_s=hold_s, keep=keep):
            self.news.set()
        self.progress.set()

    def forgotten(self, device: DeviceState) -> None:
        """Record that a device need not be owned any more for what the engine remembered of it."""
        if self._ownership.forget(device.device_id):
            self.news.set()

    def leave_to_others(self, pending: PendingStatus) -> None:
        """Leave a status in the outbox, for another worker or for a later claim of this one."""
        elsewhere = self._ownership.elsewhere
        other = elsewhere.pop(pending.device_id, pending)
        older, newer = (pending, other) if pending.seq < other.seq else (other, pending)
        if older is not newer:
            self._reporter.settle(older, Outcome("superseded", superseded_by=newer.seq))
        elsewhere[pending.device_id] = newer

    def give_back_held(self, max_held: int, *, min_hold_s: float, timeout_s: float) -> None:
        """Return devices of held accounts to the outbox until their next probe, but for ``max_held`` of them.

        They would take the room of devices whose accounts are accepted.
        """
        now_s = self._loop.time()
        for device, hold_s in self._engine.scheduler.held.beyond(max_held, min_hold_s=min_hold_s):
            device_id = device.device_id
            if not self._ownership.owned_seq(device_id) or self._ownership.is_unwritten(device_id):
                continue
            release = release_of(device, now_s=now_s, timeout_s=timeout_s)
            pending = self._engine.give_back(device)
            if pending is None:
                continue
            release = evolve(release, hold_s=max(hold_s, release.hold_s))
            self._ownership.give_back(release)
            pending.held_until_s = now_s + release.hold_s
            self.leave_to_others(pending)

    def give_back_newer(self, claims: Iterable[Claim], *, timeout_s: float) -> list[Claim]:
        """Release devices for which others have put a newer status; return the claims of all other devices."""
        now_s, ownership = self._loop.time(), self._ownership
        left = []
        for claim in claims:
            device_id = claim.device_id
            is_pending = self._engine.is_active(device_id) or ownership.is_unwritten(device_id)
            if is_pending or device_id in ownership.elsewhere:
                left.append(claim)
                continue
            device = self._engine.scheduler.devices.get(device_id) or DeviceState(device_id)
            device.sent_stands = False
            ownership.give_back(release_of(device, now_s=now_s, timeout_s=timeout_s))
        return left

    # From the outbox

    def take_kept(
        self, pending: PendingStatus, kept: Kept, told: Mapping[str, int], *, is_ours: bool, is_new: bool
    ) -> None:
        """Dispatch a status that was put.

        Args:
            pending: The status, with its sequence number.
            kept: The outbox's answer.
            told: Completions written while the answer was on its way: the answer may be older.
            is_ours: Whether the lease under which it was put still runs.
            is_new: Whether it has not been reported as accepted yet.
        """
        known = self._known_seq(pending.device_id, told)
        if known == pending.seq and self._engine.adopt(pending):
            return  # it was claimed at the same moment
        if is_new:
            self._reporter.accept(pending)
        if known > pending.seq:
            self._reporter.settle(pending, Outcome("superseded", superseded_by=known))
        elif kept.claimed and known < pending.seq and is_ours:
            self._dispatch(pending, kept)
        else:
            self.leave_to_others(pending)

    def take_claims(self, claims: Iterable[Claim], told: Mapping[str, int] = _NOTHING) -> None:
        """Dispatch claimed statuses; ``told`` is as in ``take_kept``."""
        for claim in claims:
            if claim.seq <= self._known_seq(claim.device_id, told):
                continue
            pending = self._ownership.elsewhere.pop(claim.device_id, None)
            if pending is not None and pending.seq != claim.seq:
                self._reporter.settle(pending, Outcome("superseded", superseded_by=claim.seq))
                pending = None
            if pending is None:
                try:
                    pending = claimed_status(claim, self._operations, now_s=self._loop.time())
                except InvalidDeviceIdError as error:  # put by something other than this package
                    self._ownership.reject(Finish(claim.device_id, claim.seq, error=str(error)))
                    self.news.set()
                    continue
                self._reporter.accept(pending)
            self._dispatch(pending, claim)

    def settle_by(self, progress: Progress) -> None:
        """Settle a status that another worker was to send, if the outbox has its outcome."""
        pending = self._ownership.elsewhere.pop(progress.device_id, None)
        if pending is None:
            return
        if progress.done_seq < pending.seq:
            pending.held_until_s = self._loop.time() + progress.hold_s if progress.hold_s else 0.0
            # Reinserted at the end: the next look-up asks for others first.
            self._ownership.elsewhere[progress.device_id] = pending
            return
        pending.attempts = progress.attempts
        if progress.done_seq > pending.seq:
            outcome = Outcome("superseded", superseded_by=progress.seq)
        elif progress.error is None:
            outcome = SENT
        else:
            outcome = Outcome("failed", OutboxError(f"given up by another worker: {progress.error}"))
        self._reporter.settle(pending, outcome)

    def settle_gone(self, pending: PendingStatus, outcome: Outcome = SENT) -> None:
        """Settle a status that another worker was to send and whose row is gone, which means delivered."""
        if self._ownership.elsewhere.get(pending.device_id) is pending:
            del self._ownership.elsewhere[pending.device_id]
            self._reporter.settle(pending, outcome)

    def _known_seq(self, device_id: str, told: Mapping[str, int]) -> int:
        """Return the highest sequence number of a device that is pending here or was completed meanwhile.

        A completion counts no more once it is written. If its status is claimed again, the outbox has lost the write:
        a server that failed may be followed by one that lacks the last commits.
        """
        is_pending = self._engine.is_active(device_id) or self._ownership.is_unwritten(device_id)
        return max(self._ownership.owned_seq(device_id) if is_pending else 0, told.get(device_id, 0))

    def _dispatch(self, pending: PendingStatus, claim: Claim | Kept) -> None:
        self._ownership.own(pending)
        until_s = uncertain_until_s(claim, self._policy, now_s=self._loop.time())
        self._engine.take(pending, uncertain_until_s=until_s)


def is_final(outcome: Outcome) -> bool:
    """Return whether an outcome ends the status in the outbox, too.

    A superseded status has no row any more. A client that was closed says nothing of the status: it stays in the
    outbox, and is free when the pusher is closed.
    """
    return outcome.kind != "superseded" and not isinstance(outcome.error, ClientClosedError)


def claimed_status(claim: Claim, operations: Operations, *, now_s: float) -> PendingStatus:
    """Return a claim as a pending status.

    Raises:
        InvalidDeviceIdError: The outbox holds an identifier that would change the request's path.
    """
    call = operations.stored_status(claim.device_id, claim.body)
    return PendingStatus(claim.seq, claim.device_id, call, now_s - claim.waited_s, claim.attempts)


def uncertain_until_s(claim: Claim | Kept, policy: DeliveryPolicy, *, now_s: float) -> float | None:
    """Return the time until which another worker's write may still land on a claimed device; None without one."""
    return None if claim.uncertain_age_s is None else now_s + policy.ambiguity_s - claim.uncertain_age_s


def release_of(device: DeviceState, *, now_s: float, timeout_s: float) -> Release:
    """Return the release of a device whose newest status was not sent."""
    pending = device.in_flight or device.waiting
    uncertain_in_s = 0.0 if device.is_uncertain(now_s) else None
    if device.in_flight is not None:
        uncertain_in_s = timeout_s
    # Those that failed with the whole host do not count for the worker that claims it, either.
    attempts = 0 if pending is None else pending.attempts - pending.exempt_attempts
    return Release(device.device_id, max(0.0, device.not_before_s - now_s), attempts, uncertain_in_s)

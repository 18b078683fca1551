"""Dispatches claimed statuses to the engine, and records their outcomes for the outbox. No I/O."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

from attrs import evolve

from printos_async._delivery.device_state import DeviceState, Outcome
from printos_async._delivery.engine import Engine
from printos_async._errors import ClientClosedError, InvalidDeviceIdError
from printos_async.outbox.protocol import Finish

from .backend import claimed_status, release_of
from .left_to_others import LeftToOthers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from printos_async._delivery.device_state import DeliveryPolicy, PendingStatus
    from printos_async._delivery.results import Reporter
    from printos_async._execution.channel import Channel
    from printos_async.outbox import Claim, Kept, Release


class Dispatcher:
    """Follows each device of a shared outbox from its claim until its completion is written.

    An outcome goes one way. The engine's outcomes are recorded for the outbox and then reported; outcomes that were
    read from the outbox are only reported.

    Attributes:
        engine: Sends the statuses of the devices that this worker owns.
        left_to_others: The statuses that were put here, and are not sent for now.
        releasing: Devices that are given back to the outbox, until that is written. Meanwhile nothing is put for this
            worker, and no put is under way: the outbox would say that the device is this worker's.
        news: Set when there are completions to be written to the outbox.
        progress: Set when a status may have been settled, and when the engine has stopped.
    """

    def __init__(self, channel: Channel, policy: DeliveryPolicy, reporter: Reporter) -> None:
        self._operations = channel.operations
        self._timeout_s = channel.timeout_s
        self._policy = policy
        self._reporter = reporter
        self._loop = asyncio.get_running_loop()
        self.engine = Engine(channel, policy, self._settle)
        self.engine.scheduler.watcher = self
        self.left_to_others = LeftToOthers(reporter, self.engine.is_active)
        self.releasing: dict[str, Release] = {}
        self.news = asyncio.Event()
        self.progress = asyncio.Event()
        # After a bug, here or there, no status is settled any more.
        self.engine.occupancy.on_end = self.progress.set
        # Owned devices, with the newest sequence number that the engine knows.
        self._owned: dict[str, int] = {}
        self._outcomes: dict[str, tuple[int, int, str | None]] = {}  # sequence number, attempts, error
        self._kept: dict[str, Finish] = {}  # completed, and still owned for what the engine remembers
        self._completed: dict[str, Finish] = {}  # to be written
        self._writing: dict[str, Finish] = {}  # being written: the outbox may not have them
        self._told: dict[object, dict[str, int]] = {}  # completions written while an answer was on its way

    # From the engine

    def rested(self, device: DeviceState) -> None:
        """Record the completion of a device's newest status, because the device has no more work pending.

        The device stays owned while the engine remembers something of it.
        """
        device_id = device.device_id
        outcome = self._outcomes.pop(device_id, None)
        if outcome is not None and device_id in self._owned:
            seq, attempts, error = outcome
            now_s = self._loop.time()
            hold_s = max(0.0, device.not_before_s - now_s)
            keep = device.remembers(self._policy, now_s=now_s)
            self._completed[device_id] = finish = Finish(device_id, seq, hold_s, attempts, error, keep)
            if keep:
                self._kept[device_id] = finish
            self.news.set()
        self.progress.set()

    def forgotten(self, device: DeviceState) -> None:
        """Record that a device need not be owned any more, because the scheduler drops its state."""
        finish = self._kept.pop(device.device_id, None)
        if finish is not None:
            self._completed[finish.device_id] = evolve(finish, hold_s=0.0, keep=False)
            self.news.set()

    def lost(self, pending: PendingStatus) -> None:
        """Leave a status to others, because the lease on its device was lost while it was in flight."""
        self.left_to_others.add(pending)

    def _settle(self, pending: PendingStatus, outcome: Outcome) -> None:
        # A superseded status has no row any more. A client that was closed says nothing of the status: it stays in the
        # outbox, and is free when the pusher is closed.
        is_final = outcome.kind != "superseded" and not isinstance(outcome.error, ClientClosedError)
        if is_final and not pending.has_ended:
            error = None if outcome.error is None else str(outcome.error)
            self._outcomes[pending.device_id] = (pending.seq, pending.attempts, error)
        self._reporter.settle(pending, outcome)

    # To the outbox

    @property
    def has_unwritten(self) -> bool:
        """Whether there are completions that the outbox may not have."""
        return bool(self._completed or self._writing)

    def take_completed(self) -> list[Finish]:
        """Return the completions to be written, including those whose earlier write may have failed."""
        self._writing |= self._completed
        self._completed = {}
        return list(self._writing.values())

    def written(self, finished: Iterable[Finish]) -> None:
        """Record that completions are written. A device that is not kept, and has no newer status, is not owned now."""
        self._writing.clear()
        for finish in finished:
            for told in self._told.values():
                told[finish.device_id] = finish.seq
            if not finish.keep and self._owned.get(finish.device_id) == finish.seq:
                del self._owned[finish.device_id]

    def give_back_held(self, max_held: int, *, min_hold_s: float) -> None:
        """Return devices of held accounts to the outbox until their next probe, but for ``max_held`` of them.

        They would take the room of devices whose accounts are accepted.
        """
        now_s = self._loop.time()
        for device, hold_s in self.engine.scheduler.held.beyond(max_held, min_hold_s=min_hold_s):
            if device.device_id not in self._owned or self._is_unwritten(device.device_id):
                continue
            release = release_of(device, now_s=now_s, timeout_s=self._timeout_s)
            pending = self.engine.give_back(device)
            if pending is None:
                continue
            release = evolve(release, hold_s=max(hold_s, release.hold_s))
            self._give_back(release)
            pending.held_until_s = now_s + release.hold_s
            self.left_to_others.add(pending)

    def give_back_newer(self, claims: Iterable[Claim]) -> list[Claim]:
        """Release devices for which others have put a newer status; return the claims of all other devices."""
        now_s = self._loop.time()
        left = []
        for claim in claims:
            device_id = claim.device_id
            if self._is_pending(device_id) or device_id in self.left_to_others.statuses:
                left.append(claim)
                continue
            device = self.engine.scheduler.devices.get(device_id) or DeviceState(device_id)
            device.sent_stands = False
            self._give_back(release_of(device, now_s=now_s, timeout_s=self._timeout_s))
        return left

    def releases(self) -> list[Release]:
        """Return the releases of all devices that are owned, and of those that are given back."""
        now_s, devices = self._loop.time(), self.engine.scheduler.devices.values()
        owned = [device for device in devices if device.device_id in self._owned]
        released = [release_of(device, now_s=now_s, timeout_s=self._timeout_s) for device in owned]
        return [*released, *self.releasing.values()]

    def lose(self) -> int:
        """Leave all devices to others, because the lease was lost; return how many were owned."""
        devices = len(self._owned)
        for lost in (self._owned, self._outcomes, self._kept, self._completed, self._writing, self.releasing):
            lost.clear()
        for pending in self.engine.drop():
            self.left_to_others.add(pending)
        return devices

    # From the outbox

    @contextmanager
    def asking(self) -> Iterator[dict[str, int]]:
        """Collect the completions that are written meanwhile, by device: an answer may be older than these."""
        question = object()
        told: dict[str, int] = {}
        self._told[question] = told
        try:
            yield told
        finally:
            del self._told[question]

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
        if known == pending.seq and self.engine.adopt(pending):
            return  # it was claimed at the same moment
        if is_new:
            self._reporter.accept(pending)
        if known > pending.seq:
            self._reporter.settle(pending, Outcome("superseded", superseded_by=known))
        elif kept.claimed and known < pending.seq and is_ours:
            self.left_to_others.take(pending.device_id, pending.seq)
            self._dispatch(pending, kept)
        else:
            self.left_to_others.add(pending)

    def take_claims(self, claims: Iterable[Claim], told: Mapping[str, int]) -> None:
        """Dispatch claimed statuses; ``told`` is as in ``take_kept``."""
        for claim in claims:
            if claim.seq <= self._known_seq(claim.device_id, told):
                continue
            pending = self.left_to_others.take(claim.device_id, claim.seq)
            if pending is None:
                try:
                    pending = claimed_status(claim, self._operations, now_s=self._loop.time())
                except InvalidDeviceIdError as error:  # put by something other than this package
                    rejected = Finish(claim.device_id, claim.seq, error=str(error))
                    self._completed[claim.device_id] = rejected
                    self.news.set()
                    continue
                self._reporter.accept(pending)
            self._dispatch(pending, claim)

    def _is_unwritten(self, device_id: str) -> bool:
        return device_id in self._completed or device_id in self._writing

    def _is_pending(self, device_id: str) -> bool:
        return self.engine.is_active(device_id) or self._is_unwritten(device_id)

    def _known_seq(self, device_id: str, told: Mapping[str, int]) -> int:
        """Return the highest sequence number of a device that is pending here or was completed meanwhile.

        A completion counts no more once it is written. If its status is claimed again, the outbox has lost the write:
        a server that failed may be followed by one that lacks the last commits.
        """
        known = self._owned.get(device_id, 0)
        if known and not self._is_pending(device_id):
            known = 0
        return max(known, told.get(device_id, 0))

    def _dispatch(self, pending: PendingStatus, claim: Claim | Kept) -> None:
        self._owned[pending.device_id] = pending.seq
        self._kept.pop(pending.device_id, None)
        self.engine.take(pending, uncertain_age_s=claim.uncertain_age_s)

    def _give_back(self, release: Release) -> None:
        self._owned.pop(release.device_id, None)
        # An older status's: the newer one stands for it. Written after a release that failed, its completion would
        # return the newer one as this worker's, and the next release would free the device nevertheless.
        for older in (self._outcomes, self._kept, self._completed):
            older.pop(release.device_id, None)
        self.releasing[release.device_id] = release

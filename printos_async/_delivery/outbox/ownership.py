"""The devices of a shared outbox that a worker owns, and the completions that it has to write. No I/O."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

from attrs import evolve

from printos_async.outbox.protocol import Finish

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from printos_async._delivery.device_state import Outcome, PendingStatus
    from printos_async.outbox.protocol import Release


class Ownership:
    """Follows each device from its claim until its completion is written to the outbox.

    Attributes:
        elsewhere: The newest status of each device that was put here, and that another worker is to send, or this
            one after a later claim.
        releasing: Devices that are given back to the outbox, until that is written. Meanwhile nothing is put for this
            worker, and no put is under way: the outbox would say that the device is this worker's.
        writing: Held while something is put or devices are given back.
    """

    def __init__(self) -> None:
        self.elsewhere: dict[str, PendingStatus] = {}
        self.releasing: dict[str, Release] = {}
        self.writing = asyncio.Lock()
        self._owned: dict[
            str, int
        ] = {}  # owned devices, with the newest sequence number that the engine knows
        self._outcomes: dict[str, tuple[int, int, str | None]] = {}  # sequence number, attempts, error
        self._kept: dict[str, Finish] = {}  # completed, and still owned for what the engine remembers
        self._completed: dict[str, Finish] = {}  # to be written
        self._writing: dict[str, Finish] = {}  # being written: the outbox may not have them
        self._told: dict[object, dict[str, int]] = {}  # completions written while an answer was on its way

    def owned_seq(self, device_id: str) -> int:
        """Return the newest sequence number that the engine knows of an owned device; 0 for any other."""
        return self._owned.get(device_id, 0)

    @property
    def has_unwritten(self) -> bool:
        """Whether there are completions that the outbox may not have."""
        return bool(self._completed or self._writing)

    def is_unwritten(self, device_id: str) -> bool:
        """Return whether there is a completion of a device that the outbox may not have."""
        return device_id in self._completed or device_id in self._writing

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

    def own(self, pending: PendingStatus) -> None:
        """Record that the engine has a status of an owned device."""
        self._owned[pending.device_id] = pending.seq
        self._kept.pop(pending.device_id, None)

    def settle(self, pending: PendingStatus, outcome: Outcome) -> None:
        """Record the final outcome of a status that the engine has sent or given up."""
        error = None if outcome.error is None else str(outcome.error)
        self._outcomes[pending.device_id] = (pending.seq, pending.attempts, error)

    def complete(self, device_id: str, *, hold_s: float, keep: bool) -> bool:
        """Record that a device has no more work pending; False if there is nothing to write.

        Args:
            device_id: The device.
            hold_s: Seconds in which no worker is to send anything for it.
            keep: The engine remembers something of it: it stays owned until that is forgotten.
        """
        outcome = self._outcomes.pop(device_id, None)
        if outcome is None or device_id not in self._owned:
            return False
        seq, attempts, error = outcome
        self._completed[device_id] = finish = Finish(device_id, seq, hold_s, attempts, error, keep)
        if keep:
            self._kept[device_id] = finish
        return True

    def reject(self, finish: Finish) -> None:
        """Record the completion of a claim that the engine cannot take."""
        self._completed[finish.device_id] = finish

    def forget(self, device_id: str) -> bool:
        """Record that the engine remembers nothing of a device any more; False if there is nothing to write."""
        finish = self._kept.pop(device_id, None)
        if finish is None:
            return False
        self._completed[device_id] = evolve(finish, hold_s=0.0, keep=False)
        return True

    def give_back(self, release: Release) -> None:
        """Record that a device with a waiting status is not owned any more, once that is written."""
        self._owned.pop(release.device_id, None)
        # An older status's: the newer one stands for it. Written after a release that failed, its completion would
        # return the newer one as this worker's, and the next release would free the device nevertheless.
        for older in (self._outcomes, self._kept, self._completed):
            older.pop(release.device_id, None)
        self.releasing[release.device_id] = release

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

    def lose(self) -> int:
        """Record that the lease was lost, and return the number of devices that were owned."""
        devices = len(self._owned)
        for lost in (self._owned, self._outcomes, self._kept, self._completed, self._writing, self.releasing):
            lost.clear()
        return devices

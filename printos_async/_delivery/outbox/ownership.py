"""Which devices of a shared outbox this process owns, and what it has to tell the outbox of them. No I/O."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from attrs import evolve

from printos_async.outbox.protocol import Finish

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from printos_async._delivery.device_state import PendingStatus


class Ownership:
    """Follows each device from its claim until the outbox knows what became of it.

    Attributes:
        elsewhere: Of each device the newest status that was put here, and that somebody else is to send, or this
            process later.
        finished: What the outbox is to be told, by device.
    """

    def __init__(self) -> None:
        self.elsewhere: dict[str, PendingStatus] = {}
        self.finished: dict[str, Finish] = {}
        self._telling: dict[str, Finish] = {}  # taken out of ``finished``: the outbox may not know it
        self._held: dict[str, int] = {}  # owned devices, with the newest number that the engine knows
        self._outcomes: dict[str, tuple[int, int, str | None]] = {}  # number, attempts, error
        self._kept: dict[str, Finish] = {}  # finished, and owned for what is remembered
        self._told: dict[object, dict[str, int]] = {}  # what was told while an answer was on its way

    def held_seq(self, device_id: str) -> int:
        """Give the newest number that the engine knows of an owned device; 0 for any other."""
        return self._held.get(device_id, 0)

    @property
    def has_news(self) -> bool:
        """Whether the outbox is still to be told something."""
        return bool(self.finished or self._telling)

    def is_untold(self, device_id: str) -> bool:
        """Whether the outbox is still to be told what became of a device's newest status."""
        return device_id in self.finished or device_id in self._telling

    @contextmanager
    def asking(self) -> Iterator[dict[str, int]]:
        """Give the numbers that the outbox is told meanwhile, by device: an answer may be older than these."""
        question = object()
        told: dict[str, int] = {}
        self._told[question] = told
        try:
            yield told
        finally:
            del self._told[question]

    def hold(self, pending: PendingStatus) -> None:
        """Note that the engine has got a status of an owned device."""
        self._held[pending.device_id] = pending.seq
        self._kept.pop(pending.device_id, None)

    def settle(self, pending: PendingStatus, error: str | None) -> None:
        """Note that a status was delivered or given up."""
        self._outcomes[pending.device_id] = (pending.seq, pending.attempts, error)

    def rest(self, device_id: str, *, hold_s: float, keep: bool) -> bool:
        """Note that nothing is left to do for a device; False if there is nothing to tell.

        Args:
            device_id: The device.
            hold_s: Seconds in which nobody is to send anything for it.
            keep: Something is remembered of it: it stays owned until it is forgotten.
        """
        outcome = self._outcomes.pop(device_id, None)
        if outcome is None or device_id not in self._held:
            return False
        seq, attempts, error = outcome
        self.finished[device_id] = finish = Finish(device_id, seq, hold_s, attempts, error, keep)
        if keep:
            self._kept[device_id] = finish
        return True

    def forget(self, device_id: str) -> bool:
        """Note that nothing is remembered of a device any more; False if there is nothing to tell."""
        finish = self._kept.pop(device_id, None)
        if finish is None:
            return False
        self.finished[device_id] = evolve(finish, hold_s=0.0, keep=False)
        return True

    def take_finished(self) -> list[Finish]:
        """Take out what the outbox is to be told, with what it was to be told before and may not have heard."""
        self._telling |= self.finished
        self.finished = {}
        return list(self._telling.values())

    def told(self, finished: Iterable[Finish]) -> None:
        """Note that the outbox knows: what is not kept, and has nothing newer, is not owned any more."""
        self._telling.clear()
        for finish in finished:
            for told in self._told.values():
                told[finish.device_id] = finish.seq
            if not finish.keep and self._held.get(finish.device_id) == finish.seq:
                del self._held[finish.device_id]

    def lose(self) -> int:
        """Note that nothing is owned any more; gives how many devices were."""
        devices = len(self._held)
        for lost in (self._held, self._outcomes, self._kept, self.finished, self._telling):
            lost.clear()
        return devices

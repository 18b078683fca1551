"""Counts what hooks are told: every accepted status has one end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from attrs import define, field

from printos_async import StatusAccepted, StatusFailed, StatusSent, StatusSuperseded, StatusWithdrawn

if TYPE_CHECKING:
    from printos_async import PusherStats

ENDS = (StatusSent, StatusSuperseded, StatusFailed, StatusWithdrawn)


@define
class Ends:
    """A hook. An outbox may bring a status twice to one pusher: it is then accepted twice, and ends twice."""

    accepted: Counter[tuple[str, int]] = field(factory=Counter)
    ended: Counter[tuple[str, int]] = field(factory=Counter)
    kinds: Counter[type] = field(factory=Counter)

    def __call__(self, event: object) -> None:
        if isinstance(event, StatusAccepted):
            self.accepted[event.device_id, event.seq] += 1
        elif isinstance(event, ENDS):
            key = (event.device_id, event.seq)
            self.ended[key] += 1
            self.kinds[type(event)] += 1
            assert self.ended[key] <= self.accepted[key], event

    def check(self, stats: PusherStats) -> None:
        """Compare the events with the account of a pusher that was closed."""
        assert self.ended == self.accepted
        assert stats.sent + stats.superseded + stats.failed + stats.pending == stats.accepted
        assert stats.pending >= 0
        settled = (stats.sent, stats.superseded, stats.failed)
        assert tuple(self.kinds[kind] for kind in ENDS[:3]) == settled

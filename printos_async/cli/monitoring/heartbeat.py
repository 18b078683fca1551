"""Heartbeat of an event loop: samples of what runs on it, for other threads and for the service manager."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from printos_async._delivery.pusher import PusherStats, StatusPusher

_NOT_STARTED: Mapping[str, str] = {"not_started": "it is starting"}


@frozen
class Sample:
    """State of a command at one moment.

    Attributes:
        reasons: Why statuses do not get through, as in ``PusherHealth``.
        stats: The pusher's counts; None before there is a pusher.
        taken_s: The moment, by ``time.monotonic``.
    """

    reasons: Mapping[str, str] = _NOT_STARTED
    stats: PusherStats | None = None
    taken_s: float = field(factory=time.monotonic)

    @property
    def age_s(self) -> float:
        """Seconds since it was taken."""
        return time.monotonic() - self.taken_s


class Heartbeat:
    """Takes samples on the event loop. Other threads read the last one, without a lock and even if the loop is blocked.

    Args:
        stall_s: Seconds without a sample after which the event loop counts as stalled.

    Attributes:
        latest: The last sample.
        pusher: What is sampled, once there is one.
    """

    def __init__(self, *, stall_s: float) -> None:
        self._stall_s = stall_s
        self.latest = Sample()
        self.pusher: StatusPusher | None = None

    def beat(self) -> Sample:
        """Take a sample; call it on the event loop."""
        if self.pusher is None:
            self.latest = Sample()
        else:
            reasons = dict[str, str](self.pusher.health().reasons.items())
            self.latest = Sample(reasons, self.pusher.stats())
        return self.latest

    def stalled(self) -> Mapping[str, str]:
        """Return a reason if the event loop is blocked, else nothing."""
        age_s = self.latest.age_s
        if age_s < self._stall_s:
            return {}
        return {"stalled": f"the event loop has been blocked for {age_s:.0f} s"}

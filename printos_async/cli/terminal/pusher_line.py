"""A pusher's state in one line, for a live display."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from printos_async._delivery.pusher import PusherStats

_RATE_SPAN_S = 5.0


class PusherLine:
    """Describes one pusher; the rate is that of the last five seconds."""

    def __init__(self) -> None:
        self._history: deque[tuple[float, int]] = deque()

    def describe(self, stats: PusherStats, *, retries: int) -> str:
        """Describe this moment."""
        now_s = time.monotonic()
        self._history.append((now_s, stats.sent))
        while now_s - self._history[0][0] > _RATE_SPAN_S:
            self._history.popleft()
        then_s, sent_then = self._history[0]
        rate = (stats.sent - sent_then) / max(now_s - then_s, 0.001)
        parts = [
            f"{stats.sent:,} sent",
            f"{rate:,.0f}/s",
            f"{stats.in_flight} of {stats.limit} in flight",
            f"{stats.pending:,} pending",
            f"{retries:,} retries",
        ]
        if stats.failed:
            parts.append(f"{stats.failed:,} failed")
        if stats.circuit == "open":
            parts.append("server down")
        return " · ".join(parts)

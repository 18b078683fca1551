"""What became of statuses, as one process tells another: in order, some hundred at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from printos_async._events import RetryScheduled, StatusReasserted

from .report.counts import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from printos_async._events import Event
    from printos_async._models import PushResult

    from .report.counts import Tally

# Seldom enough to cost nothing for a status, often enough for a live display and for a failures file.
_INTERVAL_S = 0.05
_AT_ONCE = 500


class Outcomes:
    """Collects outcomes, and tells them every 50 ms.

    Args:
        tell: Takes each message, which ``take`` reads.
    """

    def __init__(self, tell: Callable[[Mapping[str, Any]], None]) -> None:
        self._tell = tell
        self._timer: asyncio.TimerHandle | None = None
        self._start_anew()

    def on_event(self, event: Event) -> None:
        """Count retries; a hook."""
        if isinstance(event, RetryScheduled):
            self._retries += 1
        elif isinstance(event, StatusReasserted):
            self._reasserted += 1

    def on_result(self, result: PushResult) -> None:
        """Take a result."""
        # Within a message failures come last, so an outcome after a failure belongs into the next one.
        if (self._failed and result.outcome != "failed") or self._count >= _AT_ONCE:
            self._flush()
        self._count += 1
        if result.outcome == "sent":
            self._sent.append(result.device_id)
        elif result.outcome == "superseded":
            self._superseded.append(result.device_id)
        else:
            self._failed.append(Failure.of(result).to_json())
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_INTERVAL_S, self._flush)

    def end(self) -> None:
        """Tell the rest, and that it is the last."""
        self._flush(is_last=True)

    def _start_anew(self) -> None:
        self._count = 0
        self._sent: list[str] = []
        self._superseded: list[str] = []
        self._failed: list[dict[str, Any]] = []
        self._retries = 0
        self._reasserted = 0

    def _flush(self, *, is_last: bool = False) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        message = {
            "sent": self._sent,
            "superseded": self._superseded,
            "failed": self._failed,
            "retries": self._retries,
            "reasserted": self._reasserted,
            "isLast": is_last,
        }
        self._start_anew()
        self._tell(message)


def take(message: Mapping[str, Any], tally: Tally) -> bool:
    """Count what a message tells; gives whether it was the last one."""
    for device_id in message["sent"]:
        tally.on_sent(device_id)
    for device_id in message["superseded"]:
        tally.on_superseded(device_id)
    for failure in message["failed"]:
        tally.on_failed(Failure.from_json(failure))
    tally.retries += message["retries"]
    tally.reasserted += message["reasserted"]
    return bool(message["isLast"])

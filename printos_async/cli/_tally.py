"""What became of the statuses of one command, counted in bounded memory."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from printos_async._events import RetryScheduled
from printos_async._models import StatusPush

from ._output import complain
from ._records import line_of

if TYPE_CHECKING:
    import asyncio

    from printos_async._events import Event
    from printos_async._models import DeviceStatusUpdate, PushResult

    from ._failures import FailuresFile

MAX_FAILURES_SHOWN = 10
_MAX_FAILURES_KEPT = 100


class Tally:
    """Counts results, keeps what was not sent, and knows what is still open.

    Args:
        failures: Where statuses that were not sent are kept.
        stop: Set when they cannot be kept: reading on would lose more.

    Attributes:
        sent: Statuses that the server acknowledged.
        superseded: Statuses that a newer one of their device replaced.
        failed: Statuses given up by the client.
        unsent: Statuses given up by this command, because it was told to end.
        retries: Requests that were tried again.
        errors: Failures by the name of their error.
        shown: The first failures.
        problem: What kept the command from doing its work, or None.
    """

    def __init__(self, *, failures: FailuresFile | None, stop: asyncio.Event) -> None:
        self._failures = failures
        self._stop = stop
        # Those that were handed to the client and are not settled; as many devices as the client holds, at most.
        self._open: dict[str, tuple[int, DeviceStatusUpdate]] = {}
        self.sent = 0
        self.superseded = 0
        self.failed = 0
        self.unsent = 0
        self.retries = 0
        self.errors: Counter[str] = Counter()
        self.shown: list[PushResult] = []
        self.problem: str | None = None

    def on_event(self, event: Event) -> None:
        """Count retries; a hook."""
        if isinstance(event, RetryScheduled):
            self.retries += 1

    def on_handed_over(self, push: StatusPush) -> None:
        """Take note that a status goes to the client."""
        count, _ = self._open.get(push.device_id, (0, None))
        self._open[push.device_id] = (count + 1, push.status)

    def on_result(self, result: PushResult) -> None:
        """Count a result."""
        count, newest = self._open[result.device_id]
        if count > 1:
            self._open[result.device_id] = (count - 1, newest)
        else:
            del self._open[result.device_id]
        if result.outcome == "sent":
            self.sent += 1
            self._drop(result.device_id)
        elif result.outcome == "superseded":
            self.superseded += 1
        else:
            self.failed += 1
            self.errors[type(result.error).__name__] += 1
            if len(self.shown) < _MAX_FAILURES_KEPT:
                self.shown.append(result)
            if result.status is not None:
                self._keep(StatusPush(result.device_id, result.status))

    def give_up(self, pushes: list[StatusPush]) -> None:
        """Count what is open, and what was never handed over, as not sent."""
        # Results of one device come in the order of its statuses, so what is open is its newest.
        for device_id, (count, newest) in self._open.items():
            self.unsent += count
            self._keep(StatusPush(device_id, newest))
        self._open.clear()
        for push in pushes:
            self.unsent += 1
            self._keep(push)

    def to_json(self) -> dict[str, Any]:
        """Give the account for machines."""
        return {
            "sent": self.sent,
            "superseded": self.superseded,
            "failed": self.failed,
            "unsent": self.unsent,
            "retries": self.retries,
            "errors": dict(self.errors),
            "failures": [
                {
                    "deviceId": result.device_id,
                    "error": type(result.error).__name__,
                    "message": str(result.error),
                    "attempts": result.attempts,
                }
                for result in self.shown
            ],
        }

    def complain_of_failures(self) -> None:
        """Name the first failures on standard error."""
        for result in self.shown[:MAX_FAILURES_SHOWN]:
            complain(f"{result.device_id}: {result.error}")
        if self.failed > MAX_FAILURES_SHOWN:
            kinds = ", ".join(f"{count} {name}" for name, count in self.errors.most_common())
            complain(f"{self.failed} statuses failed, the first {MAX_FAILURES_SHOWN} are above: {kinds}")

    def _drop(self, device_id: str) -> None:
        if self._failures is not None:
            try:
                self._failures.drop(device_id)
            except OSError as error:
                self._on_write_error(error)

    def _keep(self, push: StatusPush) -> None:
        if self._failures is None:
            return
        try:
            self._failures.keep(push)
        except OSError as error:
            self._on_write_error(error)
            # The last place left where it can be kept.
            sys.stderr.write(line_of(push).decode())

    def _on_write_error(self, error: OSError) -> None:
        if self.problem is None and self._failures is not None:
            self.problem = f"cannot write {self._failures.path}: {error.strerror}"
            complain(f"{self.problem}; reading ends here, and what fails from now on follows as lines")
            self._stop.set()

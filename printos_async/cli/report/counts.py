"""What became of the statuses of one command, counted in bounded memory."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

from attrs import frozen

from printos_async._events import (
    RetryScheduled,
    StatusFailed,
    StatusReasserted,
    StatusSent,
    StatusSuperseded,
)
from printos_async.cli.input.records import line_of
from printos_async.cli.terminal.output import complain, count_statuses

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from printos_async._events import Event
    from printos_async._models import PushResult, StatusPush

    from .files import FailuresFile

MAX_FAILURES_SHOWN = 10
_MAX_FAILURES_KEPT = 100


@frozen
class Failure:
    """One status that was given up."""

    device_id: str
    error: str
    message: str
    attempts: int

    def to_json(self) -> dict[str, Any]:
        """Give it for machines."""
        return {
            "deviceId": self.device_id,
            "error": self.error,
            "message": self.message,
            "attempts": self.attempts,
        }

    @classmethod
    def of(cls, result: PushResult) -> Self:
        """Give what a failed result says."""
        error = result.error
        return cls(result.device_id, type(error).__name__, str(error), result.attempts)


class Counts:
    """Counts results, keeps what was not sent, and knows what is still open.

    Args:
        failures: Where statuses that were not sent are kept.
        stop: Set when they cannot be kept: reading on would lose more.
        names_failures: Whether to name the first failures on standard error as they come.

    Attributes:
        accepted: Statuses that an outbox has kept.
        sent: Statuses that the server acknowledged.
        superseded: Statuses that a newer one of their device replaced.
        failed: Statuses given up by the client.
        unsent: Statuses given up by this command, because it was told to end.
        retries: Requests that were tried again.
        reasserted: Statuses sent once more, because an older one may have landed on them.
        errors: Failures by the name of their error.
        shown: The first failures.
        problem: What kept the command from doing its work, or None.
    """

    def __init__(
        self, *, failures: FailuresFile | None, stop: asyncio.Event, names_failures: bool = True
    ) -> None:
        self._failures = failures
        self._names_failures = names_failures
        self._stop = stop
        # Those that were handed over and are not settled: how many of each device, and the newest of them.
        self._open: dict[str, tuple[int, StatusPush]] = {}
        self.accepted = 0
        self.sent = 0
        self.superseded = 0
        self.failed = 0
        self.unsent = 0
        self.retries = 0
        self.reasserted = 0
        self.errors: Counter[str] = Counter()
        self.shown: list[Failure] = []
        self.problem: str | None = None

    @property
    def open_devices(self) -> int:
        """Devices with a status that is not settled."""
        return len(self._open)

    def on_event(self, event: Event) -> None:
        """Count retries; a hook."""
        if isinstance(event, RetryScheduled):
            self.retries += 1
        elif isinstance(event, StatusReasserted):
            self.reasserted += 1

    def on_outcome(self, event: Event) -> None:
        """Count what became of a status; a hook, where no results are given back."""
        if isinstance(event, StatusSent):
            self.on_sent(event.device_id)
        elif isinstance(event, StatusSuperseded):
            self.on_superseded(event.device_id)
        elif isinstance(event, StatusFailed):
            self.on_failed(Failure(event.device_id, event.cause, event.cause, event.attempts))

    def on_handed_over(self, push: StatusPush) -> None:
        """Take note that a status goes to the client."""
        count, _ = self._open.get(push.device_id, (0, None))
        self._open[push.device_id] = (count + 1, push)

    def on_result(self, result: PushResult) -> None:
        """Count a result."""
        if result.outcome == "sent":
            self.on_sent(result.device_id)
        elif result.outcome == "superseded":
            self.on_superseded(result.device_id)
        else:
            self.on_failed(Failure.of(result))

    def on_sent(self, device_id: str) -> None:
        """Count a status of a device that was acknowledged."""
        self._settle(device_id)
        self.sent += 1
        self._drop(device_id)

    def on_accepted(self, device_id: str) -> None:
        """Count a status of a device that an outbox has kept: sending it is not this command's any more."""
        self._settle(device_id)
        self.accepted += 1
        self._drop(device_id)

    def on_superseded(self, device_id: str) -> None:
        """Count a status of a device that was replaced."""
        self._settle(device_id)
        self.superseded += 1

    def on_failed(self, failure: Failure) -> None:
        """Count a status that was given up, and keep it if it was its device's newest."""
        newest = self._settle(failure.device_id)
        self.failed += 1
        self.errors[failure.error] += 1
        if self._names_failures and self.failed <= MAX_FAILURES_SHOWN:
            complain(f"{failure.device_id}: {failure.message}")
        if len(self.shown) < _MAX_FAILURES_KEPT:
            self.shown.append(failure)
        if newest is not None:
            self._keep(newest)

    def give_up(self, pushes: list[StatusPush]) -> None:
        """Count what is open, and what was never handed over, as not sent."""
        for count, newest in self._open.values():
            self.unsent += count
            self._keep(newest)
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
            "reasserted": self.reasserted,
            "errors": dict(self.errors),
            "failures": [failure.to_json() for failure in self.shown],
        }

    @property
    def failures_path(self) -> Path | None:
        """The file that keeps what was not sent, if there is one."""
        return None if self._failures is None else self._failures.path

    def complain_of_failures(self) -> None:
        """Count the failures on standard error, and say what to do next."""
        if not self.failed:
            return
        kinds = ", ".join(f"{count:,} {name}" for name, count in self.errors.most_common())
        text = f"{count_statuses(self.failed)} failed ({kinds})"
        if self._names_failures and self.failed > MAX_FAILURES_SHOWN:
            text += f", the first {MAX_FAILURES_SHOWN} are named above"
        if self._failures is None:
            text += "; add --failures FILE to keep what fails in lines that can be pushed again"
        elif self.problem is None and self._failures.is_regular:
            text += f"; printos push {self._failures.path} sends again what it keeps"
        complain(text)

    def _settle(self, device_id: str) -> StatusPush | None:
        """Take out a status; give it if it was its device's newest, for only that one is worth keeping."""
        # Results of one device come in the order of its statuses, so what is open is its newest.
        count, newest = self._open[device_id]
        if count > 1:
            self._open[device_id] = (count - 1, newest)
            return None
        del self._open[device_id]
        return newest

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

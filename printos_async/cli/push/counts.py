"""Counts of outcomes, in bounded memory."""

from __future__ import annotations

import shlex
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
        """Return the failure as JSON values."""
        return {
            "deviceId": self.device_id,
            "error": self.error,
            "message": self.message,
            "attempts": self.attempts,
        }

    @classmethod
    def of(cls, result: PushResult) -> Self:
        """Return the failure of a failed result."""
        error = result.error
        return cls(result.device_id, type(error).__name__, str(error), result.attempts)


class Counts:
    """Counts outcomes, keeps statuses that were not sent, and tracks open ones.

    Args:
        failures: Keeps statuses that were not sent.
        stop: Set when they cannot be kept, for reading on would lose more.
        names_failures: Whether to name the first failures on standard error as they come.

    Attributes:
        accepted: Statuses that the outbox accepted.
        sent: Statuses that the server acknowledged.
        superseded: Statuses replaced by a newer one of their device.
        failed: Statuses that the client gave up.
        unsent: Statuses that this command gave up because it was stopped.
        retries: Retried requests.
        reasserted: Statuses sent again because an older one may have overwritten them.
        errors: Failures by the name of their error.
        shown: The first failures.
        problem: Why reading ended early, or None.
    """

    def __init__(
        self, *, failures: FailuresFile | None, stop: asyncio.Event, names_failures: bool = True
    ) -> None:
        self._failures = failures
        self._names_failures = names_failures
        self._stop = stop
        # Statuses without an outcome: how many of each device, and the newest of them.
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
        """Number of devices with a status without an outcome."""
        return len(self._open)

    def on_event(self, event: Event) -> None:
        """Count retries; a hook of the client."""
        if isinstance(event, RetryScheduled):
            self.retries += 1
        elif isinstance(event, StatusReasserted):
            self.reasserted += 1

    def on_outcome(self, event: Event) -> None:
        """Count the outcome of a status; a hook of the client, for pushers, which return no results."""
        if isinstance(event, StatusSent):
            self.on_sent(event.device_id)
        elif isinstance(event, StatusSuperseded):
            self.on_superseded(event.device_id)
        elif isinstance(event, StatusFailed):
            self.on_failed(Failure(event.device_id, event.cause, event.cause, event.attempts))

    def on_handed_over(self, push: StatusPush) -> None:
        """Record that a status is handed to the client."""
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
        """Count a status that was acknowledged."""
        self._settle(device_id)
        self.sent += 1
        self._drop(device_id)

    def on_accepted(self, device_id: str) -> None:
        """Count a status that the outbox accepted."""
        self._settle(device_id)
        self.accepted += 1
        self._drop(device_id)

    def on_superseded(self, device_id: str) -> None:
        """Count a status that was replaced by a newer one."""
        self._settle(device_id)
        self.superseded += 1

    def on_failed(self, failure: Failure) -> None:
        """Count a status that failed, and keep it if it was its device's newest."""
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
        """Count open statuses, and those that were never handed over, as not sent."""
        for count, newest in self._open.values():
            self.unsent += count
            self._keep(newest)
        self._open.clear()
        for push in pushes:
            self.unsent += 1
            self._keep(push)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
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
        """Report the number of failures on standard error, and what to do next."""
        if not self.failed:
            return
        kinds = ", ".join(f"{count:,} {name}" for name, count in self.errors.most_common())
        text = f"{count_statuses(self.failed)} failed ({kinds})"
        if self._names_failures and self.failed > MAX_FAILURES_SHOWN:
            text += f", the first {MAX_FAILURES_SHOWN} are named above"
        if self._failures is None:
            text += "; add --failures FILE to keep what fails in lines that can be pushed again"
        elif self.problem is None and self._failures.is_regular:
            text += f"; printos push {shlex.quote(str(self._failures.path))} sends again what it keeps"
        complain(text)

    def _settle(self, device_id: str) -> StatusPush | None:
        """Remove an open status and return it if it was its device's newest: only that one is kept."""
        # Outcomes of a device come in the order of its statuses, so the last open one is its newest.
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
            # The last place where it can be kept.
            sys.stderr.write(line_of(push).decode())

    def _on_write_error(self, error: OSError) -> None:
        if self.problem is None and self._failures is not None:
            self.problem = f"cannot write {self._failures.path}: {error.strerror}"
            complain(f"{self.problem}; reading ends here, and what fails from now on follows as lines")
            self._stop.set()

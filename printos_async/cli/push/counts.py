"""Counts of outcomes, in bounded memory."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

from attrs import frozen

from printos_async._events import (
    CircuitChanged,
    RetryScheduled,
    StatusFailed,
    StatusReasserted,
    StatusSent,
    StatusSuperseded,
)
from printos_async.cli.input.records import line_of
from printos_async.cli.terminal.output import complain, complain_of_circuit, members

if TYPE_CHECKING:
    import asyncio

    from printos_async._events import Event
    from printos_async._models import PushResult, StatusPush

    from .files import FailuresFile

MAX_FAILURES_SHOWN = 10
_MAX_FAILURES_KEPT = 100


@frozen
class Failure:
    """A failed status: its error, and how many requests were sent."""

    device_id: str
    error: str
    message: str
    attempts: int

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
        is_followed: Whether the client's events are the outcomes; the library's warnings then name the failures.

    Attributes:
        failures: Keeps statuses that were not sent, if anything does.
        is_followed: As given.
        accepted: Statuses that the outbox accepted.
        sent: Statuses that the server acknowledged.
        superseded: Statuses replaced by a newer one of their device.
        failed: Statuses that failed.
        unsent: Statuses without an outcome when this command was stopped.
        retries: Retried requests.
        reasserted: Statuses sent again because an older one may have overwritten them.
        errors: Failures by the name of their error.
        shown: The first failures.
        problem: Why reading ended early, or None.
    """

    def __init__(self, *, failures: FailuresFile | None, stop: asyncio.Event, is_followed: bool) -> None:
        self.failures = failures
        self.is_followed = is_followed
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
        """Count what an event says, and report outages of a source that is followed; a hook of the client."""
        if isinstance(event, RetryScheduled):
            self.retries += 1
        elif isinstance(event, StatusReasserted):
            self.reasserted += 1
        elif self.is_followed:  # a pusher returns no results
            self._on_followed_event(event)

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
        if not self.is_followed and self.failed <= MAX_FAILURES_SHOWN:
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
            "failures": [members(failure) for failure in self.shown],
        }

    def end_reading(self, problem: str) -> None:
        """End reading because of a problem, for what is read on would be lost; the first one is reported."""
        self.problem = self.problem or problem
        self._stop.set()

    def _on_followed_event(self, event: Event) -> None:
        match event:
            case StatusSent():
                self.on_sent(event.device_id)
            case StatusSuperseded():
                self.on_superseded(event.device_id)
            case StatusFailed():
                self.on_failed(Failure(event.device_id, event.cause, event.cause, event.attempts))
            case CircuitChanged():
                complain_of_circuit(event)

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
        if self.failures is not None:
            try:
                self.failures.drop(device_id)
            except OSError as error:
                self._on_write_error(error)

    def _keep(self, push: StatusPush) -> None:
        if self.failures is None:
            return
        try:
            self.failures.keep(push)
        except OSError as error:
            self._on_write_error(error)
            # The last place where it can be kept.
            sys.stderr.write(line_of(push).decode())

    def _on_write_error(self, error: OSError) -> None:
        if self.problem is None and self.failures is not None:
            problem = f"cannot write {self.failures.path}: {error.strerror}"
            complain(f"{problem}; reading ends here, and what fails from now on follows as lines")
            self.end_reading(problem)

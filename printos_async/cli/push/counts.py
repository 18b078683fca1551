"""Counts of outcomes, in bounded memory."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from printos_async._events import (
    RetryScheduled,
    StatusFailed,
    StatusReasserted,
    StatusSent,
    StatusSuperseded,
)
from printos_async.cli.input.records import line_of
from printos_async.cli.terminal.output import complain

if TYPE_CHECKING:
    import asyncio

    from printos_async._events import Event
    from printos_async._models import StatusPush

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


@define(eq=False, kw_only=True)
class Counts:
    """Counts outcomes, keeps statuses that were not sent, and tracks open ones.

    Attributes:
        failures: Keeps statuses that were not sent, if anything does.
        stop: Set when they cannot be kept, for reading on would lose more.
        has_pusher: Whether a long-lived pusher sends. The library's warnings then name the failures.
        done: Statuses that the server acknowledged, or, where nothing is sent, that the outbox accepted.
        superseded: Statuses replaced by a newer one of their device.
        failed: Statuses that failed.
        unsent: Statuses without an outcome when this command was stopped.
        retries: Retried requests.
        reasserted: Statuses sent again because an older one may have overwritten them.
        errors: Failures by the name of their error.
        shown: The first failures.
        problem: Why reading ended early, or None.
    """

    failures: FailuresFile | None
    stop: asyncio.Event
    has_pusher: bool
    done: int = 0
    superseded: int = 0
    failed: int = 0
    unsent: int = 0
    retries: int = 0
    reasserted: int = 0
    errors: Counter[str] = field(factory=Counter)
    shown: list[Failure] = field(factory=list)
    problem: str | None = None
    # Statuses without an outcome: how many of each device, and the newest of them.
    _open: dict[str, tuple[int, StatusPush]] = field(factory=dict, init=False)

    @property
    def open_devices(self) -> int:
        """Number of devices with a status without an outcome."""
        return len(self._open)

    def on_event(self, event: Event) -> None:
        """Count what an event says; a hook of the client."""
        match event:
            case StatusSent():
                self.on_done(event.device_id)
            case StatusSuperseded():
                self._settle(event.device_id)
                self.superseded += 1
            case StatusFailed():
                self._on_failed(event)
            case RetryScheduled():
                self.retries += 1
            case StatusReasserted():
                self.reasserted += 1

    def on_handed_over(self, push: StatusPush) -> None:
        """Record that a status is handed to the client."""
        count, _ = self._open.get(push.device_id, (0, None))
        self._open[push.device_id] = (count + 1, push)

    def on_done(self, device_id: str) -> None:
        """Count a status that was acknowledged or accepted."""
        self._settle(device_id)
        self.done += 1
        self._record(device_id, None)

    def give_up(self, pushes: list[StatusPush]) -> None:
        """Count open statuses, and those that were never handed over, as not sent."""
        for count, newest in self._open.values():
            self.unsent += count
            self._record(newest.device_id, newest)
        self._open.clear()
        for push in pushes:
            self.unsent += 1
            self._record(push.device_id, push)

    def end_reading(self, problem: str) -> None:
        """End reading because of a problem, for what is read on would be lost; the first one is reported."""
        self.problem = self.problem or problem
        self.stop.set()

    def _on_failed(self, event: StatusFailed) -> None:
        newest = self._settle(event.device_id)
        self.failed += 1
        self.errors[event.cause] += 1
        if not self.has_pusher and self.failed <= MAX_FAILURES_SHOWN:
            complain(f"{event.device_id}: {event.detail}")
        if len(self.shown) < _MAX_FAILURES_KEPT:
            message = event.cause if self.has_pusher else event.detail
            self.shown.append(Failure(event.device_id, event.cause, message, event.attempts))
        if newest is not None:
            self._record(event.device_id, newest)

    def _settle(self, device_id: str) -> StatusPush | None:
        """Remove an open status and return it if it was its device's newest: only that one is kept."""
        # Outcomes of a device come in the order of its statuses, so the last open one is its newest.
        count, newest = self._open[device_id]
        if count > 1:
            self._open[device_id] = (count - 1, newest)
            return None
        del self._open[device_id]
        return newest

    def _record(self, device_id: str, unsent: StatusPush | None) -> None:
        """Keep the newest status of a device that was not sent; none once a newer one was."""
        if self.failures is None:
            return
        try:
            if unsent is None:
                self.failures.drop(device_id)
            else:
                self.failures.keep(unsent)
        except OSError as error:
            if self.problem is None:
                problem = f"cannot write {self.failures.path}: {error.strerror}"
                complain(f"{problem}; reading ends here, and what fails from now on follows as lines")
                self.end_reading(problem)
            if unsent is not None:
                # The last place where it can be kept.
                sys.stderr.write(line_of(unsent).decode())

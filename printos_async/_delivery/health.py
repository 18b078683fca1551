"""Health of a pusher: whether statuses get through, and why not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from printos_async._execution.executor import Executor

    from .outbox.backend import DeliveryBackend

HealthReason: TypeAlias = Literal[
    "stopped", "closed", "not_started", "circuit_open", "paused", "account_held", "outbox_unavailable"
]


@frozen
class PusherHealth:
    """Whether a pusher's statuses get through at one moment.

    Attributes:
        reasons: Why they do not, each with a sentence for people; empty if they do. ``"stopped"``: a bug has stopped
            the pusher. ``"closed"``: it is draining or closed. ``"not_started"``: it has not been entered, and nothing
            was put. ``"circuit_open"``: PrintOS seems down and gets probes only. ``"paused"``: PrintOS asked for a
            pause. ``"account_held"``: PrintOS refuses credentials. ``"outbox_unavailable"``: the outbox cannot be read
            or written. An open circuit or a held account is a reason only while something waits for it: without that
            there is nothing to probe with, and the next status is the probe.
    """

    reasons: Mapping[HealthReason, str]

    @property
    def is_ready(self) -> bool:
        """Whether there is no reason against it."""
        return not self.reasons


def health_of(executor: Executor, backend: DeliveryBackend, *, now_s: float) -> PusherHealth:
    """Return the health of a pusher at ``now_s``, by the event loop's clock."""
    host, occupancy = executor.circuit_breaker, backend.engine.occupancy
    held = backend.engine.scheduler.held.count_accounts()
    reasons: dict[HealthReason, str] = {}
    if occupancy.crash is not None:
        reasons["stopped"] = f"a bug has stopped it: {type(occupancy.crash).__name__}"
    elif occupancy.is_closed:
        reasons["closed"] = "it is draining or closed"
    elif not backend.is_open:
        reasons["not_started"] = "it has not been entered, and nothing was put"
    if host.circuit == "open" and occupancy.devices:
        reasons["circuit_open"] = "PrintOS seems down: it is probed once a second"
    if host.held_until_s > now_s:
        reasons["paused"] = f"PrintOS asked for a pause, of which {host.held_until_s - now_s:.0f} s are left"
    if held:
        noun = "1 account is" if held == 1 else f"{held:,} accounts are"
        reasons["account_held"] = f"{noun} held: requests are refused"
    problem = backend.problem(now_s) if backend.is_open else None
    if problem is not None:
        reasons["outbox_unavailable"] = problem
    return PusherHealth(reasons)

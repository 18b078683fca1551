"""State of one device, and the rules for what may be sent for it and when. No I/O and no clock."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from attrs import define, field, frozen, validators

from printos_async._common.checks import at_least, one_of
from printos_async._errors import RequestTimeoutError

if TYPE_CHECKING:
    import asyncio
    from collections import OrderedDict
    from collections.abc import Callable

    from printos_async._api.requests import Call
    from printos_async._errors import PrintOSError
    from printos_async._models import PushResult

    from .queues import Place

Settle: TypeAlias = "Callable[[PendingStatus, Outcome], None]"
OutcomeKind: TypeAlias = Literal["sent", "superseded", "failed"]

# How long an uncertain write may still land. Proxies commonly give up on a queued request
# after 30 to 60 s, most much earlier; a longer time makes the end of a push wait longer after a timeout.
DEFAULT_AMBIGUITY_S = 5.0

# In place of the sequence number of an uncertain write. Sequence numbers start at 1.
_NONE = 0
_SEVERAL = -1


@frozen
class Outcome:
    """Outcome of an accepted status.

    Attributes:
        kind: ``"sent"``, ``"superseded"`` or ``"failed"``.
        error: Why it failed.
        superseded_by: Sequence number of the newer status that took its place.
    """

    kind: OutcomeKind
    error: PrintOSError | None = None
    superseded_by: int | None = None


SENT = Outcome("sent")  # one object for all: it is by far the most frequent


@frozen(kw_only=True)
class DeliveryPolicy:
    """Settings of an engine, as documented in ``PrintOSClient.status_pusher``.

    A ``patient`` engine outlasts an outage: while the circuit is open it sends probes only, and attempts that fail
    with the whole host do not count against a status. Any other engine makes ``max_attempts`` for each status.

    Attributes:
        sent_max_age_s: For how long an unchanged status is not sent again; 0 where ``skip_unchanged`` is false.

    Raises:
        ConfigurationError: A setting is out of range.
    """

    patient: bool
    consistency: Literal["eventual", "strict"] = field(
        default="eventual", validator=one_of("eventual", "strict")
    )
    ambiguity_s: float = field(default=DEFAULT_AMBIGUITY_S, validator=at_least(0.0))
    min_interval_s: float = field(default=0.0, validator=at_least(0.0))
    skip_unchanged: bool = False
    unchanged_max_age_s: float = field(default=0.0, validator=at_least(0.0))
    deadline_s: float | None = field(default=None, validator=validators.optional(at_least(0.0)))
    sent_max_age_s: float = field(init=False)

    @sent_max_age_s.default
    def _sent_max_age_s(self) -> float:
        return self.unchanged_max_age_s if self.skip_unchanged else 0.0

    @property
    def strict(self) -> bool:
        """Whether a device is held after an uncertain write, until that cannot land any more."""
        return self.consistency == "strict"


@define(eq=False)
class PendingStatus:
    """An accepted status without an outcome.

    Attributes:
        seq: Sequence number: the engine's, or that of a shared outbox.
        call: The request, encoded when the status was accepted, so that later changes of the model have no effect.
        attempts: Requests so far.
        exempt_attempts: Of these, those that failed with the whole host.
        failed_s: Time of the last failure.
        error: Error of the last request, if that failed.
        waiter: Future of the caller that waits for the result.
        has_replaced: It has superseded another status, so it must be sent.
        is_lost: The lease on its device was lost while it was in flight: it is not sent again.
        held_until_s: Time before which no worker sends it; known for statuses that were left to others.
        has_ended: Its end was reported, which happens once.
    """

    seq: int
    device_id: str
    call: Call
    accepted_s: float
    attempts: int = 0
    exempt_attempts: int = 0
    failed_s: float | None = None
    error: PrintOSError | None = None
    waiter: asyncio.Future[PushResult] | None = None
    has_replaced: bool = False
    is_lost: bool = False
    held_until_s: float = 0.0
    has_ended: bool = False

    def is_late(self, policy: DeliveryPolicy, *, now_s: float) -> bool:
        """Return whether the status is past its deadline."""
        return policy.deadline_s is not None and self.accepted_s + policy.deadline_s <= now_s

    def late_error(self) -> PrintOSError:
        """Return the error of a status that was not sent before its deadline."""
        return RequestTimeoutError(
            "not sent within deadline_s",
            method=self.call.method,
            path=self.call.path,
            attempts=0,
            may_have_arrived=False,
        )

    def abandon(self, reason: BaseException) -> None:
        """Raise ``reason`` in the caller that waits for the result."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_exception(reason)


@define(eq=False)
class DeviceState:
    """State of a device with work pending, or with something to remember.

    Attributes:
        waiting: The newest status that is not in flight.
        in_flight: The status that is being sent; it may be ``sent``, sent again.
        sent: The status that was acknowledged last.
        sent_s: Time at which its request started.
        sent_stands: No later request can have changed it on the server.
        must_reassert: ``sent`` has to be sent again: it was acknowledged while an uncertain write could still land.
        not_before_s: Earliest time of the next request: backoff, minimum interval, or hold of strict consistency.
        retrying: The next request is a retry, which needs a token of the retry budget.
        has_token: The retry has its token.
        failed_s: Time of the failure for which the device is in backoff.
        queued: The device is in the ready queue.
        place: Its place in the heap of delayed devices.
        held_with: The devices of its held account, among which it waits.
        refusals: Requests in a row that were refused although others of its account got through.
        deadline: Its place in the heap of deadlines.
        counted: It counts as active in the engine's occupancy.
    """

    device_id: str
    waiting: PendingStatus | None = None
    in_flight: PendingStatus | None = None
    sent: PendingStatus | None = None
    sent_s: float = 0.0
    sent_stands: bool = False
    must_reassert: bool = False
    not_before_s: float = 0.0
    retrying: bool = False
    has_token: bool = False
    failed_s: float = -math.inf
    queued: bool = False
    place: Place[DeviceState] | None = None
    held_with: OrderedDict[DeviceState, None] | None = None
    deadline: Place[DeviceState] | None = None
    counted: bool = False
    refusals: int = 0
    _uncertain_seq: int = _NONE  # the uncertain write's
    _uncertain_until_s: float = 0.0

    @property
    def active(self) -> bool:
        """Whether the device has work pending."""
        return self.waiting is not None or self.in_flight is not None or self.must_reassert

    @property
    def next_status(self) -> PendingStatus | None:
        """The status to send next."""
        return self.waiting or (self.sent if self.must_reassert else None)

    def due_s(self, policy: DeliveryPolicy) -> float:
        """Return the time at which the device has to be scheduled again, or dropped if it is not active."""
        if self.waiting is not None:
            return self.not_before_s
        if self.must_reassert:
            return max(self.not_before_s, self._uncertain_until_s)
        due_s = self.not_before_s or self._uncertain_until_s  # 0 for most: there is nothing to remember
        if policy.sent_max_age_s or due_s:
            return max(due_s, self._uncertain_until_s, self.sent_s + policy.sent_max_age_s)
        return due_s

    def is_unchanged(self, pending: PendingStatus, policy: DeliveryPolicy, *, now_s: float) -> bool:
        """Return whether the server has this status already, and no later request can have changed it."""
        if self.sent is None or not self.sent_stands or self.must_reassert or pending is self.sent:
            return False
        return now_s < self.sent_s + policy.sent_max_age_s and pending.call.body == self.sent.call.body

    def is_held_strictly(self, policy: DeliveryPolicy, *, now_s: float) -> bool:
        """Return whether strict consistency holds the device because of an uncertain write."""
        return policy.strict and self.is_uncertain(now_s)

    def is_uncertain(self, now_s: float) -> bool:
        """Return whether an uncertain write may still land."""
        return self._uncertain_until_s > now_s

    def remembers(self, policy: DeliveryPolicy, *, now_s: float) -> bool:
        """Return whether the state matters for the device's next status, apart from ``not_before_s``."""
        return self.is_uncertain(now_s) or (self.sent_stands and self.sent_s + policy.sent_max_age_s > now_s)

    def inherit_uncertainty(self, age_s: float, policy: DeliveryPolicy, *, now_s: float) -> None:
        """Record that another worker's write, which ended ``age_s`` seconds ago, may still land."""
        self._uncertain_seq = _SEVERAL
        self._uncertain_until_s = max(self._uncertain_until_s, now_s + policy.ambiguity_s - age_s)
        self.sent_stands = False
        if policy.strict:
            self.not_before_s = max(self.not_before_s, self._uncertain_until_s)

    def acknowledged(self, pending: PendingStatus, policy: DeliveryPolicy, *, started_s: float) -> None:
        """Record that the server has acknowledged a status whose request started at ``started_s``."""
        self.refusals = 0
        self.not_before_s = started_s + policy.min_interval_s if policy.min_interval_s else 0.0
        if started_s >= self._uncertain_until_s:
            self._uncertain_seq, self.must_reassert = _NONE, False
        elif self._uncertain_seq != pending.seq:
            self.must_reassert = True  # the uncertain write is of another status
        self.sent, self.sent_s, self.sent_stands = pending, started_s, True

    def failed(self, pending: PendingStatus) -> None:
        """Record that an attempt failed. The server may have written its status all the same."""
        if pending is not self.sent:
            self.sent_stands = False

    def mark_uncertain(self, pending: PendingStatus, policy: DeliveryPolicy, *, now_s: float) -> None:
        """Record that the write of a status is uncertain until ``ambiguity_s`` has passed."""
        alone = self._uncertain_seq in {_NONE, pending.seq} or self._uncertain_until_s <= now_s
        self._uncertain_seq = pending.seq if alone else _SEVERAL
        self._uncertain_until_s = now_s + policy.ambiguity_s
        if policy.strict:
            self.not_before_s = max(self.not_before_s, self._uncertain_until_s)


class DeviceWatcher(Protocol):
    """Follows the devices of an engine, for an outbox that other workers use too."""

    def rested(self, device: DeviceState) -> None:
        """Take note that a device has no more work pending."""

    def forgotten(self, device: DeviceState) -> None:
        """Take note that the scheduler drops a device's state."""

    def lost(self, pending: PendingStatus) -> None:
        """Take over a status that must not be sent again: the lease on its device was lost while it was in flight."""

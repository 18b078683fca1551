"""The state of one device, and the rules of what may be sent for it, and when. No I/O, no clock of its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, TypeAlias

from attrs import define, frozen

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from printos_async._api.validation import Call
    from printos_async._errors import PrintOSError
    from printos_async._models import PushResult

Settle: TypeAlias = "Callable[[PendingStatus, Outcome], None]"
OutcomeKind: TypeAlias = Literal["sent", "superseded", "failed"]

_NO_ONE = 0  # sequence numbers start at 1
_SEVERAL = -1


@frozen
class Outcome:
    """What became of an accepted status.

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
    """What an engine keeps to; ``PrintOSClient.status_pusher`` has the meaning of each.

    ``patient`` engines outlast an outage: while the circuit is open only probes are sent, and attempts that fail
    with the whole host do not count against a status. Others give each status its attempts and end.
    """

    patient: bool
    strict: bool = False
    ambiguity_s: float = 0.0
    min_interval_s: float = 0.0
    unchanged_max_age_s: float = 0.0
    deadline_s: float | None = None


@define(eq=False)
class PendingStatus:
    """One accepted status. Encoded when it is accepted, so that a later change of the model changes nothing."""

    seq: int
    device_id: str
    call: Call
    accepted_s: float
    attempts: int = 0
    exempt_attempts: int = 0  # those that failed with the whole host
    failed_s: float | None = None
    waiter: asyncio.Future[PushResult] | None = None
    has_replaced: bool = False  # another one made way for it: now this one has to be sent
    is_lost: bool = False  # somebody else may own its device by now: it is not sent again
    held_until_s: float = 0.0  # no worker sends it earlier; known of what was left to others
    has_ended: bool = False  # it was told what became of it, and it is told once

    def abandon(self, reason: BaseException) -> None:
        """Tell who waits for the result that there is going to be none."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_exception(reason)


class Place:
    """A device's place in a heap; without its device once it was given up."""

    __slots__ = ("device",)

    def __init__(self, device: DeviceState) -> None:
        self.device: DeviceState | None = device


@define(eq=False)
class DeviceState:
    """One device with something to send, or to remember.

    Attributes:
        waiting: The newest status that is not in flight.
        in_flight: What a worker is sending; it may be ``sent``, once more.
        sent: What was acknowledged last, and when its request started.
        sent_stands: Nothing has been tried since that may have changed it on the server.
        must_reassert: ``sent`` was acknowledged while another write could still land on it.
        not_before_s: Nothing is sent earlier: backoff, minimum interval, or the hold of strict consistency.
        retrying: The next request is a retry, which takes a token of the retry budget.
        has_token: It has taken one.
        failed_s: When the failure came for which it is in backoff.
        error: The last attempt's, if that failed.
        queued: It is in the ready queue.
        place: Its place in the heap of delayed devices, if it is there.
        deadline: Its place in the heap of deadlines, if it is there.
        counted: It is among the engine's active devices.
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
    error: PrintOSError | None = None
    queued: bool = False
    place: Place | None = None
    deadline: Place | None = None
    counted: bool = False
    _uncertain_seq: int = _NO_ONE  # whose write may still land
    _uncertain_until_s: float = 0.0

    @property
    def active(self) -> bool:
        """Whether there is something to do for this device."""
        return self.waiting is not None or self.in_flight is not None or self.must_reassert

    @property
    def next_status(self) -> PendingStatus | None:
        """What is to be sent next."""
        return self.waiting or (self.sent if self.must_reassert else None)

    def due_s(self, policy: DeliveryPolicy) -> float:
        """Give the time at which this device is to be looked at again; then it may be forgotten if it is not active."""
        if self.waiting is not None:
            return self.not_before_s
        if self.must_reassert:
            return max(self.not_before_s, self._uncertain_until_s)
        due_s = (
            self.not_before_s or self._uncertain_until_s
        )  # 0 for most, which have nothing to be remembered
        if policy.unchanged_max_age_s or due_s:
            return max(due_s, self._uncertain_until_s, self.sent_s + policy.unchanged_max_age_s)
        return due_s

    def is_unchanged(self, pending: PendingStatus, policy: DeliveryPolicy, *, now_s: float) -> bool:
        """Whether the server has this status already and nothing can have changed it since."""
        if self.sent is None or not self.sent_stands or self.must_reassert or pending is self.sent:
            return False
        return now_s < self.sent_s + policy.unchanged_max_age_s and pending.call.body == self.sent.call.body

    def is_held(self, policy: DeliveryPolicy, *, now_s: float) -> bool:
        """Whether strict consistency keeps this device waiting for a write that may still land."""
        return policy.strict and self.is_uncertain(now_s)

    def is_uncertain(self, now_s: float) -> bool:
        """Whether a write may still land whose outcome is not known."""
        return self._uncertain_until_s > now_s

    def remembers(self, policy: DeliveryPolicy, *, now_s: float) -> bool:
        """Whether something is known of this device that matters for its next status, but for ``not_before_s``."""
        return self.is_uncertain(now_s) or (
            self.sent_stands and self.sent_s + policy.unchanged_max_age_s > now_s
        )

    def inherit_uncertainty(self, until_s: float, policy: DeliveryPolicy) -> None:
        """Note that somebody else's write may still land until then."""
        self._uncertain_seq = _SEVERAL
        self._uncertain_until_s = max(self._uncertain_until_s, until_s)
        self.sent_stands = False
        if policy.strict:
            self.not_before_s = max(self.not_before_s, self._uncertain_until_s)

    def acknowledged(self, pending: PendingStatus, policy: DeliveryPolicy, *, started_s: float) -> None:
        """Note that the server has acknowledged a status whose request started then."""
        self.error = None
        self.not_before_s = started_s + policy.min_interval_s if policy.min_interval_s else 0.0
        if started_s >= self._uncertain_until_s:
            self._uncertain_seq, self.must_reassert = _NO_ONE, False
        elif self._uncertain_seq != pending.seq:
            self.must_reassert = True  # what may still land is another status than this
        self.sent, self.sent_s, self.sent_stands = pending, started_s, True

    def failed(self, pending: PendingStatus) -> None:
        """Note that an attempt failed, of which nobody knows whether the server wrote it all the same."""
        if pending is not self.sent:
            self.sent_stands = False

    def mark_uncertain(self, pending: PendingStatus, policy: DeliveryPolicy, *, now_s: float) -> None:
        """Note that this write may still land, until the ambiguity has passed."""
        alone = self._uncertain_seq in {_NO_ONE, pending.seq} or self._uncertain_until_s <= now_s
        self._uncertain_seq = pending.seq if alone else _SEVERAL
        self._uncertain_until_s = now_s + policy.ambiguity_s
        if policy.strict:
            self.not_before_s = max(self.not_before_s, self._uncertain_until_s)

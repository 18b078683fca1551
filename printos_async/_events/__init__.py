"""Events of a client, as frozen values, and the hooks that receive them."""

from typing import TypeAlias

from .accounts import AccountHeld, AccountResumed, ClockSkewDetected
from .hooks import Hook, Hooks
from .host import CircuitChanged, LimitChanged, RetryAfterCapped
from .requests import AttemptFinished, Endpoint, FieldUnreadable, RetryScheduled
from .statuses import (
    LeaseLost,
    ReassertionFailed,
    StatusAccepted,
    StatusFailed,
    StatusReasserted,
    StatusSent,
    StatusSuperseded,
    StatusWithdrawn,
)

__all__ = [
    "AccountHeld",
    "AccountResumed",
    "AttemptFinished",
    "CircuitChanged",
    "ClockSkewDetected",
    "Endpoint",
    "Event",
    "FieldUnreadable",
    "Hook",
    "Hooks",
    "LeaseLost",
    "LimitChanged",
    "ReassertionFailed",
    "RetryAfterCapped",
    "RetryScheduled",
    "StatusAccepted",
    "StatusFailed",
    "StatusReasserted",
    "StatusSent",
    "StatusSuperseded",
    "StatusWithdrawn",
]

Event: TypeAlias = (
    AttemptFinished
    | RetryScheduled
    | StatusAccepted
    | StatusSuperseded
    | StatusSent
    | StatusFailed
    | StatusReasserted
    | ReassertionFailed
    | StatusWithdrawn
    | LeaseLost
    | LimitChanged
    | CircuitChanged
    | AccountHeld
    | AccountResumed
    | ClockSkewDetected
    | RetryAfterCapped
    | FieldUnreadable
)

"""Hook that logs every event. The event's fields are attributes of the record, for structured formatters.

The library sets no level and adds no handler; the application does.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from attrs import AttrsInstance

events_log = logging.getLogger("printos_async.events")

# What comes with every status, or may come in thousands, is for debugging only.
_LINES = {
    logging.DEBUG: {
        "AttemptFinished": "%(operation)s, device %(device_id)s, attempt %(attempt)d: %(outcome)s, status %(status)s, %(latency_s).3f s",
        "RetryScheduled": "%(operation)s, device %(device_id)s: again in %(delay_s).3f s after attempt %(attempt)d, %(cause)s",
        "StatusAccepted": "status %(seq)d accepted: device %(device_id)s",
        "StatusSuperseded": "status %(seq)d superseded by %(superseded_by)d: device %(device_id)s",
        "StatusSent": "status %(seq)d sent: device %(device_id)s, %(attempts)d attempts, %(latency_s).3f s",
        "StatusReasserted": "status %(seq)d sent again: device %(device_id)s",
        "StatusWithdrawn": "status %(seq)d withdrawn: device %(device_id)s",
        "LimitChanged": "%(new)d requests may be in flight, %(old)d before: %(reason)s",
        "FieldUnreadable": "%(operation)s, device %(device_id)s: %(field)s cannot be read and stays unset",
    },
    logging.INFO: {"AccountResumed": "%(account)s is held no longer"},
    logging.WARNING: {
        "StatusFailed": "status %(seq)d given up: device %(device_id)s, %(cause)s: %(detail)s",
        "ReassertionFailed": "status %(seq)d could not be sent again, device %(device_id)s may have an older one: %(cause)s",
        "LeaseLost": "the lease on %(devices)d devices was lost: not renewed in time",
        "CircuitChanged": "the circuit of %(host)s is %(circuit)s",
        "AccountHeld": "%(account)s is held after %(cause)s (status %(status)s): its statuses wait until a request gets through",
        "ClockSkewDetected": "PrintOS's clock is %(ahead_s).0f s ahead of this machine's, for %(account)s: set this machine's clock",
        "RetryAfterCapped": "%(host)s asked for a pause of %(asked_s).0f s: held for %(held_s).0f s, then probed once a minute",
    },
}
_BY_KIND = {kind: (level, text) for level, texts in _LINES.items() for kind, text in texts.items()}
# What the server sent in place of a date may be anything; the endpoint is no plain value.
_WITHHELD = frozenset({"raw", "endpoint"})


def log_event(event: AttrsInstance) -> None:
    """Log an event if its level is enabled; the record has ``event``, the class's name, and the event's fields."""
    kind = type(event).__name__
    level, text = _BY_KIND[kind]
    if kind == "CircuitChanged" and getattr(event, "circuit", None) == "closed":
        level = logging.INFO
    if events_log.isEnabledFor(level):
        fields = attrs.asdict(
            event, recurse=False, filter=lambda attribute, _: attribute.name not in _WITHHELD
        )
        events_log.log(level, text, fields, extra={"event": kind, **fields})

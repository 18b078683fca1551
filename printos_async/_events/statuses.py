"""Events of accepted statuses, from acceptance to their end, and of the lease under which they are sent."""

from __future__ import annotations

from attrs import frozen


@frozen
class StatusAccepted:
    """A status was accepted.

    Attributes:
        device_id: The device.
        seq: Its sequence number, as in ``PushResult``.
    """

    device_id: str
    seq: int


@frozen
class StatusSuperseded:
    """A status was coalesced: a newer one of the same device replaced it, and it is not sent (again).

    Attributes:
        device_id: The device.
        seq: The sequence number of the status that was replaced.
        superseded_by: The sequence number of the newer one; 0 if it is not known, as in ``PushResult``.
    """

    device_id: str
    seq: int
    superseded_by: int


@frozen
class StatusSent:
    """The server acknowledged a status, or it was skipped because it equals the last one sent (0 ``attempts``).

    Attributes:
        device_id: The device.
        seq: Its sequence number.
        attempts: Requests made for it.
        latency_s: Seconds from acceptance.
    """

    device_id: str
    seq: int
    attempts: int
    latency_s: float


@frozen
class StatusFailed:
    """A status was given up.

    Attributes:
        device_id: The device.
        seq: Its sequence number.
        attempts: Requests made for it.
        cause: Name of the error's class.
        detail: The error's text, of any length; it contains no secret of the client.
    """

    device_id: str
    seq: int
    attempts: int
    cause: str
    detail: str = ""


@frozen
class StatusReasserted:
    """The newest status was sent again, because an older, uncertain write may have overwritten it.

    Attributes:
        device_id: The device.
        seq: The sequence number of the status that was sent again.
    """

    device_id: str
    seq: int


@frozen
class ReassertionFailed:
    """The newest status could not be sent again. The device may have an older one until its next status.

    Attributes:
        device_id: The device.
        seq: The sequence number of the status that was to be sent again.
        cause: Name of the last error's class.
    """

    device_id: str
    seq: int
    cause: str


@frozen
class StatusWithdrawn:
    """A status ended without an outcome: its caller was cancelled while it waited, or the pusher was closed.

    Attributes:
        device_id: The device.
        seq: The sequence number of the status.
    """

    device_id: str
    seq: int


@frozen
class LeaseLost:
    """This process did not renew its lease on the outbox in time, so other workers may send for its devices.

    Attributes:
        devices: Number of devices that it owned. It sends nothing more for them until it has claimed them again.
    """

    devices: int

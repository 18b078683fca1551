"""Events of requests: attempts, retries, and unreadable fields of answers."""

from __future__ import annotations

from typing import Literal

from attrs import frozen


@frozen(cache_hash=True)
class Endpoint:
    """Method, route and host of one operation; a client has one object for each operation.

    Attributes:
        method: The HTTP method, in capitals.
        route: The specification's path, such as ``/devices/{deviceId}/status``, with the base URL's own path in
            front. The same for all devices.
        scheme: ``http`` or ``https``.
        host: The server's name or address; IPv6 without brackets.
        port: The server's port.
    """

    method: str
    route: str
    scheme: str
    host: str
    port: int


@frozen
class AttemptFinished:
    """One request ended.

    Not emitted for an attempt whose caller was cancelled: its request continues, and its outcome is not awaited.

    Attributes:
        operation: The specification's ``operationId``.
        device_id: The device of a status; None for the other operations.
        attempt: 1 for the first request of a call.
        latency_s: Seconds from the start of the attempt, signing and a login included.
        status: The answer's status code; None if no complete answer came.
        outcome: ``"ok"``, ``"error"`` for any other answer, ``"transport"`` if no complete answer came.
        error: Name of the error's class; None for ``"ok"``.
        endpoint: Method, route and host; every event that a client emits has them.
    """

    operation: str
    device_id: str | None
    attempt: int
    latency_s: float
    status: int | None
    outcome: Literal["ok", "error", "transport"]
    error: str | None = None
    endpoint: Endpoint | None = None


@frozen
class RetryScheduled:
    """An attempt failed and another one follows.

    Attributes:
        operation: The specification's ``operationId``.
        device_id: The device of a status; None for the other operations.
        attempt: The attempt that failed.
        delay_s: Seconds until the next one.
        cause: Name of the class of the failed attempt's error.
    """

    operation: str
    device_id: str | None
    attempt: int
    delay_s: float
    cause: str


@frozen
class FieldUnreadable:
    """A field of an answer could not be read, and stays unset.

    Attributes:
        operation: The specification's ``operationId``.
        device_id: The device of the field; None if its identifier could not be read.
        field: The property's name in the specification.
        raw: The value as the server sent it; it is also in the model's ``additional_properties``.
    """

    operation: str
    device_id: str | None
    field: str
    raw: object

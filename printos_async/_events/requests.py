"""Events of requests: attempts, retries, and what was in their answers."""

from __future__ import annotations

from typing import Literal

from attrs import frozen


@frozen(cache_hash=True)
class Endpoint:
    """Where the requests of one operation go; a client makes one object for each and uses it again.

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

    Not emitted for an attempt whose caller was cancelled: its request goes on, and its outcome is not awaited.

    Attributes:
        operation: The specification's ``operationId``.
        device_id: The device of a status; None for the other operations.
        attempt: 1 for the first request of a call.
        latency_s: Seconds from the start of the attempt, signing and a login included.
        status: The answer's status code; None where no complete answer came.
        outcome: ``"ok"``, ``"error"`` for any other answer, ``"transport"`` if no complete answer came.
        error: The error's class, by name; None for ``"ok"``.
        endpoint: Where the request went; every event of a client has it.
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
        cause: The failed attempt's error class, by name.
    """

    operation: str
    device_id: str | None
    attempt: int
    delay_s: float
    cause: str


@frozen
class FieldUnreadable:
    """A field of an answer that could not be read; it stays unset.

    Attributes:
        operation: The specification's ``operationId``.
        device_id: The device that the field belongs to, where its identifier could be read.
        field: The property's name in the specification.
        raw: The value as it came; also kept in the model's ``additional_properties``.
    """

    operation: str
    device_id: str | None
    field: str
    raw: object

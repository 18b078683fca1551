"""Events of a client, as frozen values, and the hooks that receive them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from attrs import frozen

from ._logging import events_log, log_event

if TYPE_CHECKING:
    from collections.abc import Iterable

_log = logging.getLogger("printos_async")


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

    An attempt that its caller cancelled is not reported: its request goes on, and nobody waits for its outcome.

    Attributes:
        operation: The specification's ``operationId``.
        device_id: The device of a status; None for the other operations.
        attempt: 1 for the first request of a call.
        latency_s: Seconds from the start of the attempt, signing and a login included.
        status: The answer's status code; None where no complete answer came.
        outcome: ``"ok"``, ``"error"`` for an answer, ``"transport"`` where none came.
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
class StatusAccepted:
    """A status was accepted.

    Attributes:
        device_id: The device.
        seq: The pusher's own sequence number of the status.
    """

    device_id: str
    seq: int


@frozen
class StatusSuperseded:
    """A status was coalesced: a newer one of the same device replaced it, and it is not sent (again).

    Attributes:
        device_id: The device.
        seq: The sequence number of the status that was replaced.
        superseded_by: The sequence number of the newer one.
    """

    device_id: str
    seq: int
    superseded_by: int


@frozen
class StatusSent:
    """The server acknowledged a status; or it equals the last one sent and was left out: then ``attempts`` is 0.

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
        seq: Its sequence number; 0 if it was refused before it got one.
        attempts: Requests made for it.
        cause: The error's class, by name.
        detail: The error's text, of any length; it holds no secret of the client.
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
    """The newest status could not be sent again: the device may be left with an older one, until its next status.

    Attributes:
        device_id: The device.
        seq: The sequence number of the status that was to be sent again.
        cause: The last error's class, by name.
    """

    device_id: str
    seq: int
    cause: str


@frozen
class StatusWithdrawn:
    """A status has no outcome: its caller was cancelled while it waited, or the pusher was closed before.

    Attributes:
        device_id: The device.
        seq: The sequence number of the status.
    """

    device_id: str
    seq: int


@frozen
class LeaseLost:
    """This process did not renew its lease on the outbox in time: others may have taken its devices over.

    Attributes:
        devices: Devices that it owned; it sends nothing more for them, and claims anew.
    """

    devices: int


@frozen
class LimitChanged:
    """The number of requests that the client allows in flight has changed.

    Attributes:
        old: The limit before.
        new: The limit from now on.
        reason: ``"steady"``: latency is steady and the limit was reached; ``"latency"``: answers come later than
            before; ``"overload"``: the server said that it is too much, or did not answer in time.
    """

    old: int
    new: int
    reason: Literal["steady", "latency", "overload"]


@frozen
class CircuitChanged:
    """The circuit opened, so that only probes are sent, or closed again.

    Attributes:
        circuit: Its state from now on.
        host: The server's name or address.
    """

    circuit: Literal["closed", "open"]
    host: str = ""


@frozen
class AccountHeld:
    """PrintOS refuses an account's credentials: its statuses wait, and only probes are sent.

    Emitted once, until the account is accepted again.

    Attributes:
        account: The account, without a secret: ``key k123…``, ``login prin…`` or ``device dev-1``.
        cause: The error's class, by name.
        status: The answer's status code; None where nothing was sent, because there are no credentials.
    """

    account: str
    cause: str
    status: int | None


@frozen
class AccountResumed:
    """PrintOS accepts an account's credentials again.

    Attributes:
        account: As in ``AccountHeld``.
    """

    account: str


@frozen
class ClockSkewDetected:
    """PrintOS refused a signature, and its clock is more than a minute away from this machine's.

    Attributes:
        account: As in ``AccountHeld``.
        ahead_s: Seconds by which PrintOS's clock is ahead.
        is_corrected: Requests are signed with PrintOS's time from now on. False beyond a day.
    """

    account: str
    ahead_s: float
    is_corrected: bool


@frozen
class RetryAfterCapped:
    """The server asked for a pause of more than an hour: it is held for an hour, and then probed once a minute.

    Emitted once, until the server answers with something else than such a pause.

    Attributes:
        asked_s: Seconds that the server asked for, by ``Retry-After``.
        held_s: Seconds in which nothing is sent.
        host: The server's name or address.
    """

    asked_s: float
    held_s: float
    host: str


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


class Hook(Protocol):
    """Receives every event, on the event loop, in the order in which they happen.

    Called synchronously: hand long work to a task or a queue. An exception harms nothing but is logged once
    for each hook. Any function of one argument is a hook.
    """

    def __call__(self, event: Event, /) -> object:
        """Receive one event."""


class Hooks:
    """The hooks of one client, and the log.

    True where somebody wants every event: the frequent ones need not be made otherwise. Those that are logged as
    a warning are to be emitted in any case.
    """

    __slots__ = ("_hooks", "_reported", "_wanted")

    def __init__(self, hooks: Iterable[Hook]) -> None:
        hooks = tuple(hooks)
        self._hooks: tuple[Hook, ...] = (log_event, *hooks)
        self._wanted = bool(hooks)
        self._reported: set[int] = set()

    def __bool__(self) -> bool:
        return self._wanted or events_log.isEnabledFor(logging.DEBUG)

    def emit(self, event: Event) -> None:
        """Log an event and pass it to every hook."""
        for hook in self._hooks:
            try:
                hook(event)
            except Exception as error:  # noqa: BLE001  # a watcher must not stop the work
                if id(hook) not in self._reported:
                    self._reported.add(id(hook))
                    # By name only: a hook's text may hold whatever its author put there.
                    name = type(error).__name__
                    _log.warning(
                        "hook failed, further failures are not logged: %s", name, extra={"error": name}
                    )

"""Events of the host that all calls of a client share: concurrency limit, circuit and pauses."""

from __future__ import annotations

from typing import Literal

from attrs import frozen


@frozen
class LimitChanged:
    """The number of requests that the client allows in flight has changed.

    Attributes:
        old: The limit before.
        new: The limit from now on.
        reason: ``"steady"``: latency is steady, and the limit was reached. ``"latency"``: latency rose.
            ``"overload"``: the server refused because of load, or did not answer in time.
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
class RetryAfterCapped:
    """The server asked for a pause of more than an hour. The client pauses for an hour, then sends one probe a minute.

    Emitted once, and again only after the server has answered without such a pause.

    Attributes:
        asked_s: Seconds for which the server asked, with ``Retry-After``.
        held_s: Seconds for which nothing is sent.
        host: The server's name or address.
    """

    asked_s: float
    held_s: float
    host: str

"""Faults of the sandbox: their kinds, and the shares of requests that suffer them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from attrs import field, frozen

from printos_async._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from attrs import Attribute

Operation = Literal["listDevices", "provisionDevice", "updateDeviceStatus", "login"]
"""The specification's ``operationId`` values, and the login, which is not in the specification."""

FaultKind = Literal[
    "rate_limited",
    "server_error",
    "reset_before",
    "reset_after",
    "truncated",
    "malformed",
    "late_write",
    "hang_before",
    "hang_after",
]
"""Kind of a fault; ``_before`` and ``_after`` say whether it came before or after the write."""

MalformedKind = Literal[
    "html", "empty", "cut_json", "null", "wrong_types", "bad_date", "not_utf8", "deep", "nan"
]
"""Kind of a 2xx answer's body that no model can be read from, or not completely."""

LateAnswer = Literal["504", "reset", "hang"]

# One draw decides between these, so each share is exact and a request suffers one fault at most.
SHARES = ("rate_limited", "server_error", "reset", "truncated", "malformed", "late_write", "hang")
_SUM_TOLERANCE = 1e-9


def _range_of_seconds(_: object, attribute: Attribute[Any], value: float | tuple[float, float]) -> None:
    low, high = value if isinstance(value, tuple) else (value, value)
    if not 0 <= low <= high:
        raise ConfigurationError(f"{attribute.name}: seconds must be 0 or more, the lower bound first")


def _share(_: object, attribute: Attribute[Any], value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigurationError(f"{attribute.name}: a share lies between 0 and 1")


def _some_of(*allowed: object) -> Callable[[object, Attribute[Any], tuple[object, ...]], None]:
    def check(_: object, attribute: Attribute[Any], value: tuple[object, ...]) -> None:
        if not value or not set(value) <= set(allowed):
            choices = (
                f"{allowed[0]} to {allowed[-1]}"
                if isinstance(allowed[0], int)
                else ", ".join(map(str, allowed))
            )
            raise ConfigurationError(f"{attribute.name}: choose from {choices}")

    return check


@frozen(kw_only=True)
class Faults:
    """Faults of the sandbox, each with its share of the requests.

    A share is the probability that a request suffers this fault; the sum of the shares is at most 1. The fault of the
    n-th request with the same method and path (for a POST: and body) depends on ``seed`` only, not on other requests in
    between, so concurrency does not change it.

    Attributes:
        seed: Seed of the random draws.
        latency_s: Seconds before a request is processed: a fixed time, or ``(low, high)`` for a uniform draw. As on a
            slow server, the write is applied even if the client has closed the connection in the meantime.
        latency_tail: Share of requests that wait ``latency_tail_s`` in addition.
        latency_tail_s: Bounds of the uniform draw of these additional seconds.
        rate_limited: Share of requests answered with 429; nothing is written.
        retry_after: Literal value of the ``Retry-After`` header of a 429: seconds, a date or garbage; empty for no
            header.
        server_error: Share of requests answered with one of ``server_error_statuses``; nothing is written.
        server_error_statuses: The status codes of these answers.
        reset: Share of requests whose connection is reset (RST) instead of an answer: half of them before the write
            (``reset_before``), half after it (``reset_after``).
        truncated: Share of answers that end, with their connection, before the announced length. The write is applied.
        malformed: Share of 2xx answers to GET and POST whose body is one of ``malformed_kinds``. The device of a POST
            is created.
        malformed_kinds: The kinds of these bodies.
        late_write: Share of PUTs that are applied only after they have failed for the client, as by a proxy's queue.
        late_write_by_s: Bounds of the uniform draw of seconds from the request to its late write.
        late_write_answers: The client's answers to late writes: a 504 at once, a reset, or none.
        hang: Share of requests that are never answered: half of them hang before the write (``hang_before``), half
            after it (``hang_after``). They end when the client closes the connection, or the sandbox stops.
        operations: The operations that suffer faults; by default all but ``"login"``.

    Raises:
        ConfigurationError: A share is outside 0 to 1, the sum of the shares is above 1, or bounds are in the wrong
            order.
    """

    seed: int = 0
    latency_s: float | tuple[float, float] = field(default=0.0, validator=_range_of_seconds)
    latency_tail: float = field(default=0.0, validator=_share)
    latency_tail_s: tuple[float, float] = field(default=(0.5, 2.0), validator=_range_of_seconds)
    rate_limited: float = field(default=0.0, validator=_share)
    retry_after: str = "1"
    server_error: float = field(default=0.0, validator=_share)
    server_error_statuses: tuple[int, ...] = field(default=(503,), validator=_some_of(*range(500, 600)))
    reset: float = field(default=0.0, validator=_share)
    truncated: float = field(default=0.0, validator=_share)
    malformed: float = field(default=0.0, validator=_share)
    malformed_kinds: tuple[MalformedKind, ...] = field(
        default=get_args(MalformedKind), validator=_some_of(*get_args(MalformedKind))
    )
    late_write: float = field(default=0.0, validator=_share)
    late_write_by_s: tuple[float, float] = field(default=(0.0, 0.6), validator=_range_of_seconds)
    late_write_answers: tuple[LateAnswer, ...] = field(
        default=("504", "reset"), validator=_some_of(*get_args(LateAnswer))
    )
    hang: float = field(default=0.0, validator=_share)
    operations: tuple[Operation, ...] = field(
        default=("listDevices", "provisionDevice", "updateDeviceStatus"),
        validator=_some_of(*get_args(Operation)),
    )

    def __attrs_post_init__(self) -> None:
        if sum(getattr(self, name) for name in SHARES) > 1 + _SUM_TOLERANCE:
            raise ConfigurationError(f"the shares of {', '.join(SHARES)} add up to more than 1")

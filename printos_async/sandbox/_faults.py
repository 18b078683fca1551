"""Which fault befalls which request: shares, drawn reproducibly, and faults that a test asks for by name."""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

from attrs import define, evolve, field, fields, frozen, validators

from printos_async._errors import ConfigurationError

if TYPE_CHECKING:
    from attrs import Attribute

Operation = Literal["listDevices", "provisionDevice", "updateDeviceStatus", "login"]
"""The specification's operationIds, and the login that stands beside the specification."""

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
"""What befell a request; ``_before`` and ``_after`` say on which side of the write."""

MalformedKind = Literal[
    "html", "empty", "cut_json", "null", "wrong_types", "bad_date", "not_utf8", "deep", "nan"
]
"""Bodies that a success may carry although no model accepts them, or not the whole of them."""

T = TypeVar("T")

LateAnswer = Literal["504", "reset", "hang"]

# One draw decides between these, so each share is exact and a request suffers one fault at most.
_SHARES = ("rate_limited", "server_error", "reset", "truncated", "malformed", "late_write", "hang")
_SUM_TOLERANCE = 1e-9


def _range_of_seconds(_: object, attribute: Attribute[object], value: object) -> None:
    low, high = value if isinstance(value, tuple) else (value, value)
    if not 0 <= low <= high:
        raise ConfigurationError(f"{attribute.name}: seconds must be 0 or more, the lower bound first")


def _share(_: object, attribute: Attribute[object], value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigurationError(f"{attribute.name}: a share lies between 0 and 1")


def _some_of(*allowed: object) -> object:
    return validators.and_(validators.min_len(1), validators.deep_iterable(validators.in_(allowed)))


@frozen(kw_only=True)
class Faults:
    """What goes wrong, and how often.

    A share is the probability, per request, that this fault befalls it; the shares add up to 1 at most. What
    befalls the n-th request of a method and path (for a POST: and body) follows from ``seed`` alone, whatever
    else arrives in between, so that concurrency does not change it.

    Attributes:
        seed: Another seed, other draws.
        latency_s: Seconds before a request is acted upon: a fixed time, or ``(low, high)`` for a uniform draw.
            The write is applied afterwards even if the client has gone, as a slow server would.
        latency_tail: Share of requests that wait ``latency_tail_s`` in addition.
        latency_tail_s: Bounds of that uniform draw.
        rate_limited: Share answered 429; nothing is written.
        retry_after: Literal value of the ``Retry-After`` header of a 429: seconds, a date or garbage; empty
            leaves the header out.
        server_error: Share answered with one of ``server_error_statuses``; nothing is written.
        server_error_statuses: What these answers draw from.
        reset: Share of connections reset (RST) in place of an answer, half of them before the write
            (``reset_before``), half after it (``reset_after``).
        truncated: Share of answers that announce more bytes than come before the connection closes. The write
            is applied.
        malformed: Share of 2xx answers to GET and POST whose body is one of ``malformed_kinds``. A POST's
            device is made.
        malformed_kinds: What these bodies draw from.
        late_write: Share of PUTs that are applied only after the client has been told, or left to think,
            that they failed: a proxy's queue.
        late_write_by_s: Bounds of the uniform draw of seconds from the request to its late write.
        late_write_answers: What the client of a late write sees: a 504 at once, a reset, or nothing.
        hang: Share of requests never answered; half of them before the write (``hang_before``), half after it
            (``hang_after``). Ends when the client closes the connection or the sandbox stops.
        operations: The operations that suffer. ``"login"`` is not among them unless asked for.

    Raises:
        ConfigurationError: A share outside 0 to 1, shares above 1 together, or times that run backwards.
    """

    seed: int = 0
    latency_s: float | tuple[float, float] = field(default=0.0, validator=_range_of_seconds)
    latency_tail: float = field(default=0.0, validator=_share)
    latency_tail_s: tuple[float, float] = field(default=(0.5, 2.0), validator=_range_of_seconds)
    rate_limited: float = field(default=0.0, validator=_share)
    retry_after: str = "1"
    server_error: float = field(default=0.0, validator=_share)
    server_error_statuses: tuple[int, ...] = field(default=(503,), validator=validators.min_len(1))
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
        validator=validators.deep_iterable(validators.in_(get_args(Operation))),
    )

    def __attrs_post_init__(self) -> None:
        if sum(getattr(self, name) for name in _SHARES) > 1 + _SUM_TOLERANCE:
            raise ConfigurationError(f"the shares of {', '.join(_SHARES)} add up to more than 1")


@frozen
class Fate:
    """What awaits one request.

    Attributes:
        kind: The fault, or None.
        latency_s: Seconds to wait first.
        choice: Uniform 0 to 1, to pick among a fault's variants.
        late_by_s: Seconds to a late write.
    """

    kind: FaultKind | None = None
    latency_s: float = 0.0
    choice: float = 0.0
    late_by_s: float = 0.0


_UNHARMED = Fate()


@define
class _Injection:
    kind: FaultKind
    left: int
    operation: Operation | None
    device_id: str | None


class FaultPlan:
    """Draws the fate of each request; the only state is how often each path was asked for."""

    def __init__(self, faults: Faults) -> None:
        self._injections: list[_Injection] = []
        self.use(faults)

    def use(self, faults: Faults) -> None:
        """Follow other faults from now on; counting starts anew, so that the same requests meet the same fate."""
        self.faults = faults
        self._operations = frozenset(faults.operations)
        self._counts: dict[tuple[str, bytes], int] = {}
        nothing = fields(Faults)
        names = ("latency_s", "latency_tail", *_SHARES)
        self._quiet = all(getattr(faults, name) == getattr(nothing, name).default for name in names)

    def restart(self) -> None:
        """Count from the beginning again and drop what was injected and has not happened."""
        self._injections.clear()
        self._counts.clear()

    def inject(
        self, kind: FaultKind, *, times: int, operation: Operation | None, device_id: str | None
    ) -> None:
        """Make the next ``times`` matching requests suffer ``kind``, before any draw."""
        if kind not in get_args(FaultKind):
            raise ConfigurationError(f"no fault named {kind!r}: choose from {', '.join(get_args(FaultKind))}")
        self._injections.append(_Injection(kind, times, operation, device_id))

    def next(self, operation: Operation, device_id: str | None, path: bytes, body: bytes) -> Fate:
        """Decide what befalls the request that has just arrived."""
        injected = self._take_injection(operation, device_id) if self._injections else None
        suffers = not self._quiet and operation in self._operations
        if injected is None and not suffers:
            return _UNHARMED
        # A POST's path is the same for all devices; its body tells them apart.
        fate = self._draw(operation, path + b"\0" + body if operation == "provisionDevice" else path)
        if injected is None:
            return fate
        return evolve(fate, kind=injected, latency_s=fate.latency_s if suffers else 0.0)

    def _take_injection(self, operation: Operation, device_id: str | None) -> FaultKind | None:
        for injection in self._injections:
            if injection.operation in (None, operation) and injection.device_id in (None, device_id):
                injection.left -= 1
                if not injection.left:
                    self._injections.remove(injection)
                return injection.kind
        return None

    def _draw(self, operation: Operation, key: bytes) -> Fate:
        faults = self.faults
        count = self._counts.get((operation, key), 0)
        self._counts[operation, key] = count + 1
        # A hash, not a shared stream: interleaving with other paths must not change what happens to this one.
        digest = blake2b(
            b"%d\0%b\0%d\0%b" % (faults.seed, operation.encode(), count, key), digest_size=48
        ).digest()
        which, choice, latency, tail, tail_by, late_by = (
            word / 2**64 for word in struct.unpack("<6Q", digest)
        )
        low, high = (
            faults.latency_s if isinstance(faults.latency_s, tuple) else (faults.latency_s, faults.latency_s)
        )
        latency_s = low + latency * (high - low)
        if tail < faults.latency_tail:
            low, high = faults.latency_tail_s
            latency_s += low + tail_by * (high - low)
        low, high = faults.late_write_by_s
        return Fate(self._kind(operation, which, choice), latency_s, choice, low + late_by * (high - low))

    def _kind(self, operation: Operation, which: float, choice: float) -> FaultKind | None:
        for name in _SHARES:
            share: float = getattr(self.faults, name)
            if which < share:
                break
            which -= share
        else:
            return None
        match name:
            case "reset":
                return "reset_before" if choice < 0.5 else "reset_after"
            case "hang":
                return "hang_before" if choice < 0.5 else "hang_after"
            case "late_write":
                return "late_write" if operation == "updateDeviceStatus" else None
            case "malformed":
                return None if operation == "updateDeviceStatus" else "malformed"
            case "rate_limited" | "server_error" | "truncated":
                return name
        raise AssertionError(name)


def pick(options: tuple[T, ...], choice: float) -> T:
    """Pick one of the options with a uniform 0 to 1."""
    return options[min(int(choice * len(options)), len(options) - 1)]

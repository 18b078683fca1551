"""Which fault befalls which request: drawn reproducibly, or asked for by name."""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import TypeVar, get_args

from attrs import define, evolve, frozen

from printos_async._common.checks import require_number
from printos_async._errors import ConfigurationError

from ._faults import SHARES, FaultKind, Faults, Operation

T = TypeVar("T")


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
        self._is_quiet = not any(getattr(faults, name) for name in ("latency_s", "latency_tail", *SHARES))

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
        require_number("times", times, 1, whole=True)
        self._injections.append(_Injection(kind, times, operation, device_id))

    def next(self, operation: Operation, device_id: str | None, path: str, body: bytes) -> Fate:
        """Decide what befalls the request that has just arrived."""
        injected = self._take_injection(operation, device_id) if self._injections else None
        suffers = not self._is_quiet and operation in self._operations
        if injected is None and not suffers:
            return _UNHARMED
        # A POST's path is the same for all devices; its body tells them apart.
        key = path.encode() + b"\0" + (body if operation == "provisionDevice" else b"")
        fate = self._draw(operation, key)
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
        latency_s = _between(faults.latency_s, latency)
        if tail < faults.latency_tail:
            latency_s += _between(faults.latency_tail_s, tail_by)
        late_by_s = _between(faults.late_write_by_s, late_by)
        return Fate(self._kind(operation, which, choice), latency_s, choice, late_by_s)

    def _kind(self, operation: Operation, which: float, choice: float) -> FaultKind | None:
        for name in SHARES:
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


def _between(bounds: float | tuple[float, float], choice: float) -> float:
    low, high = bounds if isinstance(bounds, tuple) else (bounds, bounds)
    return low + choice * (high - low)


def pick(options: tuple[T, ...], choice: float) -> T:
    """Pick one of the options with a uniform 0 to 1."""
    return options[min(int(choice * len(options)), len(options) - 1)]

"""Adaptive concurrency limit: additive increase, multiplicative decrease. No I/O, no clock of its own.

The rule is that of Vector's Adaptive Request Concurrency: once per round-trip the mean latency is compared with
its moving average. docs/tuning.md has the rule in words, what differs from Vector, and why.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from attrs import define, field

Reason: TypeAlias = Literal["steady", "latency", "overload"]

# Vector's defaults, which its authors chose by simulation: decrease_ratio, ewma_alpha, rtt_deviation_scale.
DECREASE_RATIO = 0.9
EWMA_ALPHA = 0.4
DEVIATION_SCALE = 2.5
# Real latencies are never the same twice. Without these two, 10 % of jitter alone keeps the limit near 70 on a
# server that would take any number, for half of all round-trips are above the average.
STEADY_TOLERANCE = 0.02
RISE_TOLERANCE = 0.1
# One more request in flight slows a saturated server by 1/limit, which is less than the noise once the limit is
# some tens, and a moving average forgets: only a long memory shows that the requests merely queue.
QUEUEING_FACTOR = 2.0
BASELINE_PERIODS = 1_000


@define(eq=False, kw_only=True)
class Aimd:
    """Moves a limit within bounds, from the outcomes of attempts.

    Attributes:
        limit: The limit now; the first one is the argument ``initial``.
        mean_s: Moving average of latency; None before the first success.
        reason: Why it moved last: ``"steady"`` latency at the limit, a rise of ``"latency"``, or ``"overload"``.
    """

    _minimum: int
    _maximum: int
    limit: int = field(alias="initial")
    reason: Reason = field(default="steady", init=False)
    # Of the periods before: moving average and variance of their means, and the lowest mean, which fades.
    mean_s: float | None = field(default=None, init=False)
    _variance: float = field(default=0.0, init=False)
    _baseline_s: float = field(default=math.inf, init=False)
    # Of the period that runs.
    _ends_s: float = field(default=-math.inf, init=False)
    _sum_s: float = field(default=0.0, init=False)
    _count: int = field(default=0, init=False)
    _overloaded: bool = field(default=False, init=False)
    _reached: bool = field(default=False, init=False)

    def record(
        self, *, started_s: float, now_s: float, latency_s: float | None, overloaded: bool, at_limit: bool
    ) -> int:
        """Record the outcome of one attempt, and return the new limit.

        Args:
            started_s: When the attempt began, on any clock that only goes forward.
            now_s: When it ended, on the same clock.
            latency_s: How long the server took; None where it says nothing about the server's load.
            overloaded: The server has, or seems to have, more to do than it can.
            at_limit: As many were in flight as the limit allows.
        """
        if latency_s is not None:
            self._sum_s += latency_s
            self._count += 1
        self._overloaded |= overloaded
        self._reached |= at_limit
        if now_s >= self._ends_s:
            self._end_period()
            # Before the first success the round-trip is not known: the one that has just ended stands for it.
            self._ends_s = now_s + (now_s - started_s if self.mean_s is None else self.mean_s)
        return self.limit

    def _end_period(self) -> None:
        latency_s = self._sum_s / self._count if self._count else None
        if self._overloaded:
            self._decrease("overload")
        elif latency_s is not None and self.mean_s is not None and self._reached:
            # Below the limit, latency is not of its making, and growth would be without evidence.
            self._compare(latency_s, self.mean_s)
        if latency_s is not None:
            self._learn(latency_s)
        self._sum_s = 0.0
        self._count = 0
        self._overloaded = self._reached = False

    def _compare(self, latency_s: float, mean_s: float) -> None:
        allowance_s = max(DEVIATION_SCALE * math.sqrt(self._variance), RISE_TOLERANCE * mean_s)
        if latency_s > mean_s + allowance_s:
            self._decrease("latency")
        elif (
            latency_s <= mean_s * (1 + STEADY_TOLERANCE)
            and latency_s <= self._baseline_s * QUEUEING_FACTOR
            and self.limit < self._maximum
        ):
            self.limit += 1
            self.reason = "steady"

    def _decrease(self, reason: Reason) -> None:
        decreased = max(self._minimum, int(self.limit * DECREASE_RATIO))
        if decreased < self.limit:
            self.limit = decreased
            self.reason = reason

    def _learn(self, latency_s: float) -> None:
        if self.mean_s is None:
            self.mean_s = self._baseline_s = latency_s
            return
        # Finch, "Incremental calculation of weighted mean and variance", section 9.
        difference = latency_s - self.mean_s
        self.mean_s += EWMA_ALPHA * difference
        self._variance = (1 - EWMA_ALPHA) * (self._variance + EWMA_ALPHA * difference * difference)
        fading_s = self._baseline_s + (latency_s - self._baseline_s) / BASELINE_PERIODS
        self._baseline_s = min(latency_s, fading_s)

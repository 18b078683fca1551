"""A server under load, simulated event by event on a clock of its own: what the limit's rule is tested against.

The model of the server is that of Vector's tests of its Adaptive Request Concurrency
(``src/sinks/util/adaptive_concurrency/tests.rs`` in vectordotdev/vector), with a queue added.
"""

from __future__ import annotations

import heapq
import random
from collections import defaultdict, deque
from functools import partial
from itertools import count, pairwise
from typing import TYPE_CHECKING, Literal

from attrs import Factory, define, field, frozen

if TYPE_CHECKING:
    from collections.abc import Callable

    from printos_async._execution.adaptive_limit import Aimd

TIMEOUT_S = 1.0
# Vector's simulation runs on timers of a millisecond: answers come up to that much later than asked for.
TICK_S = 0.001
BACKOFF_S = (1, 1, 2, 3, 5, 8, 13, 21, 34)


@frozen(kw_only=True)
class Server:
    """How long an answer takes, and when there is none.

    ``delay_s`` grows by ``jitter`` times an exponential draw, by ``scale`` for each further request in flight, and
    by ``knee_exp`` to the power of the requests beyond ``knee_start``. Beyond ``max_in_flight`` or
    ``max_rate`` (requests within a second) it answers 429 (defer) or not at all (drop). With ``workers`` it
    serves that many at a time, and the others queue.
    """

    delay_s: float = 0.1
    jitter: float = 0.0
    scale: float = 0.0
    knee_start: int | None = None
    knee_exp: float = 1.0
    max_in_flight: int | None = None
    max_rate: int | None = None
    action: Literal["defer", "drop"] = "defer"
    workers: int | None = None

    def is_overloaded(self, in_flight: int, rate: int) -> bool:
        return (self.max_in_flight is not None and in_flight > self.max_in_flight) or (
            self.max_rate is not None and rate > self.max_rate
        )

    def service_s(self, in_flight: int, draw: float) -> float:
        factor = 1 + self.jitter * draw + self.scale * (in_flight - 1)
        if self.knee_start is not None:
            factor += self.knee_exp ** max(0, in_flight - self.knee_start) - 1
        return self.delay_s * factor


@define
class Level:
    """A number that changes over time: its maximum, its most lasting value, its mean over time."""

    now: int
    changes: list[tuple[float, int]] = Factory(list)

    def set(self, value: int, now_s: float) -> None:
        self.now = value
        self.changes.append((now_s, value))

    def summary(self, from_s: float, until_s: float) -> dict[str, float]:
        lasted: defaultdict[int, float] = defaultdict(float)
        for (begin_s, value), (end_s, _) in pairwise([*self.changes, (until_s, 0)]):
            lasted[value] += max(0.0, min(end_s, until_s) - max(begin_s, from_s))
        total_s = sum(lasted.values())
        return {
            "max": max(value for value, time_s in lasted.items() if time_s),
            "mode": max(lasted, key=lambda value: lasted[value]),
            "mean": sum(value * time_s for value, time_s in lasted.items()) / total_s,
        }


@define
class Request:
    attempts: int = 0
    started_s: float = 0.0
    outcome: Literal["ok", "deferred", "dropped"] = "ok"


@define
class Simulation:
    """Requests that come at an interval, wait for the limit, are served, and are tried again if they fail."""

    policy: Aimd
    server: Server
    requests: int
    interval_s: float = 0.0
    seed: int = 0
    server_changes: tuple[tuple[float, Server], ...] = ()
    now_s: float = 0.0
    succeeded: int = 0
    failed: int = 0
    in_flight: Level = field(factory=lambda: Level(0))
    served: Level = field(factory=lambda: Level(0))
    limit: Level = field(init=False)
    _events: list[tuple[float, int, Callable[[], None]]] = Factory(list)
    _order: count[int] = field(factory=count)
    _waiting: deque[Request] = Factory(deque)
    _recent: deque[float] = Factory(deque)
    _free_at_s: list[float] = Factory(list)
    _random: random.Random = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.limit = Level(self.policy.limit, [(0.0, self.policy.limit)])
        self._random = random.Random(self.seed)
        self._free_at_s = [0.0] * (self.server.workers or 0)

    def run(self) -> Simulation:
        for at_s, server in self.server_changes:
            self._at(at_s, partial(self._replace, server))
        for number in range(self.requests):
            self._at(number * self.interval_s, partial(self._arrive, Request()))
        while self.succeeded < self.requests:
            self.now_s, _, happen = heapq.heappop(self._events)
            happen()
        return self

    def _at(self, when_s: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when_s, next(self._order), happen))

    def _replace(self, server: Server) -> None:
        self.server = server

    def _arrive(self, request: Request) -> None:
        self._waiting.append(request)
        self._send()

    def _send(self) -> None:
        while self._waiting and self.in_flight.now < self.policy.limit:
            request = self._waiting.popleft()
            request.attempts += 1
            request.started_s = self.now_s
            self.in_flight.set(self.in_flight.now + 1, self.now_s)
            self.served.set(self.served.now + 1, self.now_s)
            took_s = self._serve(request)
            self._at(self.now_s + took_s, partial(self._finish, request))

    def _serve(self, request: Request) -> float:
        while self._recent and self._recent[0] <= self.now_s - 1:
            self._recent.popleft()
        self._recent.append(self.now_s)
        request.outcome = "ok"
        draw, tick_s = self._random.expovariate(1), self._random.random() * TICK_S
        if self.server.is_overloaded(self.served.now, len(self._recent)):
            if self.server.action == "drop":
                request.outcome = "dropped"
                # Gone for the server, in flight for the client.
                self.served.set(self.served.now - 1, self.now_s)
                return TIMEOUT_S
            request.outcome = "deferred"
            return self.server.service_s(1, draw) + tick_s
        service_s = self.server.service_s(self.served.now, draw) + tick_s
        if self.server.workers is None:
            return service_s
        begins_s = max(self.now_s, heapq.heappop(self._free_at_s))
        heapq.heappush(self._free_at_s, begins_s + service_s)
        return begins_s + service_s - self.now_s

    def _finish(self, request: Request) -> None:
        took_s = self.now_s - request.started_s
        ok = request.outcome == "ok"
        limit = self.policy.record(
            started_s=request.started_s,
            now_s=self.now_s,
            latency_s=took_s if ok else None,
            overloaded=not ok,
            at_limit=self.in_flight.now >= self.policy.limit,
        )
        if limit != self.limit.now:
            self.limit.set(limit, self.now_s)
        self.in_flight.set(self.in_flight.now - 1, self.now_s)
        if request.outcome != "dropped":
            self.served.set(self.served.now - 1, self.now_s)
        if ok:
            self.succeeded += 1
        else:
            self.failed += 1
            backoff_s = BACKOFF_S[min(request.attempts, len(BACKOFF_S)) - 1]
            self._at(self.now_s + backoff_s, partial(self._arrive, request))
        self._send()

    def figures(self, from_s: float = 0.0) -> dict[str, float]:
        levels = {"limit": self.limit, "in_flight": self.in_flight, "served": self.served}
        return {
            f"{name} {figure}": value
            for name, level in levels.items()
            for figure, value in level.summary(from_s, self.now_s).items()
        }

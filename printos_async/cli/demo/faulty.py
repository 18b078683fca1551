"""``printos demo --faults``: a long-lived pusher against a server that misbehaves in every way."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from printos_async._events import AttemptFinished, CircuitChanged, StatusFailed, StatusReasserted, StatusSent
from printos_async.cli.terminal.output import complain
from printos_async.cli.terminal.progress import PusherLine, live_progress
from printos_async.sandbox import Faults

from .report import EngineReport
from .run import Demo

if TYPE_CHECKING:
    from printos_async._client import PrintOSClient
    from printos_async._delivery.pusher import StatusPusher
    from printos_async._events import Event
    from printos_async.sandbox import Sandbox

_LATE_WRITE_BY_S = (0.05, 0.4)
_AMBIGUITY_S = 0.6  # longer than any write is late
_DRAIN_TIMEOUT_S = 30.0
_CIRCUIT_AT_MOST_S = 5.0


class FaultyDemo(Demo):
    """A demonstration in which the server answers 503 and 429, resets, cuts off, writes late and goes away.

    Args:
        devices: Number of devices.
        rounds: Number of rounds.
        seed: Seed of the faults.
    """

    def __init__(self, *, devices: int, rounds: int, seed: int) -> None:
        faults = Faults(
            seed=seed,
            latency_s=(0.0, 0.02),
            server_error=0.05,
            reset=0.03,
            truncated=0.02,
            late_write=0.05,
            late_write_by_s=_LATE_WRITE_BY_S,
        )
        super().__init__(devices=devices, rounds=rounds, faults=faults)
        self._engine = self._report.engine = EngineReport()
        self._pusher: StatusPusher | None = None
        self._opened = asyncio.Event()
        self._closed = asyncio.Event()

    def on_event(self, event: Event) -> None:
        """Count what the pusher does; a hook of the client."""
        super().on_event(event)
        match event:
            case StatusSent():
                self._latencies_s.append(event.latency_s)
            case StatusFailed():
                self._problem("not sent", [f"{event.device_id}: {event.cause}"])
            case StatusReasserted():
                self._engine.reasserted += 1
            case CircuitChanged(circuit="open"):
                self._engine.circuit_opened += 1
                self._opened.set()
            case CircuitChanged():
                self._closed.set()
            case AttemptFinished() if self._pusher is not None:
                self._engine.see_limit(self._pusher.stats().limit)

    async def _push(self, sandbox: Sandbox, client: PrintOSClient, device_ids: list[str]) -> None:
        report, line = self._report, PusherLine()
        started_s = time.perf_counter()
        complain(f"pushing {self._rounds:,} rounds of {len(device_ids) * self.REPORTS_PER_ROUND:,} statuses")
        async with aclosing(client.status_pusher(ambiguity_s=_AMBIGUITY_S)) as pusher:
            self._pusher = pusher
            self._engine.see_limit(pusher.stats().limit)

            def sample() -> tuple[float, str]:
                return 0, line.describe(pusher.stats(), retries=report.retries)

            async with live_progress("Pushing", total=None, sample=sample, has_bar=False):
                for number in range(self._rounds):
                    if number == self._rounds // 2:
                        await self._go_away(sandbox, pusher, device_ids, number)
                    else:
                        await self._push_round(pusher, device_ids, number)
                stats = await pusher.drain(_DRAIN_TIMEOUT_S)
        report.sent, report.superseded, report.failed = stats.sent, stats.superseded, stats.failed
        report.pushing_s = time.perf_counter() - started_s
        if stats.active_devices:
            report.problems.append(
                f"{stats.active_devices} devices were not settled in {_DRAIN_TIMEOUT_S:g} s"
            )
        await sandbox.wait_for(lambda: not sandbox.pending_late_writes)

    async def _push_round(self, pusher: StatusPusher, device_ids: list[str], number: int) -> None:
        """Push one round and wait for its outcomes."""
        async with asyncio.TaskGroup() as pushes:
            async for item in self._round(device_ids, number):
                pushes.create_task(pusher.push(item.device_id, item.status))

    async def _go_away(
        self, sandbox: Sandbox, pusher: StatusPusher, device_ids: list[str], number: int
    ) -> None:
        """Push one round while every request fails, until the circuit opens; recovered, the server asks for a pause."""
        sandbox.set_faults(Faults(server_error=1.0))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._push_round(pusher, device_ids, number))
            await _wait(self._opened)
            sandbox.set_faults(Faults())  # else a probe might fail too, which costs a second each
            await _wait(self._closed)
            sandbox.set_faults(self._faults)
            sandbox.inject("rate_limited", operation="updateDeviceStatus")

    def _check_order(self, sandbox: Sandbox) -> None:
        # Only a write that the server itself delayed may land on a newer one; check() has seen that none stayed.
        steps = self._steps_back(sandbox)
        self._engine.late_writes = sum(write.late for write in sandbox.applied)
        self._engine.overwritten = sum(write.late for write, _ in steps)
        self._problem("went back to an older status", [case for write, case in steps if not write.late])


async def _wait(event: asyncio.Event) -> None:
    # An event that has not come by then is not waited for; the report counts them.
    with suppress(TimeoutError):
        async with asyncio.timeout(_CIRCUIT_AT_MOST_S):
            await event.wait()

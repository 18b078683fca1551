"""``printos demo --faults``: a long-lived pusher against a server that misbehaves in every way."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from printos_async._events import LimitChanged
from printos_async.cli.terminal.output import counted
from printos_async.cli.terminal.progress import PusherLine, live_progress
from printos_async.sandbox import Faults

from .run import Demo

if TYPE_CHECKING:
    from printos_async._client import PrintOSClient
    from printos_async._delivery.pusher import StatusPusher
    from printos_async._events import Event
    from printos_async.sandbox import Sandbox

_LATE_WRITE_BY_S = (0.05, 0.4)
_AMBIGUITY_S = 0.6  # longer than any write is late
_DRAIN_TIMEOUT_S = 30.0
_EVENT_AT_MOST_S = 5.0
# The late write that is arranged: the next status is usually there in 0.05 s, and else it is tried again.
_ARRANGED_LATE_BY_S = 0.3
_MAX_ARRANGED = 5


class FaultyDemo(Demo):
    """A demonstration in which the server answers 503 and 429, resets, cuts off, writes late, goes away and refuses the key.

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

    def on_event(self, event: Event) -> None:
        """Count what the client does; a hook of it."""
        super().on_event(event)
        if isinstance(event, LimitChanged):
            self._report.limits.append(event.new)

    async def _push(self, sandbox: Sandbox, client: PrintOSClient, device_ids: list[str]) -> None:
        report, line = self._report, PusherLine()
        async with aclosing(client.status_pusher(ambiguity_s=_AMBIGUITY_S)) as pusher:
            report.limits = [pusher.stats().limit]

            def sample() -> tuple[float, str]:
                return 0, line.describe(pusher.stats(), retries=report.events["RetryScheduled"])

            async with live_progress("Pushing", total=None, sample=sample, has_bar=False):
                for number in range(self._rounds):
                    if number == self._rounds // 2:
                        await self._go_away(sandbox, pusher, device_ids, number)
                    else:
                        await self._push_round(pusher, device_ids, number)
                await self._overwrite(sandbox, pusher, device_ids[-1])
                stats = await pusher.drain(_DRAIN_TIMEOUT_S)
        if stats.active_devices:
            report.problems.append(
                f"not settled in {_DRAIN_TIMEOUT_S:g} s: {counted(stats.active_devices, 'device')}"
            )

    async def _push_round(self, pusher: StatusPusher, device_ids: list[str], number: int) -> None:
        """Push one round and wait for its outcomes."""
        async with asyncio.TaskGroup() as pushes:
            async for item in self._round(device_ids, number):
                pushes.create_task(pusher.push(item.device_id, item.status))

    async def _go_away(
        self, sandbox: Sandbox, pusher: StatusPusher, device_ids: list[str], number: int
    ) -> None:
        """Push one round while every request fails, until the circuit opens.

        When the server is back it refuses the key until that has been noticed; then it asks for a pause.
        """
        sandbox.set_faults(Faults(server_error=1.0))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._push_round(pusher, device_ids, number))
            await self._wait_for("CircuitOpened")
            sandbox.set_faults(Faults())  # else a probe might fail too, which costs a second each
            sandbox.remove_key(self.key[0])
            await self._wait_for("AccountHeld")
            sandbox.set_key(*self.key)
            await self._wait_for("AccountResumed")
            await self._wait_for("CircuitClosed")
            sandbox.set_faults(self._faults)
            sandbox.inject("rate_limited", operation="updateDeviceStatus")

    async def _overwrite(self, sandbox: Sandbox, pusher: StatusPusher, device_id: str) -> None:
        """Let an older status of a device land on a newer one; the random late writes need not do so."""
        late_by_s = (_ARRANGED_LATE_BY_S, _ARRANGED_LATE_BY_S)
        sandbox.set_faults(Faults(late_write_by_s=late_by_s, late_write_answers=("504",)))
        await sandbox.wait_for(lambda: not sandbox.pending_late_writes)
        pages_total = self._rounds * self.REPORTS_PER_ROUND + 1
        # First a status that gets through: no pause, no open circuit and no retry keeps the next ones waiting.
        await pusher.push(device_id, self._next_status(device_id, 0, pages_total))
        for older in range(pages_total + 1, pages_total + 2 * _MAX_ARRANGED, 2):
            sandbox.inject("late_write", device_id=device_id)
            await pusher.put(device_id, self._next_status(device_id, 0, older))
            await sandbox.wait_for(lambda: sandbox.pending_late_writes)
            await pusher.push(device_id, self._next_status(device_id, 0, older + 1))
            await sandbox.wait_for(lambda: not sandbox.pending_late_writes)
            if any(write.late and write.device_id == device_id for write, _ in self._steps_back(sandbox)):
                return

    async def _wait_for(self, name: str) -> None:
        # An event that has not come by then is not waited for; the report counts them.
        with suppress(TimeoutError):
            async with asyncio.timeout(_EVENT_AT_MOST_S):
                await self._seen[name].wait()

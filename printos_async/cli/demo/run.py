"""``printos demo``: the fleet, the rounds, and the check at the server."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Literal

from printos_async._auth import HmacAuth
from printos_async._client import PrintOSClient
from printos_async._events import CircuitChanged, StatusFailed, StatusSent
from printos_async._execution.retry import RetryPolicy
from printos_async._models import (
    DeviceProvisionRequest,
    DeviceStatusUpdate,
    DeviceStatusUpdateMetrics,
    StatusPush,
)
from printos_async.cli.terminal.output import complain, count_statuses, counted
from printos_async.cli.terminal.progress import live_progress
from printos_async.sandbox import Sandbox

from .report import DemoReport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from printos_async._events import Event
    from printos_async.sandbox import AppliedStatus, Faults

# Literals, so that they are words for the type checker where the specification lists the words.
_STATUS_WORDS: tuple[Literal["DS_ON", "DS_RIPPING", "DS_PRINTING", "DS_STANDBY"], ...] = (
    "DS_ON",
    "DS_RIPPING",
    "DS_PRINTING",
    "DS_STANDBY",
)
# Short delays, for the faults are short; as many attempts as make 1 in 10 failing harmless.
_RETRY = RetryPolicy(max_attempts=12, base_delay_s=0.02, max_delay_s=2.0)
_MAX_PROBLEMS_NAMED = 5


class Demo:
    """One demonstration.

    Args:
        devices: Number of devices.
        rounds: Number of rounds, in each of which every device reports ``REPORTS_PER_ROUND`` times.
        faults: Faults of the server.

    Attributes:
        key: HMAC key and secret.
    """

    # Reports of every device in one round: faster than they can be sent, so that some are coalesced.
    REPORTS_PER_ROUND = 3

    def __init__(self, *, devices: int, rounds: int, faults: Faults) -> None:
        self._devices = devices
        self._rounds = rounds
        self._faults = faults
        self.key = ("demo", secrets.token_urlsafe(24))
        self._report = DemoReport(seed=faults.seed)
        self._failures: list[str] = []
        self._newest: dict[str, int] = {}
        self._seen: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def run(self) -> DemoReport:
        """Run it and return the report."""
        async with (
            Sandbox(faults=self._faults, hmac_keys=dict([self.key])) as sandbox,
            PrintOSClient(
                sandbox.url, auth=HmacAuth(*self.key), retry=_RETRY, hooks=[self.on_event]
            ) as client,
        ):
            return await self.run_against(sandbox, client)

    async def run_against(self, sandbox: Sandbox, client: PrintOSClient) -> DemoReport:
        """Run it with a client of this sandbox, which has ``on_event`` as a hook, and return the report."""
        report = self._report
        report.url = sandbox.url
        device_ids = await self._provision(client)
        per_round = len(device_ids) * self.REPORTS_PER_ROUND
        complain(f"pushing {counted(self._rounds, 'round')} of {count_statuses(per_round)}")
        started_s = time.perf_counter()
        await self._push(sandbox, client, device_ids)
        report.pushing_s = time.perf_counter() - started_s
        self._problem("not sent", self._failures)
        await sandbox.wait_for(lambda: not sandbox.pending_late_writes)
        self.check(sandbox)
        report.latencies_s.sort()
        return report

    def on_event(self, event: Event) -> None:
        """Count what the client does; a hook of it."""
        name = type(event).__name__
        match event:
            case StatusSent():
                self._report.latencies_s.append(event.latency_s)
            case StatusFailed():
                self._failures.append(f"{event.device_id}: {event.detail}")
            case CircuitChanged():
                name = "CircuitOpened" if event.circuit == "open" else "CircuitClosed"
        self._report.events[name] += 1
        self._seen[name].set()

    async def _provision(self, client: PrintOSClient) -> list[str]:
        complain(f"registering {counted(self._devices, 'device')} at {self._report.url}")
        results = await client.provision_devices(
            DeviceProvisionRequest(
                model="Indigo 12000", serial_number=f"SN-{number:06}", location=f"Hall {number % 9 + 1}"
            )
            for number in range(1, self._devices + 1)
        )
        device_ids = [
            result.device.id
            for result in results
            if result.device is not None and isinstance(result.device.id, str)
        ]
        self._report.devices = len(device_ids)
        self._problem(
            "not registered",
            [f"{r.request.serial_number}: {r.error}" for r in results if r.outcome == "failed"],
        )
        return device_ids

    async def _push(self, sandbox: Sandbox, client: PrintOSClient, device_ids: list[str]) -> None:  # noqa: ARG002  # for demonstrations that look at the server meanwhile
        started_s = time.perf_counter()

        def sample() -> tuple[float, str]:
            rate = len(self._report.latencies_s) / max(time.perf_counter() - started_s, 0.001)
            return self._report.settled, f"{rate:,.0f} statuses/s"

        total = len(device_ids) * self.REPORTS_PER_ROUND * self._rounds
        async with live_progress("Pushing", total=total, sample=sample):
            for number in range(self._rounds):
                await client.push_statuses(self._round(device_ids, number))

    async def _round(self, device_ids: list[str], number: int) -> AsyncGenerator[StatusPush, None]:
        for repeat in range(self.REPORTS_PER_ROUND):
            # A count that only grows shows at the server which status is newer.
            pages_total = number * self.REPORTS_PER_ROUND + repeat + 1
            for index, device_id in enumerate(device_ids):
                yield StatusPush(device_id, self._next_status(device_id, index, pages_total))
            # Requests get under way between two reports, so that some are in flight when the next comes.
            await asyncio.sleep(0)

    def _next_status(self, device_id: str, index: int, pages_total: int) -> DeviceStatusUpdate:
        self._newest[device_id] = pages_total
        self._report.statuses += 1
        word = _STATUS_WORDS[(index + pages_total) % len(_STATUS_WORDS)]
        metrics = DeviceStatusUpdateMetrics(
            pages_total=pages_total, ink_level=round(1 - pages_total % 100 / 100, 2)
        )
        return DeviceStatusUpdate(status=word, metrics=metrics)

    def check(self, sandbox: Sandbox) -> None:
        """Compare the server's record with what was pushed, and add differences to the report."""
        report = self._report
        report.requests = sandbox.request_count
        report.faults = dict(
            Counter(request.fault for request in sandbox.requests if request.fault is not None)
        )
        wrong = []
        for device_id, pages_total in self._newest.items():
            device = sandbox.devices.get(device_id)
            status = None if device is None else device.status
            found = None if status is None else status["metrics"]["pagesTotal"]
            if found != pages_total:
                wrong.append(f"{device_id} has report {found}, not {pages_total}")
        self._problem("not at their newest status", wrong)
        overlaps = sandbox.max_in_flight_by_device
        self._problem(
            "written to twice at once",
            [f"{device_id}: {most} requests" for device_id, most in overlaps.items() if most > 1],
        )
        steps = self._steps_back(sandbox)
        report.late_writes = sum(write.late for write in sandbox.applied)
        report.overwritten = sum(write.late for write, _ in steps)
        report.refused = sandbox.refusals.total()
        # Only a write that the server itself delayed may land on a newer one; above it was seen that none stayed.
        self._problem("went back to an older status", [case for write, case in steps if not write.late])
        if report.events["AccountHeld"] != report.events["AccountResumed"]:
            report.problems.append("the account did not resume when its key was accepted again")
        if report.settled != report.statuses:
            report.problems.append("the counts of the report do not add up to the statuses given")
        if len(sandbox.devices) != self._devices:
            report.problems.append(
                f"the server has {counted(len(sandbox.devices), 'device')}, not {self._devices:,}"
            )

    def _steps_back(self, sandbox: Sandbox) -> list[tuple[AppliedStatus, str]]:
        """Return the recorded writes that followed a newer one of their device, with a description."""
        highest: dict[str, int] = {}
        steps = []
        for write in sandbox.applied:
            pages_total = write.status["metrics"]["pagesTotal"]
            before = highest.get(write.device_id, 0)
            if pages_total < before:
                steps.append((write, f"{write.device_id}: report {pages_total} after {before}"))
            highest[write.device_id] = max(before, pages_total)
        return steps

    def _problem(self, what: str, cases: list[str]) -> None:
        if cases:
            more = "" if len(cases) <= _MAX_PROBLEMS_NAMED else ", and more"
            self._report.problems.append(
                f"{len(cases):,} {what}: {', '.join(cases[:_MAX_PROBLEMS_NAMED])}{more}"
            )

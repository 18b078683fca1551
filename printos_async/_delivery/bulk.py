"""Bulk push: sends the statuses of a mapping or an iterable of any length, and returns a report."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from printos_async._errors import InvalidDeviceIdError, InvalidStatusError
from printos_async._events import StatusAccepted
from printos_async._models import (
    MAX_FAILURES_KEPT,
    DeviceId,
    DeviceStatusUpdate,
    PushReport,
    PushResult,
    StatusPush,
)

from .device_state import DeliveryPolicy
from .engine import Engine
from .results import emit_outcome, make_result, withdraw

if TYPE_CHECKING:
    from collections.abc import Callable

    from printos_async._execution.channel import Channel

    from .device_state import Outcome, PendingStatus

# The specification's device may lack an identifier; an unset one becomes a failed result.
_Item: TypeAlias = tuple[DeviceId, DeviceStatusUpdate] | StatusPush
Statuses: TypeAlias = (
    Mapping[str, DeviceStatusUpdate]
    | Mapping[DeviceId, DeviceStatusUpdate]
    | Iterable[_Item]
    | AsyncIterable[_Item]
)

# Devices with a waiting status at most. More would coalesce more and take more memory.
MAX_WAITING_DEVICES = 1_024
# Statuses taken from an iterable in one turn of the event loop: answers that arrive meanwhile keep their permits.
_ITEMS_PER_TURN = 64


class _Push:
    """One bulk push: its engine and its report."""

    def __init__(self, channel: Channel, on_result: Callable[[PushResult], object] | None) -> None:
        self.report = PushReport()
        self._hooks = channel.executor.hooks
        self._is_watched = bool(self._hooks)  # read once: there are two events for each status
        self._on_result = on_result
        self._loop = asyncio.get_running_loop()
        self._encode = channel.operations.update_device_status
        self.engine = Engine(channel, DeliveryPolicy(patient=False), self._settle)

    def put(self, device_id: DeviceId, status: DeviceStatusUpdate) -> None:
        """Accept one status; invalid input becomes a failed result.

        Raises:
            BaseException: The bug that stopped the engine, or what ``on_result`` raised.
        """
        if self.engine.occupancy.crash is not None:
            self.engine.occupancy.raise_crash()
        try:
            pending = self.engine.accept(self._encode(device_id, status))
        except (InvalidDeviceIdError, InvalidStatusError) as error:
            self._keep(PushResult(device_id or "", "failed", 0, 0.0, error, status))
        else:
            if self._is_watched:
                self._hooks.emit(StatusAccepted(pending.device_id, pending.seq))

    async def aclose(self) -> None:
        """Stop the engine. Statuses without an outcome are withdrawn."""
        try:
            await self.engine.aclose()
        finally:
            withdraw(self.engine.unsettled(), self._hooks)

    def _settle(self, pending: PendingStatus, outcome: Outcome) -> None:
        if pending.has_ended:
            return
        if self._is_watched:
            emit_outcome(self._hooks, pending, outcome, now_s=self._loop.time())
        if outcome.kind == "sent" and self._on_result is None:
            self.report.sent += 1  # by far the most frequent, and needs no result
        else:
            self._keep(make_result(pending, outcome, now_s=self._loop.time()))

    def _keep(self, result: PushResult) -> None:
        report = self.report
        if result.outcome == "sent":
            report.sent += 1
        elif result.outcome == "superseded":
            report.superseded += 1
        else:
            report.failed += 1
            if len(report.failures) < MAX_FAILURES_KEPT:
                report.failures.append(result)
        if self._on_result is not None and self.engine.occupancy.crash is None:
            try:
                self._on_result(result)
            except Exception as crash:  # noqa: BLE001  # the caller's bug: it ends the push and is raised from it
                self.engine.fail(crash)


async def push_all(
    channel: Channel, statuses: Statuses, on_result: Callable[[PushResult], object] | None
) -> PushReport:
    """Push every status and return the report; see ``PrintOSClient.push_statuses``."""
    push = _Push(channel, on_result)
    occupancy, report = push.engine.occupancy, push.report
    started = time.perf_counter()
    source_failure: Exception | None = None
    try:
        try:
            max_devices = MAX_WAITING_DEVICES + channel.executor.limiter.maximum
            await _feed(push, statuses, max_devices=max_devices)
        except Exception as error:  # noqa: BLE001  # raised after the accepted statuses were sent
            source_failure = error
        await occupancy.wait_until_below(1)
    finally:
        await push.aclose()
    report.elapsed_s = time.perf_counter() - started
    if source_failure is not None:
        source_failure.add_note(
            f"what came before was pushed: {report.sent} sent, {report.superseded} superseded, {report.failed} failed"
        )
        raise source_failure
    return report


async def _feed(push: _Push, statuses: Statuses, *, max_devices: int) -> None:
    """Put one status after the other, with work pending for at most ``max_devices`` devices."""
    occupancy = push.engine.occupancy
    index = 0
    if isinstance(statuses, AsyncIterable):
        async for item in statuses:
            push.put(*_pair(item, index))
            index += 1
            if occupancy.devices >= max_devices:
                await occupancy.wait_until_below(max_devices - _ITEMS_PER_TURN)
        return
    for item in statuses.items() if isinstance(statuses, Mapping) else statuses:
        push.put(*_pair(item, index))
        index += 1
        if occupancy.devices >= max_devices:
            # Waiting for several places at once: a task switch for each status costs more than the queue.
            await occupancy.wait_until_below(max_devices - _ITEMS_PER_TURN)
        elif index % _ITEMS_PER_TURN == 0:
            await asyncio.sleep(0)


def _pair(item: object, index: int) -> tuple[DeviceId, DeviceStatusUpdate]:
    if isinstance(item, tuple) and len(item) == 2:
        return item
    if isinstance(item, StatusPush):
        return item.device_id, item.status
    raise InvalidStatusError(
        f"item {index} of the statuses is {type(item).__name__}; give (device_id, status) or StatusPush"
    )

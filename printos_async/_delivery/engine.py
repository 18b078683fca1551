"""Delivery engine: accepts statuses, keeps the newest of each device, and has it sent."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

from .device_state import DeviceState, PendingStatus
from .senders import Senders

if TYPE_CHECKING:
    from printos_async._api.requests import Call
    from printos_async._execution.channel import Channel
    from printos_async._models import PushResult

    from .device_state import DeliveryPolicy, Settle


# Interval at which ``drained`` checks whether what is left can still be sent in time.
_DRAIN_POLL_S = 0.25


class Engine:
    """Sends the newest status of each device, one request per device at a time.

    ``settle`` is called once for each accepted status, with its outcome.

    Attributes:
        occupancy: Number of devices with work pending.
        senders: The requests in flight.
        scheduler: The devices.
    """

    def __init__(self, channel: Channel, policy: DeliveryPolicy, settle: Settle) -> None:
        self._executor = channel.executor
        self._policy = policy
        self._settle = settle
        self._loop = asyncio.get_running_loop()
        self.senders = Senders(channel, policy, settle=settle, on_crash=self.fail)
        self.scheduler = self.senders.scheduler
        self.occupancy = self.scheduler.occupancy
        self._devices = self.scheduler.devices
        self._seq = count(1)
        self._executor.circuit_watchers.add(self.scheduler)
        if policy.patient:
            self._executor.accounts.watchers.add(self.scheduler.held)

    async def drained(self, until_s: float) -> None:
        """Wait until no work is pending, or none of it may be sent before ``until_s``.

        Raises:
            BaseException: The bug that stopped the engine.
        """
        while self.senders.in_flight or self.scheduler.may_progress_by(until_s):
            with suppress(TimeoutError):
                async with asyncio.timeout(None if until_s == math.inf else _DRAIN_POLL_S):
                    await self.occupancy.wait_until_below(1)
                    break
        self.occupancy.raise_crash()

    def accept(self, call: Call, waiter: asyncio.Future[PushResult] | None = None) -> PendingStatus:
        """Accept an encoded status. It supersedes one of the same device that is waiting."""
        pending = PendingStatus(next(self._seq), call.device_id or "", call, self._loop.time(), waiter=waiter)
        self.take(pending)
        return pending

    def next_seq(self) -> int:
        """Return the next sequence number; all devices share one sequence."""
        return next(self._seq)

    def take(
        self, pending: PendingStatus, *, not_before_s: float = 0.0, uncertain_age_s: float | None = None
    ) -> None:
        """Accept a status that has its sequence number already.

        Args:
            pending: The status.
            not_before_s: Earliest time of the device's next request.
            uncertain_age_s: As in ``Claim``.
        """
        device_id = pending.device_id
        device = self._devices.get(device_id)
        if device is None:
            device = self._devices[device_id] = DeviceState(device_id)
        if uncertain_age_s is not None:
            device.inherit_uncertainty(uncertain_age_s, self._policy, now_s=self._loop.time())
        if not_before_s:
            device.not_before_s = max(device.not_before_s, not_before_s)
        replaced, device.waiting = device.waiting, pending
        if self._policy.deadline_s is not None:
            self.scheduler.arm_deadline(device, pending)
        if replaced is not None:
            self.senders.supersede(replaced, pending)
        if device.retrying:  # a newer status is no retry: it is due after the backoff, without a token
            device.retrying = False
            self.scheduler.schedule(device)
        elif replaced is None and device.in_flight is None:
            self.scheduler.schedule(device)

    def adopt(self, pending: PendingStatus) -> bool:
        """Pass the waiter of a status on to the engine's own copy of it; False if that has ended."""
        device = self._devices.get(pending.device_id)
        for one in () if device is None else (device.waiting, device.in_flight):
            if one is not None and one.seq == pending.seq and not one.has_ended:
                one.waiter = one.waiter or pending.waiter
                return True
        return False

    def drop(self) -> list[PendingStatus]:
        """Remove and return all waiting statuses, because the lease on their devices was lost.

        A request in flight ends by itself and is not repeated. If it fails, the watcher gets it.
        """
        dropped = []
        for device in tuple(self._devices.values()):
            if device.in_flight is not None:
                device.in_flight.is_lost = True
            if device.waiting is not None:
                dropped.append(device.waiting)
            # Another worker may have sent something else meanwhile.
            device.waiting, device.must_reassert, device.sent_stands = None, False, False
            self.scheduler.schedule(device)
        return dropped

    def give_back(self, device: DeviceState) -> PendingStatus | None:
        """Remove and return the waiting status of a device that others may send for from now on; None if it stays."""
        pending = device.waiting
        if pending is None or device.in_flight is not None or device.must_reassert:
            return None
        device.waiting, device.sent_stands = None, False
        self.scheduler.schedule(device)
        return pending

    def withdraw(self, pending: PendingStatus) -> bool:
        """Remove a waiting status; False if it is not waiting any more, or has superseded another one."""
        device = self._devices.get(pending.device_id)
        if device is None or device.waiting is not pending or pending.has_replaced:
            return False
        device.waiting = None
        self.scheduler.schedule(device)
        return True

    def is_active(self, device_id: str) -> bool:
        """Return whether a device has work pending."""
        device = self._devices.get(device_id)
        return device is not None and device.active

    def unsettled(self) -> list[PendingStatus]:
        """Return the accepted statuses that have no outcome yet."""
        return [
            pending
            for device in self._devices.values()
            for pending in (device.in_flight, device.waiting)
            if pending is not None and pending is not device.sent  # that one is settled, and only sent again
        ]

    def fail(self, crash: BaseException) -> None:
        """Stop because of a bug, which is raised in every waiting caller."""
        self.occupancy.end(crash)
        for pending in self.unsettled():
            pending.abandon(crash)

    async def aclose(self) -> None:
        """Stop sending. A request in flight ends by itself, at its deadline at the latest.

        Cancelling only stops the waiting.
        """
        self._executor.circuit_watchers.discard(self.scheduler)
        self._executor.accounts.watchers.discard(self.scheduler.held)
        await self.senders.aclose()

"""Per-device scheduler. Each device is ready, in flight, delayed, or waiting for a retry token."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from printos_async._api.errors import pause_error
from printos_async._common.clock import steady_s

from .backpressure import Occupancy
from .device_state import SENT, Outcome
from .held_devices import HeldDevices
from .queues import ReadyQueue, RetryQueue, TimeHeap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from printos_async._errors import PrintOSError
    from printos_async._execution.executor import Executor

    from .device_state import DeliveryPolicy, DeviceState, DeviceWatcher, PendingStatus, Settle


class Scheduler:
    """Decides which device is sent next, and when.

    ``settle`` is called with a status that is given up. ``add_sender`` is called when a device is ready and no
    sender waits for one.

    Attributes:
        occupancy: Number of devices with work pending.
        devices: The state of each device, by its identifier.
        ready: The devices that may be sent now.
        held: The devices that wait for their account.
        is_closed: No device becomes ready any more.
        watcher: Told of the devices; None without a shared outbox.
    """

    def __init__(
        self,
        executor: Executor,
        policy: DeliveryPolicy,
        *,
        settle: Settle,
        add_sender: Callable[[], None],
    ) -> None:
        self._executor = executor
        self._policy = policy
        self._settle = settle
        self._add_sender = add_sender
        self._loop = asyncio.get_running_loop()
        self._is_patient = policy.patient
        self._skips_unchanged = policy.sent_max_age_s > 0
        self.occupancy = Occupancy()
        self.devices: dict[str, DeviceState] = {}
        self.ready = ReadyQueue()
        self.held = HeldDevices(executor.accounts, self.schedule)
        self._delayed: TimeHeap[DeviceState] = TimeHeap(self._due)
        self._retries = RetryQueue(self._release_retries)
        # A heap of its own: a device with a deadline is in a queue, too.
        self._deadlines: TimeHeap[DeviceState] = TimeHeap(self._expire)
        self.is_closed = False
        self.watcher: DeviceWatcher | None = None
        # By steady_s(), not the loop's clock: uvloop's stands still between two iterations, during which a process may
        # have been stopped, and every loop's stands still while the machine is suspended.
        self._send_until_s: float | None = None
        self._lease_ends_steady_s = math.inf

    def schedule(self, device: DeviceState) -> None:
        """Put a device into the queue where it belongs, unless a sender has it or is about to take it."""
        active = device.waiting is not None or device.in_flight is not None or device.must_reassert
        if active is not device.counted:
            self._count(device, active=active)
        if device.queued or device.in_flight is not None or self.is_closed:
            return
        due_s = device.due_s(self._policy)
        if device.retrying:
            device.retrying = active
        if device.place is not None or device.held_with is not None or self._retries.devices:
            self._leave_place(device)
        if device.retrying or (due_s and due_s > self._loop.time()):
            device.place = self._delayed.push(due_s, device)
        elif not active:
            self._forget(device)
        elif self._is_patient and self._executor.accounts.held and self.held.park(device):
            pass
        elif not self.ready.append(device):
            self._add_sender()

    def take(self, *, now_s: float) -> DeviceState | None:
        """Return the next ready device if the host admits a request; None if the caller has to wait in ``ready``."""
        ready = self.ready
        while ready.devices and (self._send_until_s is None or steady_s() < self._send_until_s):
            device = ready.devices[0]
            has_status = device.waiting is not None or device.must_reassert
            if not has_status or (self._skips_unchanged and self.settle_unsent(device)):
                # The status expired or was withdrawn, or is unchanged: neither a probe nor a turn of the rate cap is
                # spent on it.
                ready.devices.popleft().queued = False
                self.schedule(device)
                continue
            if self._is_patient and self._executor.accounts.held and self.held.park(device):
                ready.devices.popleft().queued = False
                continue
            breaker = self._executor.circuit_breaker
            again_s = breaker.admit(now_s=now_s, patient=self._is_patient, caller=self)
            if again_s <= now_s:
                ready.devices.popleft()
                if ready.devices:
                    self._add_sender()  # there may be too few after a pause, or since the limit has grown
                return device
            pause_s = breaker.pause_s(now_s=now_s)  # the cap on the rate is no reason to give up
            if self._is_patient or pause_s <= self._executor.retry.max_delay_s:
                ready.wake_at(again_s)
                break
            ready.devices.popleft().queued = False
            self._give_up(device, pause_error(device.waiting.call, pause_s) if device.waiting else None)
        return None

    @property
    def lease_ends_s(self) -> float:
        """End of the lease, by the loop's clock."""
        if self._send_until_s is None:
            return math.inf  # there is no lease: no clock has to be read for each status
        return self._lease_ends_steady_s - steady_s() + self._loop.time()

    def send_until(self, until_s: float, *, lease_ends_s: float) -> None:
        """Start requests until ``until_s`` by ``steady_s()``; all of them end before the lease does."""
        self._send_until_s = until_s
        self._lease_ends_steady_s = lease_ends_s
        self.ready.wake_all()

    def arm_deadline(self, device: DeviceState, pending: PendingStatus) -> None:
        """Let a waiting status fail at its deadline, if there are deadlines."""
        if self._policy.deadline_s is not None and device.deadline is None:
            device.deadline = self._deadlines.push(pending.accepted_s + self._policy.deadline_s, device)

    def settle_unsent(self, device: DeviceState) -> bool:
        """Settle the next status if it needs no request, because it is late or what the server has; else return False."""
        if device.sent is None and self._policy.deadline_s is None:
            return False
        pending = device.next_status
        if pending is None:
            return False
        now_s = self._loop.time()
        if pending is not device.sent and pending.is_late(self._policy, now_s=now_s):
            # It was late when it was claimed from an outbox, where it had waited for its time.
            self._settle(pending, Outcome("failed", pending.error or pending.late_error()))
        elif device.is_unchanged(pending, self._policy, now_s=now_s):
            self._settle(pending, SENT)
        else:
            return False
        device.waiting = None
        return True

    def may_progress_by(self, until_s: float) -> bool:
        """Return whether any pending work may be sent, or reach its deadline, by ``until_s``."""
        if not self.occupancy.devices or self.ready.devices or self._retries.devices or until_s == math.inf:
            return self.occupancy.devices > 0
        return any(device.active and self._may_progress(device, until_s) for device in self.devices.values())

    def _may_progress(self, device: DeviceState, until_s: float) -> bool:
        if device.place is None or device.due_s(self._policy) <= until_s:
            return True
        if device.waiting is not None and device.waiting.is_late(self._policy, now_s=until_s):
            return True
        # A backoff may end early, a hold does not.
        return device.retrying and not device.is_held_strictly(self._policy, now_s=self._loop.time())

    def circuit_opened(self) -> None:
        """Make devices ready whose requests failed since the last success; the open circuit paces the probes.

        A device that failed while others succeeded stays in its backoff, and waits for its token.
        """
        now_s, succeeded_s = self._loop.time(), self._executor.circuit_breaker.succeeded_s
        for device in tuple(self.devices.values()) if self._is_patient else ():
            if device.failed_s > succeeded_s and device.in_flight is None:
                device.retrying, device.failed_s = False, -math.inf
                if not device.is_held_strictly(self._policy, now_s=now_s):
                    device.not_before_s = now_s
                self.schedule(device)
        self.ready.wake_all()

    def permit_freed(self) -> None:
        """Add a sender if a device is ready."""
        if self.ready.devices:
            self._add_sender()

    def has_waiting(self) -> bool:
        """Return whether anything waits to be sent."""
        return any(
            device.waiting is not None or (device.must_reassert and device.in_flight is None)
            for device in self.devices.values()
        )

    def more_admitted(self) -> None:
        """Wake the senders: they may be admitted now."""
        self.ready.wake_all()

    def close(self) -> None:
        """Stop: no device becomes ready any more, and nobody waits for that."""
        self.is_closed = True
        for timer in (self.ready, self.held, self._delayed, self._retries, self._deadlines):
            timer.cancel()
        self.occupancy.end()

    def _leave_place(self, device: DeviceState) -> None:
        self._retries.devices.pop(device, None)
        if device.place is not None:
            self._delayed.give_up(device.place)
            device.place = None
        if device.held_with is not None:
            device.held_with.pop(device, None)
            device.held_with = None

    def _count(self, device: DeviceState, *, active: bool) -> None:
        device.counted = active
        occupancy = self.occupancy
        occupancy.devices += 1 if active else -1
        if not active:
            if occupancy.devices < occupancy.notify_below:
                occupancy.notify()
            if self.watcher is not None:
                self.watcher.rested(device)

    def _forget(self, device: DeviceState) -> None:
        del self.devices[device.device_id]
        if device.deadline is not None:
            self._deadlines.give_up(device.deadline)
        if self.watcher is not None:
            self.watcher.forgotten(device)

    def _due(self, devices: Iterator[DeviceState]) -> None:
        for device in devices:
            device.place = None
            if device.retrying:
                self._retries.devices[device] = None
            else:
                self.schedule(device)
        if self._retries.devices:
            self._release_retries()

    def _expire(self, devices: Iterator[DeviceState]) -> None:
        for device in devices:
            device.deadline = None
            pending = device.waiting
            if pending is not None and not pending.is_late(self._policy, now_s=self._loop.time()):
                self.arm_deadline(device, pending)  # a newer status has replaced the one that armed it
            elif pending is not None:
                self._give_up(device, pending.late_error())

    def _release_retries(self) -> None:
        """Schedule the retries for which the budget has a token."""
        now_s, retries = self._loop.time(), self._retries.devices
        while retries and self._executor.budget.take(now_s=now_s):
            device, _ = retries.popitem(last=False)
            device.retrying, device.has_token = False, True
            self.schedule(device)
        if not self._is_patient and self._executor.circuit_breaker.seems_down:
            while retries:  # an outage would otherwise last the longer, the larger the fleet
                self._give_up(retries.popitem(last=False)[0], None)
        self._retries.rearm()

    def _give_up(self, device: DeviceState, error: PrintOSError | None) -> None:
        """Fail the waiting status with the error of its last request, or else with ``error``."""
        pending, device.waiting = device.waiting, None
        if pending is not None:
            self._settle(pending, Outcome("failed", pending.error or error))
        else:
            device.must_reassert = False
        self.schedule(device)

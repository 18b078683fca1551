"""Whose turn it is: every device is ready, in a worker's hands, or waits for its time or for the retry budget."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

from printos_async._api.errors import pause_error
from printos_async._clock import steady_s
from printos_async._errors import RequestTimeoutError

from .queues import ReadyQueue, TimeHeap

if TYPE_CHECKING:
    from collections.abc import Callable

    from printos_async._errors import PrintOSError
    from printos_async._execution.executor import Core

    from .device_state import DeliveryPolicy, DeviceState, PendingStatus
    from .gauge import Occupancy

# With the retry budget empty, the scheduler looks again this soon: a success may have given a token back.
_BUDGET_POLL_S = 0.05


class DeviceWatcher(Protocol):
    """Is told what becomes of devices."""

    def rested(self, device: DeviceState) -> None:
        """Take note that nothing is left to do for a device."""
        ...

    def forgotten(self, device: DeviceState) -> None:
        """Take note that nothing is remembered of a device any more."""
        ...


class Scheduler:
    """Keeps the state of each device with something to do or to remember.

    ``fail`` is called with a status that is given up, and with the reason. ``add_worker`` is called where a device is
    ready and no worker waits for one.
    """

    def __init__(
        self,
        core: Core,
        policy: DeliveryPolicy,
        occupancy: Occupancy,
        *,
        fail: Callable[[PendingStatus, PrintOSError | None], None],
        add_worker: Callable[[], None],
    ) -> None:
        self._core = core
        self._policy = policy
        self._occupancy = occupancy
        self._fail = fail
        self._add_worker = add_worker
        self._loop = asyncio.get_running_loop()
        self.devices: dict[str, DeviceState] = {}
        self.ready = ReadyQueue()
        self._delayed = TimeHeap(self._release_due)
        self._tokenless: OrderedDict[DeviceState, None] = (
            OrderedDict()
        )  # retries that wait for the retry budget
        self._token_timer: asyncio.TimerHandle | None = None
        self._deadlines = TimeHeap(self._expire)
        self._closed = False
        self.watcher: DeviceWatcher | None = None
        # By steady_s(), not the loop's clock: uvloop's stands still between two rounds, in which a process may have
        # been stopped, and each loop's while the machine is suspended.
        self._open_until_s: float | None = None
        self._lease_ends_s = math.inf

    def schedule(self, device: DeviceState) -> None:
        """Put a device where it belongs now, unless a worker holds it or is about to take it."""
        active = device.waiting is not None or device.in_flight is not None or device.must_reassert
        if active is not device.counted:
            self._count(device, active=active)
        if device.queued or device.in_flight is not None or self._closed:
            return
        due_s = device.due_s(self._policy)
        if device.retrying:
            device.retrying = active
        if self._tokenless:
            self._tokenless.pop(device, None)
        if device.place is not None:
            self._delayed.give_up(device.place)
            device.place = None
        if device.retrying or (due_s and due_s > self._loop.time()):
            device.place = self._delayed.push(due_s, device)
        elif not active:
            self._forget(device)
        elif not self.ready.append(device):
            self._add_worker()

    def take(self) -> DeviceState | None:
        """Give the next device whose turn it is, if the host wants a request; else whoever asks waits in ``ready``."""
        ready = self.ready
        while ready.devices and (self._open_until_s is None or self.is_open()):
            now_s = self._loop.time()
            again_s = self._core.health.admit(now_s=now_s, patient=self._policy.patient)
            if again_s <= now_s:
                device = ready.devices.popleft()
                if ready.devices:
                    self._add_worker()  # the limit may have grown
                return device
            if self._policy.patient or again_s - now_s <= self._core.max_delay_s:
                ready.wake_at(again_s)
                break
            self._turn_away(ready.devices.popleft(), again_s - now_s)
        return None

    @property
    def ends_s(self) -> float:
        """When the lease ends, by the loop's clock."""
        if self._open_until_s is None:
            return math.inf  # there is no lease: no clock has to be read for each status
        return self._lease_ends_s - steady_s() + self._loop.time()

    def is_open(self) -> bool:
        """Whether a request may be sent, as far as the lease is concerned."""
        return self._open_until_s is None or steady_s() < self._open_until_s

    def open_until(self, until_s: float, *, ends_s: float) -> None:
        """Let requests be sent until then, by ``steady_s()``; all of them end before ``ends_s``."""
        self._open_until_s = until_s
        self._lease_ends_s = ends_s
        self.ready.wake_all()

    def may_progress_by(self, until_s: float) -> bool:
        """Whether anything that is to be done may come to its turn, or to its deadline, by then."""
        if not self._occupancy.devices or self.ready.devices or self._tokenless or until_s == math.inf:
            return self._occupancy.devices > 0
        return any(device.active and self._may_progress(device, until_s) for device in self.devices.values())

    def _may_progress(self, device: DeviceState, until_s: float) -> bool:
        if device.place is None or device.due_s(self._policy) <= until_s:
            return True
        if device.waiting is not None and self.is_late(device.waiting, until_s):
            return True
        # The end of a backoff may be brought forward, that of a hold is not.
        return device.retrying and not device.is_held(self._policy, now_s=self._loop.time())

    def arm_deadline(self, device: DeviceState, pending: PendingStatus) -> None:
        """See to it that a waiting status fails at its deadline, if there are deadlines."""
        if self._policy.deadline_s is not None and device.deadline is None:
            device.deadline = self._deadlines.push(pending.accepted_s + self._policy.deadline_s, device)

    def is_late(self, pending: PendingStatus, now_s: float) -> bool:
        """Whether a status is past its deadline."""
        return self._policy.deadline_s is not None and pending.accepted_s + self._policy.deadline_s <= now_s

    def circuit_opened(self) -> None:
        """Line up what failed since the last success: the host failed, and the open circuit paces its probes.

        What failed while others succeeded stays in its backoff, and waits for its token.
        """
        now_s, succeeded_s = self._loop.time(), self._core.health.succeeded_s
        for device in tuple(self.devices.values()) if self._policy.patient else ():
            if device.failed_s > succeeded_s and device.in_flight is None:
                device.retrying, device.failed_s = False, -math.inf
                if not device.is_held(self._policy, now_s=now_s):
                    device.not_before_s = now_s
                self.schedule(device)
        self.ready.wake_all()

    def permit_freed(self) -> None:
        """Start a worker if a device is ready for one."""
        if self.ready.devices:
            self._add_worker()

    def has_waiting(self) -> bool:
        """Tell whether something waits to be sent, for whatever reason."""
        return any(
            device.waiting is not None or (device.must_reassert and device.in_flight is None)
            for device in self.devices.values()
        )

    def more_admitted(self) -> None:
        """Wake the workers: they may be admitted now."""
        self.ready.wake_all()

    def close(self) -> None:
        """Let no more device come to its turn."""
        self._closed = True
        for timer in (self.ready, self._delayed, self._deadlines, self._token_timer):
            if timer is not None:
                timer.cancel()

    def _count(self, device: DeviceState, *, active: bool) -> None:
        device.counted = active
        occupancy = self._occupancy
        occupancy.devices += 1 if active else -1
        if not active:
            if occupancy.watchers:
                occupancy.notify()
            if self.watcher is not None:
                self.watcher.rested(device)

    def _forget(self, device: DeviceState) -> None:
        del self.devices[device.device_id]
        if device.deadline is not None:
            self._deadlines.give_up(device.deadline)
        if self.watcher is not None:
            self.watcher.forgotten(device)

    def _release_due(self) -> None:
        now_s = self._loop.time()
        while (device := self._delayed.pop_due(now_s)) is not None:
            device.place = None
            if device.retrying:
                self._tokenless[device] = None
            else:
                self.schedule(device)
        self._delayed.rearm()
        self._release_tokenless()

    def _release_tokenless(self) -> None:
        """Let retries go for which the budget has a token, in the order in which they came."""
        now_s = self._loop.time()
        while self._tokenless and self._core.budget.take(now_s=now_s):
            device, _ = self._tokenless.popitem(last=False)
            device.retrying, device.has_token = False, True
            self.schedule(device)
        if not self._policy.patient and self._core.health.seems_down:
            while self._tokenless:  # an outage would otherwise take as long as the fleet is large
                self._give_up(self._tokenless.popitem(last=False)[0])
        if self._token_timer is not None:
            self._token_timer.cancel()
            self._token_timer = None
        if self._tokenless:
            self._token_timer = self._loop.call_at(now_s + _BUDGET_POLL_S, self._release_tokenless)

    def _turn_away(self, device: DeviceState, pause_s: float) -> None:
        device.queued = False
        if device.waiting is not None:
            device.error = device.error or pause_error(device.waiting.call, pause_s)
        self._give_up(device)

    def _give_up(self, device: DeviceState) -> None:
        pending, device.waiting = device.waiting, None
        if pending is not None:
            self._fail(pending, device.error)
        else:
            device.must_reassert = False
        self.schedule(device)

    def _expire(self) -> None:
        now_s = self._loop.time()
        while (device := self._deadlines.pop_due(now_s)) is not None:
            device.deadline = None
            pending = device.waiting
            if pending is not None and not self.is_late(pending, now_s):
                self.arm_deadline(device, pending)  # a newer status has replaced the one that armed it
            elif pending is not None:
                device.error = device.error or too_late(pending)
                self._give_up(device)
        self._deadlines.rearm()


def too_late(pending: PendingStatus) -> PrintOSError:
    """Give the error of a status that was never tried before its deadline."""
    call = pending.call
    return RequestTimeoutError(
        "not sent within deadline_s", method=call.method, path=call.path, attempts=0, may_have_arrived=False
    )

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
    from printos_async._execution.executor import Executor

    from .device_state import Entry, Promises, Slot
    from .gauge import Occupancy

# With the retry budget empty, the timetable looks again this soon: a success may have given a token back.
_BUDGET_POLL_S = 0.05


class SlotWatcher(Protocol):
    """Is told what becomes of devices."""

    def rested(self, slot: Slot) -> None:
        """Take note that nothing is left to do for a device."""
        ...

    def forgotten(self, slot: Slot) -> None:
        """Take note that nothing is remembered of a device any more."""
        ...


class Timetable:
    """Keeps a slot for each device with something to do or to remember.

    ``fail`` is called with a status that is given up, and with the reason. ``add_worker`` is called where a slot is
    ready and no worker waits for one.
    """

    def __init__(
        self,
        core: Executor,
        promises: Promises,
        occupancy: Occupancy,
        *,
        fail: Callable[[Entry, PrintOSError | None], None],
        add_worker: Callable[[], None],
    ) -> None:
        self._core = core
        self._promises = promises
        self._occupancy = occupancy
        self._fail = fail
        self._add_worker = add_worker
        self._loop = asyncio.get_running_loop()
        self.slots: dict[str, Slot] = {}
        self.ready = ReadyQueue()
        self._delayed = TimeHeap(self._release_due)
        self._tokenless: OrderedDict[Slot, None] = OrderedDict()  # retries that wait for the retry budget
        self._token_timer: asyncio.TimerHandle | None = None
        self._deadlines = TimeHeap(self._expire)
        self._closed = False
        self.watcher: SlotWatcher | None = None
        # By steady_s(), not the loop's clock: uvloop's stands still between two rounds, in which a process may have
        # been stopped, and each loop's while the machine is suspended.
        self._open_until_s: float | None = None
        self._lease_ends_s = math.inf

    def schedule(self, slot: Slot) -> None:
        """Put a slot where it belongs now, unless a worker holds it or is about to take it."""
        active = slot.waiting is not None or slot.in_flight is not None or slot.must_reassert
        if active is not slot.counted:
            self._count(slot, active=active)
        if slot.queued or slot.in_flight is not None or self._closed:
            return
        due_s = slot.due_s(self._promises)
        if slot.retrying:
            slot.retrying = active
        if self._tokenless:
            self._tokenless.pop(slot, None)
        if slot.place is not None:
            self._delayed.give_up(slot.place)
            slot.place = None
        if slot.retrying or (due_s and due_s > self._loop.time()):
            slot.place = self._delayed.push(due_s, slot)
        elif not active:
            self._forget(slot)
        elif not self.ready.append(slot):
            self._add_worker()

    def take(self) -> Slot | None:
        """Give the next slot whose turn it is, if the host wants a request; else whoever asks waits in ``ready``."""
        ready = self.ready
        while ready.slots and (self._open_until_s is None or self.is_open()):
            now_s = self._loop.time()
            again_s = self._core.health.admit(now_s=now_s, patient=self._promises.patient)
            if again_s <= now_s:
                slot = ready.slots.popleft()
                if ready.slots:
                    self._add_worker()  # the limit may have grown
                return slot
            if self._promises.patient or again_s - now_s <= self._core.max_delay_s:
                ready.wake_at(again_s)
                break
            self._turn_away(ready.slots.popleft(), again_s - now_s)
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
        if not self._occupancy.devices or self.ready.slots or self._tokenless or until_s == math.inf:
            return self._occupancy.devices > 0
        return any(slot.active and self._may_progress(slot, until_s) for slot in self.slots.values())

    def _may_progress(self, slot: Slot, until_s: float) -> bool:
        if slot.place is None or slot.due_s(self._promises) <= until_s:
            return True
        if slot.waiting is not None and self.is_late(slot.waiting, until_s):
            return True
        # The end of a backoff may be brought forward, that of a hold is not.
        return slot.retrying and not slot.is_held(self._promises, now_s=self._loop.time())

    def arm_deadline(self, slot: Slot, entry: Entry) -> None:
        """See to it that a waiting status fails at its deadline, if there are deadlines."""
        if self._promises.deadline_s is not None and slot.deadline is None:
            slot.deadline = self._deadlines.push(entry.accepted_s + self._promises.deadline_s, slot)

    def is_late(self, entry: Entry, now_s: float) -> bool:
        """Whether a status is past its deadline."""
        return self._promises.deadline_s is not None and entry.accepted_s + self._promises.deadline_s <= now_s

    def circuit_opened(self) -> None:
        """Line up what failed since the last success: the host failed, and the open circuit paces its probes.

        What failed while others succeeded stays in its backoff, and waits for its token.
        """
        now_s, succeeded_s = self._loop.time(), self._core.health.succeeded_s
        for slot in tuple(self.slots.values()) if self._promises.patient else ():
            if slot.failed_s > succeeded_s and slot.in_flight is None:
                slot.retrying, slot.failed_s = False, -math.inf
                if not slot.is_held(self._promises, now_s=now_s):
                    slot.not_before_s = now_s
                self.schedule(slot)
        self.ready.wake_all()

    def permit_freed(self) -> None:
        """Start a worker if a slot is ready for one."""
        if self.ready.slots:
            self._add_worker()

    def has_waiting(self) -> bool:
        """Tell whether something waits to be sent, for whatever reason."""
        return any(
            slot.waiting is not None or (slot.must_reassert and slot.in_flight is None)
            for slot in self.slots.values()
        )

    def more_admitted(self) -> None:
        """Wake the workers: they may be admitted now."""
        self.ready.wake_all()

    def close(self) -> None:
        """Let no more slot come to its turn."""
        self._closed = True
        for timer in (self.ready, self._delayed, self._deadlines, self._token_timer):
            if timer is not None:
                timer.cancel()

    def _count(self, slot: Slot, *, active: bool) -> None:
        slot.counted = active
        occupancy = self._occupancy
        occupancy.devices += 1 if active else -1
        if not active:
            if occupancy.watchers:
                occupancy.notify()
            if self.watcher is not None:
                self.watcher.rested(slot)

    def _forget(self, slot: Slot) -> None:
        del self.slots[slot.device_id]
        if slot.deadline is not None:
            self._deadlines.give_up(slot.deadline)
        if self.watcher is not None:
            self.watcher.forgotten(slot)

    def _release_due(self) -> None:
        now_s = self._loop.time()
        while (slot := self._delayed.pop_due(now_s)) is not None:
            slot.place = None
            if slot.retrying:
                self._tokenless[slot] = None
            else:
                self.schedule(slot)
        self._delayed.rearm()
        self._release_tokenless()

    def _release_tokenless(self) -> None:
        """Let retries go for which the budget has a token, in the order in which they came."""
        now_s = self._loop.time()
        while self._tokenless and self._core.budget.take(now_s=now_s):
            slot, _ = self._tokenless.popitem(last=False)
            slot.retrying, slot.has_token = False, True
            self.schedule(slot)
        if not self._promises.patient and self._core.health.seems_down:
            while self._tokenless:  # an outage would otherwise take as long as the fleet is large
                self._give_up(self._tokenless.popitem(last=False)[0])
        if self._token_timer is not None:
            self._token_timer.cancel()
            self._token_timer = None
        if self._tokenless:
            self._token_timer = self._loop.call_at(now_s + _BUDGET_POLL_S, self._release_tokenless)

    def _turn_away(self, slot: Slot, pause_s: float) -> None:
        slot.queued = False
        if slot.waiting is not None:
            slot.error = slot.error or pause_error(slot.waiting.call, pause_s)
        self._give_up(slot)

    def _give_up(self, slot: Slot) -> None:
        entry, slot.waiting = slot.waiting, None
        if entry is not None:
            self._fail(entry, slot.error)
        else:
            slot.must_reassert = False
        self.schedule(slot)

    def _expire(self) -> None:
        now_s = self._loop.time()
        while (slot := self._deadlines.pop_due(now_s)) is not None:
            slot.deadline = None
            entry = slot.waiting
            if entry is not None and not self.is_late(entry, now_s):
                self.arm_deadline(slot, entry)  # a newer status has replaced the one that armed it
            elif entry is not None:
                slot.error = slot.error or too_late(entry)
                self._give_up(slot)
        self._deadlines.rearm()


def too_late(entry: Entry) -> PrintOSError:
    """Give the error of a status that was never tried before its deadline."""
    call = entry.call
    return RequestTimeoutError(
        "not sent within deadline_s", method=call.method, path=call.path, attempts=0, may_have_arrived=False
    )

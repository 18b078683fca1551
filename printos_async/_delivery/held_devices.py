"""Devices that wait because their account is held: one of them is the probe, the others wait for its outcome."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from itertools import islice
from typing import TYPE_CHECKING

from .queues import Place, TimeHeap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from printos_async._auth import Account
    from printos_async._execution.account_monitor import AccountMonitor

    from .device_state import DeviceState

# Devices that are scheduled in one turn of the event loop when their account resumes.
_RELEASED_AT_ONCE = 1_000
# Interval at which the next probe is looked for while another one is in flight.
_PROBE_POLL_S = 1.0
# A held account that devices have left is held no longer, after nothing has waited for it for this long.
_UNUSED_S = 10.0
# Devices without credentials of their own, besides the probe, that are looked up again with each probe of the default:
# some may have got credentials.
_ASKED_PER_PROBE = 1_000


class HeldDevices:
    """The devices of held accounts, in the order in which they probe.

    Args:
        accounts: Says which accounts are held.
        schedule: Schedules a device that may be sent again.

    Attributes:
        probes: The devices whose request is a probe, with the account that it probes.
    """

    def __init__(self, accounts: AccountMonitor, schedule: Callable[[DeviceState], None]) -> None:
        self._accounts = accounts
        self._schedule = schedule
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Account, OrderedDict[DeviceState, None]] = {}
        self._probes: TimeHeap[Account] = TimeHeap(self._start_probes)
        self._armed: dict[Account, Place[Account]] = {}
        self._released: set[Account] = set()  # one of their devices was made ready for the probe
        # Nothing waits for them, unless a lookup under way finds them again.
        self._unused: set[Account] = set()
        self.probes: dict[DeviceState, Account] = {}
        # The device that is looked up now, and those that are next. One at a time: a lookup holds a permit.
        self._asked: dict[DeviceState, tuple[Account, deque[DeviceState]]] = {}

    def park(self, device: DeviceState) -> bool:
        """Let a device wait if its account is held and no probe is due; False if it may be sent."""
        account = self._accounts.of(device.device_id)
        if account is None or account.may_probe(self._loop.time()):
            return False
        device.held_with = self._waiting.setdefault(account, OrderedDict())
        device.held_with[device] = None
        if account not in self._armed or account in self._unused:
            self._unused.discard(account)
            self._arm(account, self._next_probe_s(account))
        return True

    def admit(self, device: DeviceState) -> bool:
        """Admit a request, as the probe if the device's account is held; False if it has to wait for its turn."""
        if self._asked and (asked := self._asked.pop(device, None)) is not None:
            self._ask_next(*asked)
        account = self._accounts.of(device.device_id)
        if account is None or account.refusals is None:
            return True
        if not account.may_probe(self._loop.time()):
            return False
        account.start_probe(device.device_id)
        self.probes[device] = account
        return True

    def end_probe(self, device: DeviceState) -> None:
        """Allow the next probe if a device was the probe, whatever became of it.

        The device may have got other credentials meanwhile: the probe is that of the account that it had before.
        """
        account = self.probes.pop(device, None)
        if account is not None and account.refusals is not None:
            account.refusals.probe_ended(device.device_id, now_s=self._loop.time())
            if self._accounts.is_default(account) and account in self._waiting:
                self._ask_again(account)

    def account_resumed(self, account: Account) -> None:
        """Schedule the devices of an account that has resumed."""
        self._released.discard(account)
        self._unused.discard(account)
        waiting = self._waiting.get(account)
        if waiting is None:
            return
        for _ in range(min(len(waiting), _RELEASED_AT_ONCE)):
            if account.is_held:
                break
            self._release_first(waiting)
        if not waiting:
            del self._waiting[account]
            self._disarm(account)  # the next hold has a first probe of its own
        elif account.is_held:
            self._arm(account, self._next_probe_s(account))
        else:
            self._loop.call_soon(self.account_resumed, account)

    def beyond(self, devices: int, *, min_hold_s: float) -> list[tuple[DeviceState, float]]:
        """Return devices beyond a number, each with the seconds until the next probe of its account.

        None of an account that is the client's only one: all the devices of an outbox would come back the same way.
        """
        too_many = sum(map(len, self._waiting.values())) - devices if self._accounts.are_several else 0
        found: list[tuple[DeviceState, float]] = []
        for account, waiting in self._waiting.items() if too_many > 0 else ():
            hold_s = self._next_probe_s(account) - self._loop.time()
            if hold_s >= min_hold_s:
                found += [(device, hold_s) for device in islice(waiting, too_many - len(found))]
        return found

    def probes_due(self) -> None:
        """Look again for when the next probes are due, and schedule the devices that have to be looked up again."""
        moved: list[DeviceState] = []
        for account, waiting in self._waiting.items():
            self._arm(account, self._next_probe_s(account))
            moved += [device for device in waiting if self._accounts.of(device.device_id) is not account]
        self._release_moved(deque(moved))

    def waits_for(self, account: Account) -> bool:
        """Return whether a device waits for an account, or probes it."""
        return (
            bool(self._waiting.get(account)) or account in self._released or account in self.probes.values()
        )

    def count_accounts(self) -> int:
        """Return for how many held accounts devices wait."""
        waited_for = {account for account, waiting in self._waiting.items() if waiting}
        return sum(account.is_held for account in waited_for | self._released | {*self.probes.values()})

    def cancel(self) -> None:
        """Cancel the timer."""
        self._probes.cancel()

    def _start_probes(self, accounts: Iterator[Account]) -> None:
        now_s = self._loop.time()
        for account in accounts:
            self._start_probe(account, now_s)

    def _start_probe(self, account: Account, now_s: float) -> None:
        del self._armed[account]
        self._released.discard(account)
        waiting = self._waiting.get(account)
        if not waiting:
            self._waiting.pop(account, None)
            self._note_unused(account, now_s)
        elif account.may_probe(now_s):
            # The device may have nothing to send when it is its turn: then the next one is the probe.
            self._arm(account, now_s + _PROBE_POLL_S)
            self._released.add(account)
            self._release_first(waiting)
        else:
            self._arm(account, self._next_probe_s(account))

    def _note_unused(self, account: Account, now_s: float) -> None:
        """End the hold of an account that devices have left, once nothing has waited for it for a while."""
        if account in self._unused:
            self._unused.discard(account)
            self._accounts.end_unused_hold(account)
        elif account.was_left:
            self._unused.add(account)
            self._arm(account, now_s + _UNUSED_S)

    def _release_moved(self, moved: deque[DeviceState]) -> None:
        for _ in range(min(len(moved), _RELEASED_AT_ONCE)):
            device = moved.popleft()
            if device.held_with is not None:
                self._release_one(device)
        if moved:
            self._loop.call_soon(self._release_moved, moved)

    def _ask_again(self, account: Account) -> None:
        for device in [each for each, (of, _) in self._asked.items() if of is account]:
            del self._asked[device]  # it has ended meanwhile, or its lookup hangs
        self._ask_next(account, deque(islice(self._waiting[account], _ASKED_PER_PROBE)))

    def _ask_next(self, account: Account, devices: deque[DeviceState]) -> None:
        while devices and account.is_held:
            device = devices.popleft()
            if device.held_with is not None and device.held_with is self._waiting.get(account):
                self._accounts.outdate(device.device_id)
                self._asked[device] = account, devices
                self._release_one(device)
                return

    def _release_first(self, waiting: OrderedDict[DeviceState, None]) -> None:
        self._release_one(next(iter(waiting)))

    def _release_one(self, device: DeviceState) -> None:
        assert device.held_with is not None  # noqa: S101  # it is parked
        del device.held_with[device]
        device.held_with = None
        self._schedule(device)

    def _next_probe_s(self, account: Account) -> float:
        next_s = -math.inf if account.refusals is None else account.refusals.next_probe_s
        return self._loop.time() + _PROBE_POLL_S if next_s == math.inf else next_s

    def _arm(self, account: Account, when_s: float) -> None:
        self._disarm(account)
        self._armed[account] = self._probes.push(when_s, account)

    def _disarm(self, account: Account) -> None:
        armed = self._armed.pop(account, None)
        if armed is not None:
            self._probes.give_up(armed)

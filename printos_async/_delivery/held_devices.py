"""Devices that wait because their account is held: one of them is the probe, the others wait for its outcome."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from typing import TYPE_CHECKING

from .queues import TimeHeap

if TYPE_CHECKING:
    from collections.abc import Callable

    from printos_async._auth import Account
    from printos_async._execution.account_health import AccountHealth

    from .device_state import DeviceState, Place

# Devices that are scheduled in one turn of the event loop when their account resumes.
_RELEASED_AT_ONCE = 1_000
# Interval at which the next probe is looked for while another one is in flight.
_PROBE_POLL_S = 1.0


class HeldDevices:
    """The devices of held accounts, in the order in which they probe.

    Args:
        accounts: Says which accounts are held.
        schedule: Schedules a device that may be sent again.
    """

    def __init__(self, accounts: AccountHealth, schedule: Callable[[DeviceState], None]) -> None:
        self._accounts = accounts
        self._schedule = schedule
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Account, OrderedDict[DeviceState, None]] = {}
        self._probes: TimeHeap[Account] = TimeHeap(self._release_probes)
        self._armed: dict[Account, Place[Account]] = {}

    def park(self, device: DeviceState) -> bool:
        """Let a device wait if its account is held and no probe is due; False if it may be sent."""
        account = self._accounts.of(device.device_id)
        if account is None or account.may_probe(self._loop.time()):
            return False
        device.held_with = self._waiting.setdefault(account, OrderedDict())
        device.held_with[device] = None
        if account not in self._armed:
            self._arm(account, self._next_probe_s(account))
        return True

    def start_probe(self, device: DeviceState) -> bool:
        """Return whether a device may be sent now; if its account is held, the device is the probe."""
        account = self._accounts.of(device.device_id)
        if account is None or account.refusals is None:
            return True
        if not account.may_probe(self._loop.time()):
            return False
        account.refusals.start_probe(device.device_id)
        return True

    def release(self, account: Account) -> None:
        """Schedule the devices of an account that has resumed."""
        waiting = self._waiting.get(account)
        if waiting is None:
            return
        for _ in range(min(len(waiting), _RELEASED_AT_ONCE)):
            if account.is_held:
                break
            self._release_first(waiting)
        if not waiting:
            self._waiting.pop(account, None)
        elif not account.is_held:
            self._loop.call_soon(self.release, account)

    def probes_due(self) -> None:
        """Look again for when the next probes are due: it may be earlier than it was."""
        for account in tuple(self._waiting):
            self._arm(account, self._next_probe_s(account))

    def cancel(self) -> None:
        """Cancel the timer."""
        self._probes.cancel()

    def _release_probes(self) -> None:
        now_s = self._loop.time()
        while (account := self._probes.pop_due(now_s)) is not None:
            del self._armed[account]
            waiting = self._waiting.get(account)
            if not waiting:
                self._waiting.pop(account, None)
            elif account.may_probe(now_s):
                # The device may have nothing to send when it is its turn: then the next one is the probe.
                self._arm(account, now_s + _PROBE_POLL_S)
                self._release_first(waiting)
            else:
                self._arm(account, self._next_probe_s(account))
        self._probes.rearm()

    def _release_first(self, waiting: OrderedDict[DeviceState, None]) -> None:
        device, _ = waiting.popitem(last=False)
        device.held_with = None
        self._schedule(device)

    def _next_probe_s(self, account: Account) -> float:
        next_s = -math.inf if account.refusals is None else account.refusals.next_probe_s
        return self._loop.time() + _PROBE_POLL_S if next_s == math.inf else next_s

    def _arm(self, account: Account, when_s: float) -> None:
        armed = self._armed.get(account)
        if armed is not None:
            self._probes.give_up(armed)
        self._armed[account] = self._probes.push(when_s, account)

"""Outages of the server, and held and resumed accounts, as lines on standard error."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from printos_async._events import AccountHeld, AccountResumed, CircuitChanged

from .output import complain, counted

if TYPE_CHECKING:
    from printos_async._events import Event

# If many logins are revoked at once, one line per span sums them up.
_SPAN_S = 0.5
# The first ones have a line sooner.
_FIRST_SPAN_S = 0.05
# Answers that hold an account when many of its devices receive them: the device may be unknown, or another account's.
_MAY_BE_THE_DEVICE = frozenset({403, 404})


class OutageLines:
    """Reports that the server is down or back, and accounts that are held or resumed.

    Accounts are reported once each, and summed up where many come at the same time. A context manager: leaving reports
    the last ones.
    """

    def __init__(self) -> None:
        self._held: list[str] = []
        self._has_refused_devices = False
        self._resumed: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._next_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._report()

    def on_event(self, event: Event) -> None:
        """Report an event, or collect it if it is an account's; a hook of the client."""
        match event:
            case CircuitChanged(circuit="open"):
                complain("the server seems down; it is probed once a second")
            case CircuitChanged():
                complain("the server is back")
            case AccountHeld():
                status = "" if event.status is None else f"{event.status} "
                self._held.append(f"{event.account} ({status}{event.cause})")
                self._has_refused_devices |= event.status in _MAY_BE_THE_DEVICE
                self._report_soon()
            case AccountResumed():
                self._resumed.append(event.account)
                self._report_soon()

    def _report_soon(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(self._next_s, loop.time() + _FIRST_SPAN_S), self._report)

    def _report(self) -> None:
        self._timer = None
        self._next_s = asyncio.get_running_loop().time() + _SPAN_S
        if self._held:
            has = "its statuses wait" if len(self._held) == 1 else "their statuses wait"
            advice = "; compare the devices with printos devices list" if self._has_refused_devices else ""
            complain(f"held: {_summed_up(self._held)}; {has} until a request gets through{advice}")
        if self._resumed:
            complain(f"resumed: {_summed_up(self._resumed)}")
        self._held, self._has_refused_devices, self._resumed = [], False, []


def complain_of_held(accounts: int, what_next: str) -> None:
    """Report at the end on standard error that accounts are still held, and what to do."""
    are = "is held: its" if accounts == 1 else "are held: their"
    complain(
        f"{counted(accounts, 'account')} {are} requests do not get through; correct the cause"
        f" (see the message 'held:', and printos check), and {what_next}"
    )


def _summed_up(names: list[str]) -> str:
    more = f", and {len(names) - 1:,} more" if len(names) > 1 else ""
    return names[0] + more

"""Held and resumed accounts as lines on standard error."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from printos_async._events import AccountHeld, AccountResumed

from .output import complain, counted

if TYPE_CHECKING:
    from printos_async._events import Event

# If many logins are revoked at once, one line per span sums them up.
_SPAN_S = 0.5
# The first ones have a line sooner.
_FIRST_SPAN_S = 0.05


class AccountLines:
    """Reports held and resumed accounts: once each, and summed up where many come at the same time.

    A context manager: leaving reports the last ones.
    """

    def __init__(self) -> None:
        self._held: list[str] = []
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
        """Collect an event; a hook of the client."""
        if isinstance(event, AccountHeld):
            status = "" if event.status is None else f"{event.status} "
            self._held.append(f"{event.account} ({status}{event.cause})")
        elif isinstance(event, AccountResumed):
            self._resumed.append(event.account)
        else:
            return
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(self._next_s, loop.time() + _FIRST_SPAN_S), self._report)

    def _report(self) -> None:
        self._timer = None
        self._next_s = asyncio.get_running_loop().time() + _SPAN_S
        if self._held:
            has = "its statuses wait" if len(self._held) == 1 else "their statuses wait"
            complain(f"held: {_summed_up(self._held)}; {has} until PrintOS accepts the credentials")
        if self._resumed:
            complain(f"resumed: {_summed_up(self._resumed)}")
        self._held, self._resumed = [], []


def complain_of_held(accounts: int, what_next: str) -> None:
    """Report at the end on standard error that accounts are still held, and what to do."""
    complain(
        f"{counted(accounts, 'account')} {'is' if accounts == 1 else 'are'} held: PrintOS refuses the credentials; correct them, and {what_next}"
    )


def _summed_up(names: list[str]) -> str:
    more = f", and {len(names) - 1:,} more" if len(names) > 1 else ""
    return names[0] + more

"""Signals: Ctrl-C and SIGTERM first end reading, then give up what is left; SIGHUP reads the credentials again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

# Less than the time after which container runtimes kill.
GRACE_S = 8.0


class StopSignals:
    """Turns signals into two events: stop reading, and give up.

    Args:
        grace_s: Seconds from the first signal to giving up.

    Attributes:
        on_hangup: Called on SIGHUP, if it is set before the signals are taken; not on Windows, which has none. A SIGHUP
            because the terminal has gone stops as well.
        stopping: Set by the first signal.
        giving_up: Set by the second one, or ``grace_s`` seconds after the first.
        received: The first signal.
        is_repeated: Whether there was a second one.
    """

    def __init__(self, *, grace_s: float = GRACE_S) -> None:
        self._grace_s = grace_s
        self.on_hangup: Callable[[], None] | None = None
        self.stopping = asyncio.Event()
        self.giving_up = asyncio.Event()
        self.received: signal.Signals | None = None
        self.is_repeated = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._had_terminal = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._loop = loop = asyncio.get_running_loop()
        self._had_terminal = _has_terminal()
        numbers = [signal.SIGINT, signal.SIGTERM]
        if self.on_hangup is not None and sys.platform != "win32":
            numbers.append(signal.SIGHUP)
        # Only the main thread may set handlers; in other threads the program handles signals itself.
        if threading.current_thread() is threading.main_thread():
            for number in numbers:
                self._before[number] = signal.getsignal(number)
                if sys.platform == "win32":  # which has no loop.add_signal_handler
                    signal.signal(number, self._on_signal)
                else:
                    # Wakes the event loop. Python runs its own handlers only when the main thread goes on: a signal that
                    # comes just before it waits, or that the system delivers to another thread, would not wake it.
                    loop.add_signal_handler(number, self._take, loop, number)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            if sys.platform != "win32":
                asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, handler)
        if self._timer is not None:
            self._timer.cancel()

    @property
    def stopped_by(self) -> str | None:
        """The name of the first signal."""
        return None if self.received is None else self.received.name

    @property
    def progress_suffix(self) -> str:
        """The end of a line of progress: nothing before the first signal."""
        return "" if self.received is None else " · stopping"

    def _on_signal(self, number: int, _frame: object) -> None:
        # Windows. It runs between any two instructions, so everything is left to the loop.
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._take, self._loop, signal.Signals(number))

    def _take(self, loop: asyncio.AbstractEventLoop, received: signal.Signals) -> None:
        if sys.platform != "win32" and received == signal.SIGHUP and self.on_hangup is not None:
            if not self._had_terminal or _has_terminal():
                self.on_hangup()
                return
            _leave_terminal()
        if self.received is None:
            self.received = received
            self.stopping.set()
            self._timer = loop.call_later(self._grace_s, self.giving_up.set)
        else:
            self.is_repeated = True
            self.giving_up.set()


async def run_until(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Run ``work``, cancel it when the event is set, and raise what it raised."""
    working = asyncio.create_task(work)
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        working.cancel()  # has no effect on one that is done
    await asyncio.wait({working})
    if not working.cancelled():
        working.result()


def _has_terminal() -> bool:
    """Return whether somebody may still see or type something."""
    return any(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def _leave_terminal() -> None:
    """Write nothing more to a terminal that has gone, for every write would fail."""
    with Path(os.devnull).open("w") as nowhere:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                if stat.S_ISCHR(os.fstat(stream.fileno()).st_mode):
                    os.dup2(nowhere.fileno(), stream.fileno())

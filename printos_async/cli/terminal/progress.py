"""Progress on standard error: a live line on a terminal, or a state line now and then."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from .output import complain, counted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from printos_async._delivery.pusher import PusherStats

_INTERVAL_S = 0.1
_RATE_SPAN_S = 5.0


@asynccontextmanager
async def live_progress(
    title: str, *, total: float | None, sample: Callable[[], tuple[float, str]], has_bar: bool = True
) -> AsyncGenerator[None, None]:
    """Show progress on a terminal while the block runs.

    Sampled ten times a second: an update for each status would cost more than the status.

    Args:
        title: The text at the start of the line.
        total: The final value of ``sample``; None if unknown.
        sample: Returns the current value and a text for the end of the line.
        has_bar: Whether to show a bar and the elapsed time.
    """
    # Not rich's answer, which FORCE_COLOR changes: the live line of a service would go to its log.
    if not sys.stderr.isatty():
        yield
        return
    columns = (
        TextColumn("{task.description}"),
        *([BarColumn()] if has_bar else []),
        *([TaskProgressColumn()] if total is not None else []),
        TextColumn("{task.fields[text]}", markup=False),
        *([TimeElapsedColumn()] if has_bar else []),
    )
    console = Console(stderr=True, force_terminal=True)
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        task = progress.add_task(title, total=total, text="")

        def show() -> None:
            completed, text = sample()
            progress.update(task, completed=completed, text=text, refresh=True)

        show()
        try:
            async with _calling(show, every_s=_INTERVAL_S):
                yield
        finally:
            show()


@asynccontextmanager
async def state_lines(describe: Callable[[], str], *, every_s: float) -> AsyncGenerator[None, None]:
    """Write a state line now and then while the block runs, where standard error is not a terminal.

    Args:
        describe: Returns the line.
        every_s: Seconds between two lines; 0 for none.
    """
    if not every_s or sys.stderr.isatty():
        yield
        return
    async with _calling(lambda: complain(describe()), every_s=every_s):
        yield


@asynccontextmanager
async def _calling(call: Callable[[], None], *, every_s: float) -> AsyncGenerator[None, None]:
    """Call a function every so many seconds while the block runs."""

    async def keep_calling() -> None:
        while True:
            await asyncio.sleep(every_s)
            call()

    ticker = asyncio.create_task(keep_calling())
    try:
        yield
    finally:
        ticker.cancel()
        await asyncio.wait({ticker})


class PusherLine:
    """One line on a pusher's state, with the rate of the last five seconds, or since the line before if that is longer.

    Args:
        clock: Returns seconds; for tests.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._history: deque[tuple[float, int]] = deque()

    def describe(self, stats: PusherStats, *, retries: int) -> str:
        """Return the line for the current state."""
        now_s = self._clock()
        self._history.append((now_s, stats.sent))
        while len(self._history) > 1 and now_s - self._history[1][0] >= _RATE_SPAN_S:
            self._history.popleft()
        then_s, sent_then = self._history[0]
        rate = (stats.sent - sent_then) / max(now_s - then_s, 0.001)
        parts = [
            f"{stats.sent:,} sent",
            f"{rate:,.0f}/s",
            f"{stats.in_flight} of {stats.limit} in flight",
            f"{stats.pending:,} pending",
            counted(retries, "retry", "retries"),
        ]
        if stats.failed:
            parts.append(f"{stats.failed:,} failed")
        if stats.held_accounts:
            parts.append(f"{counted(stats.held_accounts, 'account')} held")
        if stats.circuit == "open":
            parts.append("server down")
        return " · ".join(parts)

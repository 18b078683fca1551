"""A live line on a terminal's standard error; nothing anywhere else."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from .output import complain

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

_INTERVAL_S = 0.1


@asynccontextmanager
async def live_progress(
    title: str, *, total: float | None, sample: Callable[[], tuple[float, str]], has_bar: bool = True
) -> AsyncGenerator[None, None]:
    """Show progress while the block runs.

    Sampled ten times a second: an update for each status would cost more than the status.

    Args:
        title: What is going on.
        total: What ``sample`` counts up to; None where that is not known.
        sample: Gives how far it is, and a text for the end of the line.
        has_bar: Whether there is an end to come closer to.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    columns = (
        TextColumn("{task.description}"),
        *([BarColumn()] if has_bar else []),
        *([TaskProgressColumn()] if total is not None else []),
        TextColumn("{task.fields[text]}", markup=False),
        *([TimeElapsedColumn()] if has_bar else []),
    )
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        task = progress.add_task(title, total=total, text="")

        def show() -> None:
            completed, text = sample()
            progress.update(task, completed=completed, text=text, refresh=True)

        async def keep_showing() -> None:
            while True:
                show()
                await asyncio.sleep(_INTERVAL_S)

        ticker = asyncio.create_task(keep_showing())
        try:
            yield
        finally:
            ticker.cancel()
            await asyncio.wait({ticker})
            show()


@asynccontextmanager
async def state_lines(describe: Callable[[], str], *, every_s: float) -> AsyncGenerator[None, None]:
    """Say the state now and then while the block runs, where standard error is no terminal.

    Args:
        describe: Gives the line.
        every_s: Seconds between two of them; 0 for none.
    """
    if not every_s or Console(stderr=True).is_terminal:
        yield
        return

    async def keep_saying() -> None:
        while True:
            await asyncio.sleep(every_s)
            complain(describe())

    ticker = asyncio.create_task(keep_saying())
    try:
        yield
    finally:
        ticker.cancel()
        await asyncio.wait({ticker})

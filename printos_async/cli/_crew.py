"""``printos worker --processes``: several processes that work, and one that keeps them running."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from itertools import count
from typing import TYPE_CHECKING

from ._processes import Child, how_it_ended
from .commands.work import WorkState
from .terminal.output import complain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .options.worker import WorkerSettings

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
# One that has lived so long did not die of what the last one died of.
_HEALTHY_S = 60.0


class Crew:
    """Keeps one process running for each of the settings, until told to stop.

    Args:
        settings: What each of them needs to know.
        first_pause_s: Seconds from the first death of a process to its successor; each further one doubles them.

    Attributes:
        restarts: Processes that were started in place of one that had died.
        lost: Processes that died while they finished what they had.
    """

    def __init__(self, settings: Sequence[WorkerSettings], *, first_pause_s: float = _FIRST_PAUSE_S) -> None:
        self._settings = settings
        self._first_pause_s = first_pause_s
        self._done = WorkState.sum_of(())  # of those that have ended
        self._running: dict[Child, WorkState] = {}
        self.restarts = 0
        self.lost = 0

    def state(self) -> WorkState:
        """Give what all of them have done so far."""
        return WorkState.sum_of([self._done, *self._running.values()])

    async def run(self, stop: asyncio.Event) -> None:
        """Keep them running until ``stop`` is set, and wait until they have finished; cancelling ends them at once."""
        try:
            async with asyncio.TaskGroup() as places:
                for settings in self._settings:
                    places.create_task(self._keep_running(settings, stop))
        finally:
            for child in self._running:
                child.kill()
            await asyncio.gather(*(child.wait() for child in self._running))

    async def _keep_running(self, settings: WorkerSettings, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        pause_s = self._first_pause_s
        for number in count():
            started_s = loop.time()
            how = await self._run_one(settings, stop, is_replacement=number > 0)
            if stop.is_set():
                if how is not None:
                    self.lost += 1
                    complain(f"{how} before it had finished; others take over when its lease has ended")
                return
            if loop.time() - started_s > _HEALTHY_S:
                pause_s = self._first_pause_s
            complain(f"{how or 'a worker process ended'}; another one starts in {pause_s:g} s")
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await stop.wait()
                return
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _run_one(
        self, settings: WorkerSettings, stop: asyncio.Event, *, is_replacement: bool
    ) -> str | None:
        """Run one process to its end; says how it ended if that was not as it should."""
        try:
            child = await Child.start("_work_process", settings.to_json())
        except OSError as error:
            return f"a worker process cannot be started: {error.strerror}"
        self._running[child] = WorkState.sum_of(())
        if is_replacement:
            self.restarts += 1
            complain(f"worker process {child.pid} takes its place")
        stopping = asyncio.create_task(_finish(child, stop))
        is_last = False
        try:
            async with aclosing(child.messages()) as messages:
                async for message in messages:
                    self._running[child] = WorkState.from_json(message)
                    is_last = message["isLast"]
            code = await child.wait()
        finally:
            stopping.cancel()
        state = self._running.pop(child)
        self._done = WorkState.sum_of([self._done, state if is_last else state.ended()])
        return None if is_last else f"worker process {child.pid} {how_it_ended(code)}"


async def _finish(child: Child, stop: asyncio.Event) -> None:
    await stop.wait()
    child.finish()

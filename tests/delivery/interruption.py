"""Cancel a coroutine while it is suspended for the n-th time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator


class Interrupted:
    """Awaits a coroutine, and cancels the awaiting task at the given suspensions, counted from 1.

    0 stands for a task that is cancelled before its first step. ``suspensions`` tells how many there were.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], at: set[int]) -> None:
        self._coroutine = coroutine
        self._at = at
        self.suspensions = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._coroutine.__await__()
        task = asyncio.current_task()
        assert task is not None
        error: BaseException | None = None
        while True:
            try:
                waits_for = inner.send(None) if error is None else inner.throw(error)
            except StopIteration as end:
                return end.value
            self.suspensions += 1
            if self.suspensions in self._at:
                asyncio.get_running_loop().call_soon(task.cancel)
            error = None
            try:
                yield waits_for
            except BaseException as thrown:  # noqa: BLE001  # the coroutine is to see whatever comes
                error = thrown


async def interrupt(coroutine: Coroutine[Any, Any, Any], at: set[int]) -> bool:
    """Run a coroutine in a task of its own, cancelled at these suspensions; tell whether it got that far.

    Raises:
        Exception: What came out of it, unless it was the cancellation.
    """
    interrupted = Interrupted(coroutine, at)

    async def step() -> None:
        await interrupted

    task = asyncio.create_task(step())
    if 0 in at:
        task.cancel()
    await asyncio.wait({task})
    if 0 in at and not interrupted.suspensions:
        coroutine.close()  # it never began
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
    return interrupted.suspensions >= max(at)

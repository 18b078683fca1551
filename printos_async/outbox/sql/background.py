"""Operations that survive a cancelled caller."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Answer = TypeVar("Answer")


class Background:
    """Operations that run to their end even if their caller is cancelled, so that no connection is left mid-statement."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Future[Any]] = set()

    async def run(self, operation: Awaitable[Answer], *, on_loss: Callable[[], None] | None = None) -> Answer:
        """Return the result of an operation; cancelling detaches from it.

        Args:
            operation: The operation.
            on_loss: Called at the end of an operation whose result did not reach its caller: it failed, or the caller
                was cancelled.
        """
        task = self.start(operation)
        try:
            return await asyncio.shield(task)
        except BaseException:
            if on_loss is not None:
                if task.done():
                    on_loss()  # before the caller's next call
                else:
                    task.add_done_callback(lambda _: on_loss())
            raise

    def start(self, operation: Awaitable[Answer]) -> asyncio.Future[Answer]:
        """Start an operation for which nobody has to wait but ``settle``."""
        task = asyncio.ensure_future(operation)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def settle(self) -> None:
        """Wait until no operation runs."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Retrieve the error: a caller that was cancelled does not.
            task.exception()

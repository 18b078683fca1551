"""Group commit: concurrent calls share one statement of an outbox, and so one commit."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Item = TypeVar("Item")
Result = TypeVar("Result")


class GroupCommit(Generic[Item, Result]):
    """Writes one group at a time; items that come while it is written share the next one, first come, first served.

    An outbox writes what one call passes to it, so this is the only place where concurrent puts meet. It stands above
    the outbox because a group is written to its end when a caller is cancelled: the engine gets what the outbox has
    accepted, without a task for each put.

    Args:
        write: Writes a group; returns one result for each item, in order.
        max_items: Maximum number of items in one group.
    """

    def __init__(
        self, write: Callable[[list[Item]], Awaitable[list[Result]]], *, max_items: int = 1000
    ) -> None:
        self._write = write
        self._max_items = max_items
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._writer: asyncio.Task[None] | None = None

    def submit(self, item: Item) -> asyncio.Future[Result]:
        """Return a future of the result of an item.

        Cancelling it withdraws the item if its group has not begun; otherwise the group is written to its end.
        """
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._writer is None:
            self._writer = asyncio.create_task(self._work())
        return answer

    async def settle(self) -> None:
        """Wait until nothing is written and nothing waits for it."""
        while self._writer is not None:
            await asyncio.wait([self._writer])

    async def _work(self) -> None:
        try:
            # Tasks that are ready in this turn of the loop may join the group.
            await asyncio.sleep(0)
            while group := self._next_group():
                await self._write_group(group)
        finally:
            self._writer = None
            # Something waits here only if the loop is being torn down.
            while self._waiting:
                self._waiting.popleft()[1].cancel()

    def _next_group(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        group: list[tuple[Item, asyncio.Future[Result]]] = []
        while self._waiting and len(group) < self._max_items:
            item, answer = self._waiting.popleft()
            if not answer.cancelled():
                group.append((item, answer))
        return group

    async def _write_group(self, group: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._write([item for item, _ in group])
        except asyncio.CancelledError:
            for _, answer in group:
                answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - every caller of the group gets it
            for _, answer in group:
                if not answer.done():
                    answer.set_exception(_copy_of(error))
        else:
            for (_, answer), result in zip(group, results, strict=True):
                if not answer.done():
                    answer.set_result(result)


def _copy_of(error: Exception) -> Exception:
    """Return a copy for one caller, because every raise adds to the traceback; the error itself if it has none."""
    try:
        return copy.copy(error)
    except Exception:  # noqa: BLE001  # a class that is made with other arguments than it passes on
        return error

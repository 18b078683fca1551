"""Concurrent calls that share one statement, in the order of coming. Knows nothing of SQL."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import define

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    Answer = TypeVar("Answer")

Item = TypeVar("Item")
Result = TypeVar("Result")


@define(eq=False)
class _Waiting(Generic[Item, Result]):
    key: object
    items: Sequence[Item]
    answer: asyncio.Future[list[Result]]


class Grouping(Generic[Item, Result]):
    """Runs one statement at a time; what comes while it runs goes together into the next one.

    Args:
        run: Runs one statement for items of one key, and gives one result for each, in order.
        max_items: Items in one statement at most.
    """

    def __init__(
        self, run: Callable[[object, list[Item]], Awaitable[list[Result]]], *, max_items: int = 1000
    ) -> None:
        self._run = run
        self._max_items = max_items
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def submit(self, items: Sequence[Item], *, key: object = None) -> list[Result]:
        """Give the results of some items, one for each.

        Cancelling withdraws them where their statement has not begun, and leaves it alone otherwise.

        Args:
            items: More than fit into one statement go into several, one after the other.
            key: Only calls with an equal key share a statement.
        """
        answers = []
        for start in range(0, len(items), self._max_items):
            answer: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
            answers.append(answer)
            self._waiting.append(_Waiting(key, items[start : start + self._max_items], answer))
        if self._runner is None and answers:
            self._runner = asyncio.create_task(self._work())
        if len(answers) == 1:
            return await answers[0]
        return [result for part in await asyncio.gather(*answers) for result in part]

    async def settle(self) -> None:
        """Wait until nothing waits or runs."""
        while self._runner is not None:
            await asyncio.wait([self._runner])

    async def _work(self) -> None:
        try:
            # What is ready to run in this turn of the loop may come too.
            await asyncio.sleep(0)
            while group := self._next_group():
                await self._run_group(group)
        finally:
            self._runner = None
            # Reached with something waiting only where the loop is being torn down.
            while self._waiting:
                self._waiting.popleft().answer.cancel()

    def _next_group(self) -> list[_Waiting[Item, Result]]:
        group: list[_Waiting[Item, Result]] = []
        count = 0
        while self._waiting:
            first = self._waiting[0]
            if first.answer.cancelled():
                self._waiting.popleft()
                continue
            if group and (first.key != group[0].key or count + len(first.items) > self._max_items):
                break
            count += len(first.items)
            group.append(self._waiting.popleft())
        return group

    async def _run_group(self, group: list[_Waiting[Item, Result]]) -> None:
        items = [item for waiting in group for item in waiting.items]
        try:
            results = await self._run(group[0].key, items)
        except asyncio.CancelledError:
            for waiting in group:
                waiting.answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - every caller of the group gets it
            for waiting in group:
                if not waiting.answer.done():
                    # One each: a traceback grows with everyone who raises it.
                    waiting.answer.set_exception(copy.copy(error))
            return
        start = 0
        for waiting in group:
            end = start + len(waiting.items)
            if not waiting.answer.done():
                waiting.answer.set_result(results[start:end])
            start = end


class Background:
    """Operations that run to their end when their caller is cancelled: a connection is never left half-way."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()

    async def run(self, operation: Awaitable[Answer], *, on_loss: Callable[[], None] | None = None) -> Answer:
        """Give what the operation gives; cancelling detaches from it.

        Args:
            operation: What is to be done.
            on_loss: Called when the operation has ended without its caller getting what it gives.
        """
        task = asyncio.ensure_future(operation)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        try:
            return await asyncio.shield(task)
        except BaseException:
            if on_loss is not None:
                task.add_done_callback(lambda _: on_loss())
            raise

    async def settle(self) -> None:
        """Wait until nothing runs."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _forget(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Whoever asked may have been cancelled: then nobody else looks at the error.
            task.exception()

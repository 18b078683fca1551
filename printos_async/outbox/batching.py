"""Batching of concurrent calls into shared statements, and operations that survive a cancelled caller."""

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
    """Runs one statement at a time; calls that are made while it runs share the next one, first come, first served.

    Args:
        run: Runs one statement for items of one key; returns one result for each, in order.
        max_items: Maximum number of items in one statement.
    """

    def __init__(
        self, run: Callable[[object, list[Item]], Awaitable[list[Result]]], *, max_items: int = 1000
    ) -> None:
        self._run = run
        self._max_items = max_items
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def submit(self, items: Sequence[Item], *, key: object = None) -> list[Result]:
        """Return the results of some items, one for each.

        Cancelling withdraws them if their statement has not begun; otherwise it runs to its end.

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
        """Wait until no statement runs and no call waits for one."""
        while self._runner is not None:
            await asyncio.wait([self._runner])

    async def _work(self) -> None:
        try:
            # Tasks that are ready in this turn of the loop may join the group.
            await asyncio.sleep(0)
            while group := self._next_group():
                await self._run_group(group)
        finally:
            self._runner = None
            # Something waits here only if the loop is being torn down.
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
                    # A copy for each: every raise adds to the traceback.
                    waiting.answer.set_exception(copy.copy(error))
            return
        start = 0
        for waiting in group:
            end = start + len(waiting.items)
            if not waiting.answer.done():
                waiting.answer.set_result(results[start:end])
            start = end


class Background:
    """Operations that run to their end even if their caller is cancelled, so that no connection is left mid-statement."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()

    async def run(self, operation: Awaitable[Answer], *, on_loss: Callable[[], None] | None = None) -> Answer:
        """Return the result of an operation; cancelling detaches from it.

        Args:
            operation: The operation.
            on_loss: Called at the end of an operation whose result did not reach its caller.
        """
        task = asyncio.ensure_future(operation)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        try:
            return await asyncio.shield(task)
        except BaseException:
            if on_loss is not None:
                task.add_done_callback(lambda _: on_loss())
            raise

    async def settle(self) -> None:
        """Wait until no operation runs."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Retrieve the error: a caller that was cancelled does not.
            task.exception()

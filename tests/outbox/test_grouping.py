"""Calls that share statements: in the order of coming, each with its own result, error and cancellation."""

from __future__ import annotations

import asyncio

import pytest

from printos_async import OutboxError
from printos_async.outbox.batching import Background, Grouping


class Statements:
    """Stands for the database: notes what it is asked for, and answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, list[str]]] = []
        self.gate = asyncio.Event()
        self.begun = asyncio.Event()
        self.error: Exception | None = None

    async def run(self, key: object, items: list[str]) -> list[str]:
        self.asked.append((key, items))
        self.begun.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return [item.upper() for item in items]


@pytest.fixture
async def statements() -> Statements:
    return Statements()


async def started(
    grouping: Grouping[str, str], statements: Statements, *calls: tuple[list[str], object]
) -> list[asyncio.Task[list[str]]]:
    """Start a first statement, and make the calls while it runs."""
    tasks = [asyncio.create_task(grouping.submit(["first"]))]
    await statements.begun.wait()
    tasks += [asyncio.create_task(grouping.submit(items, key=key)) for items, key in calls]
    await asyncio.sleep(0)
    return tasks


async def test_what_comes_while_a_statement_runs_shares_the_next(statements: Statements) -> None:
    grouping: Grouping[str, str] = Grouping(statements.run)
    tasks = await started(grouping, statements, (["a"], None), (["b", "c"], None), (["d"], None))
    statements.gate.set()
    assert await asyncio.gather(*tasks) == [["FIRST"], ["A"], ["B", "C"], ["D"]]
    assert statements.asked == [(None, ["first"]), (None, ["a", "b", "c", "d"])]


async def test_what_comes_in_one_turn_of_the_loop_shares_a_statement(statements: Statements) -> None:
    statements.gate.set()
    grouping: Grouping[str, str] = Grouping(statements.run)
    assert await asyncio.gather(*(grouping.submit([item]) for item in "ab")) == [["A"], ["B"]]
    assert statements.asked == [(None, ["a", "b"])]


async def test_a_statement_has_one_key_and_the_order_of_coming_stays(statements: Statements) -> None:
    grouping: Grouping[str, str] = Grouping(statements.run)
    tasks = await started(grouping, statements, (["a"], 1), (["b"], 1), (["c"], 2), (["d"], 1))
    statements.gate.set()
    await asyncio.gather(*tasks)
    assert statements.asked[1:] == [(1, ["a", "b"]), (2, ["c"]), (1, ["d"])]


async def test_a_statement_takes_no_more_than_its_limit(statements: Statements) -> None:
    grouping: Grouping[str, str] = Grouping(statements.run, max_items=3)
    tasks = await started(grouping, statements, (["a", "b"], None), (list("cdefg"), None), (["h"], None))
    statements.gate.set()
    assert await asyncio.gather(*tasks) == [["FIRST"], ["A", "B"], list("CDEFG"), ["H"]]
    assert [items for _, items in statements.asked] == [
        ["first"],
        ["a", "b"],
        ["c", "d", "e"],
        ["f", "g", "h"],
    ]


async def test_nothing_is_asked_for_nothing(statements: Statements) -> None:
    grouping: Grouping[str, str] = Grouping(statements.run)
    assert await grouping.submit([]) == []
    assert statements.asked == []
    await grouping.settle()


async def test_an_error_reaches_every_caller_of_the_group_and_no_other(statements: Statements) -> None:
    grouping: Grouping[str, str] = Grouping(statements.run, max_items=2)
    statements.gate.set()
    statements.error = OutboxError("full")
    first = await asyncio.gather(grouping.submit(["a"]), grouping.submit(["b"]), return_exceptions=True)
    assert [str(error) for error in first] == ["full", "full"]
    assert first[0] is not first[1]
    statements.error = None
    assert await grouping.submit(["c"]) == ["C"]


async def test_a_call_that_is_cancelled_before_its_statement_is_withdrawn(statements: Statements) -> None:
    grouping: Grouping[str, str] = Grouping(statements.run)
    tasks = await started(grouping, statements, (["a"], None), (["b"], None))
    tasks[1].cancel()
    await asyncio.wait([tasks[1]])
    statements.gate.set()
    assert await tasks[2] == ["B"]
    assert statements.asked[1:] == [(None, ["b"])]


async def test_a_call_that_is_cancelled_during_its_statement_disturbs_no_other(
    statements: Statements,
) -> None:
    grouping: Grouping[str, str] = Grouping(statements.run)
    first, second = (asyncio.create_task(grouping.submit([item])) for item in "ab")
    await statements.begun.wait()
    first.cancel()
    await asyncio.wait([first])
    statements.gate.set()
    assert await second == ["B"]
    assert first.cancelled()
    assert statements.asked == [(None, ["a", "b"])]


async def test_settling_waits_for_all(statements: Statements) -> None:
    grouping: Grouping[str, str] = Grouping(statements.run)
    tasks = await started(grouping, statements, (["a"], None))
    settling = asyncio.create_task(grouping.settle())
    await asyncio.sleep(0)
    assert not settling.done()
    statements.gate.set()
    await settling
    assert all(task.done() for task in tasks) or [await task for task in tasks]


async def test_an_operation_goes_on_when_its_caller_is_cancelled(statements: Statements) -> None:
    background = Background()
    lost: list[bool] = []
    caller = asyncio.create_task(
        background.run(statements.run(None, ["a"]), on_loss=lambda: lost.append(True))
    )
    await statements.begun.wait()
    caller.cancel()
    await asyncio.wait([caller])
    assert lost == []
    settling = asyncio.create_task(background.settle())
    statements.gate.set()
    await settling
    assert lost == [True]


async def test_the_error_of_an_operation_without_a_caller_is_not_shouted(statements: Statements) -> None:
    background = Background()
    caller = asyncio.create_task(background.run(statements.run(None, ["a"])))
    await statements.begun.wait()
    caller.cancel()
    statements.error = OutboxError("full")
    statements.gate.set()
    await background.settle()
    assert caller.cancelled()

"""Puts that share a commit: in the order of coming, each with its own result, error and cancellation."""

from __future__ import annotations

import asyncio

import pytest

from printos_async import OutboxError
from printos_async._delivery.outbox.group_commit import GroupCommit


class Statements:
    """Stands for the database: notes what it is asked for, and answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.gate = asyncio.Event()
        self.begun = asyncio.Event()
        self.error: Exception | None = None

    async def run(self, items: list[str]) -> list[str]:
        self.asked.append(items)
        self.begun.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return [item.upper() for item in items]


@pytest.fixture
async def statements() -> Statements:
    return Statements()


async def started(
    commits: GroupCommit[str, str], statements: Statements, items: str
) -> list[asyncio.Future[str]]:
    """Start a first statement, and submit the letters while it runs."""
    first = commits.submit("first")
    await statements.begun.wait()
    return [first, *(commits.submit(item) for item in items)]


async def test_what_comes_while_a_statement_runs_shares_the_next(statements: Statements) -> None:
    commits: GroupCommit[str, str] = GroupCommit(statements.run)
    results = await started(commits, statements, "abcd")
    statements.gate.set()
    assert await asyncio.gather(*results) == ["FIRST", "A", "B", "C", "D"]
    assert statements.asked == [["first"], ["a", "b", "c", "d"]]


async def test_what_comes_in_one_turn_of_the_loop_shares_a_statement(statements: Statements) -> None:
    statements.gate.set()
    commits: GroupCommit[str, str] = GroupCommit(statements.run)
    assert await asyncio.gather(*(commits.submit(item) for item in "ab")) == ["A", "B"]
    assert statements.asked == [["a", "b"]]


async def test_a_statement_takes_no_more_than_its_limit(statements: Statements) -> None:
    commits: GroupCommit[str, str] = GroupCommit(statements.run, max_items=3)
    results = await started(commits, statements, "abcdefgh")
    statements.gate.set()
    assert await asyncio.gather(*results) == ["FIRST", *"ABCDEFGH"]
    assert statements.asked == [["first"], ["a", "b", "c"], ["d", "e", "f"], ["g", "h"]]


async def test_settling_without_any_call_returns_at_once(statements: Statements) -> None:
    commits: GroupCommit[str, str] = GroupCommit(statements.run)
    await commits.settle()
    assert statements.asked == []


async def test_an_error_reaches_every_caller_of_the_group_and_no_other(statements: Statements) -> None:
    commits: GroupCommit[str, str] = GroupCommit(statements.run, max_items=2)
    statements.gate.set()
    statements.error = OutboxError("full")
    first = await asyncio.gather(commits.submit("a"), commits.submit("b"), return_exceptions=True)
    assert [str(error) for error in first] == ["full", "full"]
    assert first[0] is not first[1]
    statements.error = None
    assert await commits.submit("c") == "C"


class UnkindError(Exception):
    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(f"{message} {code}")


async def test_an_error_that_cannot_be_copied_reaches_every_caller(statements: Statements) -> None:
    commits: GroupCommit[str, str] = GroupCommit(statements.run)
    statements.gate.set()
    statements.error = UnkindError("full", code=1)
    async with asyncio.timeout(5.0):
        errors = await asyncio.gather(commits.submit("a"), commits.submit("b"), return_exceptions=True)
    assert [str(error) for error in errors] == ["full 1", "full 1"]


async def test_a_call_that_is_cancelled_before_its_statement_is_withdrawn(statements: Statements) -> None:
    commits: GroupCommit[str, str] = GroupCommit(statements.run)
    results = await started(commits, statements, "ab")
    results[1].cancel()
    statements.gate.set()
    assert await results[2] == "B"
    assert statements.asked[1:] == [["b"]]


async def test_a_call_that_is_cancelled_during_its_statement_disturbs_no_other(
    statements: Statements,
) -> None:
    commits: GroupCommit[str, str] = GroupCommit(statements.run)
    first, second = (commits.submit(item) for item in "ab")
    await statements.begun.wait()
    first.cancel()
    await asyncio.wait([first])
    statements.gate.set()
    assert await second == "B"
    assert first.cancelled()
    assert statements.asked == [["a", "b"]]


async def test_settling_waits_for_all(statements: Statements) -> None:
    commits: GroupCommit[str, str] = GroupCommit(statements.run)
    results = await started(commits, statements, "a")
    settling = asyncio.create_task(commits.settle())
    await asyncio.sleep(0)
    assert not settling.done()
    statements.gate.set()
    await settling
    assert statements.asked == [["first"], ["a"]]
    assert await asyncio.gather(*results) == ["FIRST", "A"]

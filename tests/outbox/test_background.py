"""Operations on a database that outlive their callers."""

from __future__ import annotations

import asyncio

import pytest

from printos_async import OutboxError
from printos_async.outbox.sql.background import Background


class Operation:
    """Stands for a statement: begins, and ends when it is told to."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun = asyncio.Event()
        self.error: Exception | None = None

    async def run(self) -> None:
        self.begun.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error


async def test_an_operation_goes_on_when_its_caller_is_cancelled() -> None:
    background, operation = Background(), Operation()
    lost: list[bool] = []
    caller = asyncio.create_task(background.run(operation.run(), on_loss=lambda: lost.append(True)))
    await operation.begun.wait()
    caller.cancel()
    await asyncio.wait([caller])
    assert lost == []
    settling = asyncio.create_task(background.settle())
    operation.gate.set()
    await settling
    assert lost == [True]


async def test_the_loss_of_a_failed_operation_is_known_before_its_error() -> None:
    background, operation = Background(), Operation()
    lost: list[bool] = []
    operation.error = OutboxError("full")
    operation.gate.set()
    with pytest.raises(OutboxError):
        await background.run(operation.run(), on_loss=lambda: lost.append(True))
    assert lost == [True]


async def test_the_error_of_an_operation_without_a_caller_is_not_shouted() -> None:
    background, operation = Background(), Operation()
    caller = asyncio.create_task(background.run(operation.run()))
    await operation.begun.wait()
    caller.cancel()
    operation.error = OutboxError("full")
    operation.gate.set()
    await background.settle()
    assert caller.cancelled()

"""An event loop whose clock jumps to the next timer as soon as nothing else is left to do."""

from __future__ import annotations

import asyncio
import math
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits: where a real one would, it moves the clock on instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if timeout is None and not events:
            raise AssertionError("nothing is scheduled: the program would wait for ever")
        # A little in every round, like a real clock: asyncio asks for more than equality.
        self.now_s = math.nextafter(self.now_s + (0.0 if events else max(timeout or 0.0, 0.0)), math.inf)
        return events


class FakeClockLoop(asyncio.SelectorEventLoop):
    """For programs without sockets: hours pass in milliseconds, and in the order in which they would."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        self.steps = 0  # callbacks so far, and steps of tasks
        super().__init__(self._jumping)
        # No timer comes a nanosecond early: on a clock that hardly moves, asking again would take for ever.
        self._clock_resolution = 0.0

    def call_soon(self, *args: Any, **settings: Any) -> asyncio.Handle:  # type: ignore[override]
        self.steps += 1
        return super().call_soon(*args, **settings)

    def time(self) -> float:
        return self._jumping.now_s

    async def settle(self) -> None:
        """Let everything happen that needs no time."""
        ready: Any = self._ready  # type: ignore[attr-defined]
        for _ in range(10_000):
            if not ready:
                return
            await asyncio.sleep(0)
        raise AssertionError("it never settles: something is busy without waiting for anything")


def run(program: Coroutine[Any, Any, T]) -> T:
    """Run a program on a fake clock; no task may be left at its end."""

    failures: list[dict[str, Any]] = []

    async def main() -> T:
        fake_loop().set_exception_handler(lambda _, context: failures.append(context))
        result = await program
        await fake_loop().settle()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"left behind: {left}"
        assert not failures, f"failed in a callback: {failures}"
        return result

    with asyncio.Runner(loop_factory=FakeClockLoop) as runner:
        return runner.run(main())


def fake_loop() -> FakeClockLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, FakeClockLoop)
    return loop

"""Processes of our own: settings go to their standard input, what they did comes from their standard output."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, cast

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from types import TracebackType

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# More than a child says in one line, which is some hundred outcomes.
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024


class Child:
    """A process that runs one module of this package.

    It gets its settings as the first line on its standard input: unlike its arguments and its environment, no
    other process can read them there. The end of its standard input asks it to finish; so it also ends when this
    process dies. Signals of a terminal or a supervisor, which may reach it as well, it ignores.

    Made by ``start``.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stdin = cast("asyncio.StreamWriter", process.stdin)
        self._stdout = cast("asyncio.StreamReader", process.stdout)

    @classmethod
    async def start(cls, module: str, settings: Mapping[str, Any]) -> Self:
        """Start a process.

        Args:
            module: The module that it runs, by its name in this package.
            settings: What it needs to know; may hold secrets.

        Raises:
            OSError: The system has no room for it.
        """
        with _signals_held:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # never a module of the working directory
                "-m",
                f"{__package__}.{module}",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_MAX_MESSAGE_BYTES,
            )
        child = cls(process)
        child.write(json.dumps(dict(settings)).encode() + b"\n")
        return child

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def write(self, data: bytes) -> None:
        """Hand bytes over; what it cannot take yet is kept. To one that has died they are lost."""
        self._stdin.write(data)

    async def room(self) -> None:
        """Wait until it has taken most of what was written; returns at once if it has died."""
        with suppress(ConnectionError):
            await self._stdin.drain()

    def finish(self) -> None:
        """Ask it to finish, once it has taken what was written."""
        self._stdin.close()

    def kill(self) -> None:
        """End it at once; one that has ended is left alone."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def messages(self) -> AsyncGenerator[dict[str, Any], None]:
        """Give what it says, until it ends; half a line of one that was killed is left out."""
        async for line in self._stdout:
            if line.endswith(b"\n"):
                yield json.loads(line)

    async def wait(self) -> int:
        """Wait for its end; gives its exit code, or the negative number of the signal that ended it."""
        code = await self._process.wait()
        self._stdin.close()
        with suppress(ConnectionError):
            await self._stdin.wait_closed()
        return code


def how_it_ended(code: int) -> str:
    """Say how a process ended that should not have."""
    if code < 0:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


class _HeldSignals:
    """While a process is being started, whatever asks this one to stop is held back.

    A child inherits what is held back, and so no signal ends it before it has said which ones it ignores. Several
    may be started at the same time: the last one lets go.
    """

    def __init__(self) -> None:
        self._starting = 0

    def __enter__(self) -> None:
        if not self._starting and hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        self._starting += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._starting -= 1
        if not self._starting and hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)


_signals_held = _HeldSignals()

"""What a process says to the one that has started it, and hears from it; the other side is ``Child``."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from printos_async._errors import PrintOSError

from .input.source import STANDARD_INPUT, LineReader, Source
from .terminal.output import EXIT_FAILED, EXIT_OK, CommandError, complain

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

# ASCII JSON may be several times as long as the line of UTF-8 that it was made from.
_MAX_LINE_BYTES = 16 * 1024 * 1024


async def lines() -> AsyncGenerator[bytes, None]:
    """Give what the parent says, line by line, until it wants an end or has ended itself."""
    reader = LineReader(Source(STANDARD_INPUT), stop=asyncio.Event(), max_line_bytes=_MAX_LINE_BYTES)
    async with aclosing(reader.batches()) as batches:
        async for batch in batches:
            for line in batch:
                yield line.data


def tell(message: Mapping[str, Any]) -> None:
    """Tell the parent something.

    Raises:
        BrokenPipeError: It has ended.
    """
    sys.stdout.buffer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")
    sys.stdout.buffer.flush()


def run(work: Callable[[], Awaitable[None]]) -> int:
    """Run ``work`` in a process that ends when its parent says so; gives the exit code."""
    # A terminal or a supervisor may send them to every process; what to do then is the parent's to say.
    stop_signals = (signal.SIGINT, signal.SIGTERM)
    for number in stop_signals:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):  # it has held them back for as long as this took
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stop_signals)
    try:
        asyncio.run(_awaited(work))
    except BrokenPipeError:
        # Nobody is left to tell, and the interpreter would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except (CommandError, PrintOSError, OSError) as error:
        complain(error)
        return EXIT_FAILED
    return EXIT_OK


async def _awaited(work: Callable[[], Awaitable[None]]) -> None:
    await work()

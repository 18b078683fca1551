"""Reads without holding up the event loop."""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class ChunkThread:
    """Reads in a thread: a read of a pipe takes as long as its writer likes, and cannot be broken off.

    A daemon, for the process must end although its writer says nothing more. It reads only when asked to.

    Args:
        read: Gives the next bytes; called in the thread.
        stop: Ends the waiting for them.
    """

    def __init__(self, read: Callable[[], bytes], *, stop: asyncio.Event) -> None:
        self._read = read
        self._stop = stop
        self._requests: queue.SimpleQueue[asyncio.Future[bytes] | None] = queue.SimpleQueue()
        self._is_started = False

    @property
    def is_stopped(self) -> bool:
        """Whether reading was asked to stop."""
        return self._stop.is_set()

    async def read(self) -> bytes:
        """Give the next bytes; none at the end of the file, or once asked to stop.

        Raises:
            OSError: Reading failed.
        """
        if self._stop.is_set():
            return b""
        loop = asyncio.get_running_loop()
        if not self._is_started:
            self._is_started = True
            threading.Thread(target=self._run, args=(loop,), name="printos-read", daemon=True).start()
        read = loop.create_future()
        self._requests.put(read)
        stopped = loop.create_task(self._stop.wait())
        try:
            await asyncio.wait({read, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return read.result() if read.done() else b""
        finally:
            stopped.cancel()

    def close(self) -> None:
        """Let the thread end; a read that is under way ends by itself."""
        self._requests.put(None)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while (read := self._requests.get()) is not None:
            result: bytes | OSError
            try:
                result = self._read()
            except OSError as error:
                result = error
            try:
                loop.call_soon_threadsafe(_settle, read, result)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return


def _settle(read: asyncio.Future[bytes], result: bytes | OSError) -> None:
    if read.done():
        return
    if isinstance(result, OSError):
        read.set_exception(result)
    else:
        read.set_result(result)

"""Reading in a thread, without blocking the event loop."""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class ChunkThread:
    """Reads in a daemon thread, one chunk for each request.

    A read of a pipe can block for any time and cannot be cancelled; a daemon thread does not keep the process alive.

    Args:
        read: Returns the next bytes; called in the thread.
        stop: Ends waiting for them.
    """

    def __init__(self, read: Callable[[], bytes], *, stop: asyncio.Event) -> None:
        self._read = read
        self._stop = stop
        self._requests: queue.SimpleQueue[asyncio.Future[bytes] | None] = queue.SimpleQueue()
        self._is_started = False

    @property
    def is_stopped(self) -> bool:
        """Whether the stop event is set."""
        return self._stop.is_set()

    async def read(self) -> bytes:
        """Return the next bytes; none at the end of the file, or once ``stop`` is set.

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
        """End the thread after the read that is under way."""
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

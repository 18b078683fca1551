"""``printos push --processes``: one process reads, several send."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING
from zlib import crc32

from ._outcomes import take
from ._processes import Child, how_it_ended
from .report.counts import MAX_FAILURES_SHOWN

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from .options.client import ClientSettings
    from .report.counts import Tally

# Handed over at once. A slow writer's lines go at the end of what one read brought.
_BUFFER_BYTES = 32 * 1024


class Senders:
    """Sends statuses in processes of its own; those of one device all in the same one, in order.

    Args:
        settings: What the client of each process is made from.
        tally: Where the outcomes are counted.
        on_death: Called when a process has ended that should not have, with a text that says so.
    """

    def __init__(
        self, settings: Sequence[ClientSettings], tally: Tally, *, on_death: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._tally = tally
        self._on_death = on_death

    async def run(self, statuses: AsyncGenerator[tuple[str, bytes], None]) -> None:
        """Send until the statuses end, and wait for every outcome; cancelling ends the processes at once.

        Args:
            statuses: Device and status as a line of JSON without its end, which was checked.

        Raises:
            OSError: The system has no room for a process. Nothing was sent.
        """
        senders: list[_Sender] = []
        try:
            for settings in self._settings:
                child = await Child.start("_sender", settings.to_json())
                senders.append(_Sender(child, self._tally))
            deaths = [
                asyncio.create_task(self._watch(sender, number)) for number, sender in enumerate(senders)
            ]
            async with aclosing(statuses):
                async for device_id, line in statuses:
                    sender = senders[self._part_of(device_id)]
                    if sender.take(line):
                        await sender.room()
            for sender in senders:
                sender.finish()
            await asyncio.gather(*deaths)
        finally:
            for sender in senders:
                sender.kill()
            await asyncio.gather(*(sender.listening for sender in senders))

    def _part_of(self, device_id: str) -> int:
        # Not hash(), which is another one in each process and each run.
        return crc32(device_id.encode()) % len(self._settings)

    async def _watch(self, sender: _Sender, number: int) -> None:
        problem = await sender.listening
        if problem is None:
            return
        lost = [
            device_id for device_id in self._tally.open_device_ids() if self._part_of(device_id) == number
        ]
        names = ", ".join(lost[:MAX_FAILURES_SHOWN])
        more = f" and {len(lost) - MAX_FAILURES_SHOWN:,} more" if len(lost) > MAX_FAILURES_SHOWN else ""
        self._on_death(
            f"{problem}; the statuses of {len(lost):,} devices have no outcome{': ' * bool(lost)}{names}{more}"
        )


class _Sender:
    """What this process knows of another one that sends."""

    def __init__(self, child: Child, tally: Tally) -> None:
        self.child = child
        self._tally = tally
        self._loop = asyncio.get_running_loop()
        self._lines: list[bytes] = []
        self._size_bytes = 0
        self._is_written = self._is_finished = self._is_killed = False
        self.listening = self._loop.create_task(self._listen())

    def take(self, line: bytes) -> bool:
        """Take a status; True where some were handed over since it last had room."""
        if not self._lines:
            self._loop.call_soon(self._flush)
        self._lines.append(line)
        self._size_bytes += len(line)
        if self._size_bytes >= _BUFFER_BYTES:
            self._flush()
        return self._is_written

    async def room(self) -> None:
        """Wait until the process has taken most of what was handed over, so that reading is no faster."""
        self._is_written = False
        await self.child.room()

    def finish(self) -> None:
        """Hand over the rest; the process ends when it has sent it."""
        self._flush()
        self._is_finished = True
        self.child.finish()

    def kill(self) -> None:
        """End the process; one that has ended is left alone."""
        self._is_killed = True
        self.child.kill()

    def _flush(self) -> None:
        if self._lines and not self._is_finished:
            self.child.write(b"\n".join([*self._lines, b""]))
            self._is_written = True
        self._lines.clear()
        self._size_bytes = 0

    async def _listen(self) -> str | None:
        """Count what the process tells until it ends; gives what is wrong with its end, if something is."""
        is_last = False
        async with aclosing(self.child.messages()) as messages:
            async for message in messages:
                is_last = take(message, self._tally)
        code = await self.child.wait()
        if is_last or self._is_killed:
            return None
        return f"process {self.child.pid}, which sent a part of the statuses, {how_it_ended(code)}"

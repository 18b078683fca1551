"""Workers that a test starts, listens to, stops and kills, each by its own number; and what the sandbox says of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from attrs import asdict, evolve

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterable, Mapping

    from printos_async.sandbox import Sandbox

    from .worker import Settings

WORKER = Path(__file__).with_name("worker.py")
ROOT = Path(__file__).parents[2]
LONG = bool(os.environ.get("PRINTOS_LONG_TESTS"))
long_only = pytest.mark.skipif(not LONG, reason="takes long: nox -s crash, or PRINTOS_LONG_TESTS=1")
LISTEN_TIMEOUT_S = 60.0


class Worker:
    """One process of ``worker.py``."""

    def __init__(self, process: asyncio.subprocess.Process, said: Fleet) -> None:
        self.process = process
        self._fleet = said
        self._heard = asyncio.Condition()
        self.lines: Counter[str] = Counter()
        self.stats: dict[str, Any] = {}
        self.listening = asyncio.create_task(self._listen())

    async def says(self, word: str, times: int = 1) -> None:
        """Wait until it has said something so often.

        Raises:
            EOFError: It has ended before.
        """
        async with asyncio.timeout(LISTEN_TIMEOUT_S), self._heard:
            await self._heard.wait_for(lambda: self.lines[word] >= times or self.listening.done())
        if self.lines[word] < times:
            raise EOFError(f"the worker ended with {await self.process.wait()} before it said {word!r}")

    async def kill(self) -> None:
        """End it with SIGKILL; what it had said before is heard."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.listening
        await self.process.wait()

    async def finish(self) -> dict[str, Any]:
        """End its input and wait for its end; give its account."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self.says("done")
        await self.listening
        assert await self.process.wait() == 0
        return self.stats

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def _listen(self) -> None:
        assert self.process.stdout is not None
        try:
            while (line := await self.process.stdout.readline()).endswith(b"\n"):  # else: cut off by its end
                await self._hear(line.decode())
        finally:
            async with self._heard:
                self._heard.notify_all()

    async def _hear(self, line: str) -> None:
        word, _, rest = line.strip().partition(" ")
        if word == "done":
            self.stats = json.loads(rest)
        elif word in {"accepted", "sent"}:
            device_id, pages = rest.split()
            self._fleet.hear(word, device_id, int(pages))
        async with self._heard:
            self.lines[word] += 1
            self._heard.notify_all()


class Fleet:
    """The workers of one test; all are gone when it is left.

    Attributes:
        accepted: The newest page count that was accepted for each device.
        sent: What was told to have been sent, as device and page count.
    """

    def __init__(self, sandbox: Sandbox, settings: Settings) -> None:
        self.sandbox = sandbox
        self.settings = settings
        self.accepted: dict[str, int] = {}
        self.sent: set[tuple[str, int]] = set()
        self.generation = 0
        self.workers: list[Worker] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self.workers:
            await worker.kill()

    def hear(self, word: str, device_id: str, pages: int) -> None:
        if word == "accepted":
            self.accepted[device_id] = max(pages, self.accepted.get(device_id, -1))
        else:
            self.sent.add((device_id, pages))

    async def start(self, command: Iterable[str] = (), **changes: Any) -> Worker:
        """Start a worker, whose page counts are above those of all before; ``command`` runs it."""
        self.generation += 1
        settings = evolve(self.settings, first=self.generation * 100_000, **changes)
        process = await asyncio.create_subprocess_exec(
            *(*command, sys.executable, str(WORKER), json.dumps(asdict(settings))),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        )
        worker = Worker(process, self)
        self.workers.append(worker)
        return worker

    async def everything_arrives(
        self, accepted: Mapping[str, int] | None = None, *, timeout_s: float = 60.0
    ) -> None:
        """Wait until every device has the newest status that was accepted, or a newer one."""
        missing = dict(self.accepted if accepted is None else accepted)

        def arrived() -> bool:
            for device_id in [
                name for name, pages in missing.items() if pages_of(self.sandbox, name) >= pages
            ]:
                del missing[device_id]
            return not missing

        try:
            await self.sandbox.wait_for(arrived, timeout_s=timeout_s)
        except TimeoutError:
            raise AssertionError(f"accepted, and never sent: {missing}") from None

    def verify(self, *, strict: bool = True) -> None:
        """Hold the sandbox's record against what was accepted and told."""
        behind = {
            name: (pages, pages_of(self.sandbox, name))
            for name, pages in self.accepted.items()
            if pages_of(self.sandbox, name) < pages
        }
        assert not behind, "accepted, and not the last that the device got"
        applied = {(write.device_id, write.status["metrics"]["pagesTotal"]) for write in self.sandbox.applied}
        never_applied = self.sent - applied
        assert not never_applied, f"told as sent, and never applied: {sorted(never_applied)}"
        assert set(self.sandbox.max_in_flight_by_device.values()) <= {1}
        if strict:
            assert stale_overwrites(self.sandbox) == []


def pages_of(sandbox: Sandbox, device_id: str) -> int:
    """Return the page count of a device, -1 without one."""
    found = sandbox.devices[device_id].status
    return -1 if found is None else int(found["metrics"]["pagesTotal"])


def stale_overwrites(sandbox: Sandbox) -> list[str]:
    """Return the writes by which an older status replaced a newer one."""
    newest: dict[str, int] = {}
    stale = []
    for write in sandbox.applied:
        pages = write.status["metrics"]["pagesTotal"]
        if pages < newest.get(write.device_id, -1):
            stale.append(f"{write.device_id}: {pages} over {newest[write.device_id]}, late={write.late}")
        newest[write.device_id] = pages
    return stale

"""Background work on a shared outbox: claims statuses, follows those left to others, and writes completions."""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from printos_async._errors import OutboxError

if TYPE_CHECKING:
    from printos_async._delivery.engine import Engine
    from printos_async.outbox import Claim, Outbox

    from .dispatch import Dispatcher
    from .intake import Intake
    from .lease import Lease
    from .ownership import Ownership

_log = logging.getLogger("printos_async.outbox")

# Interval at which a worker looks for statuses that others have put.
POLL_S = 0.5
# The same while devices of held accounts may take up the room, and others wait for it.
_HELD_POLL_S = 0.05
_RETRY_S = 0.2
_MAX_CLAIMS = 500
_MAX_LOOKED_UP = 1_000


class Worker:
    """Owns devices of the outbox while the engine has work pending for them.

    Attributes:
        is_draining: Whether statuses of others are left to them. They are claimed only beside what was put here and
            may be sent, because an outbox is claimed from in its order.
        error: Why the last look into the outbox failed; None if it did not.
        answered_s: Time of the last answer of the outbox, by the event loop's clock.
    """

    def __init__(
        self,
        outbox: Outbox,
        engine: Engine,
        lease: Lease,
        ownership: Ownership,
        dispatcher: Dispatcher,
        *,
        intake: Intake,
        max_devices: int,
        timeout_s: float,
    ) -> None:
        self._outbox = outbox
        self._engine = engine
        self._lease = lease
        self._ownership = ownership
        self._dispatcher = dispatcher
        self._intake = intake
        self._max_devices = max_devices
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._tasks: list[asyncio.Task[None]] = []
        self.is_draining = False
        self.error: OutboxError | None = None
        self.answered_s = self._loop.time()

    def start(self) -> None:
        """Start the background tasks."""
        for work in (self._lease.keep(), self._claim(), self._write_completions()):
            task = self._loop.create_task(work)
            task.add_done_callback(self._ended)
            self._tasks.append(task)

    async def stop(self) -> None:
        """Cancel the background tasks, and wait until they have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _claim(self) -> None:
        occupancy = self._engine.occupancy
        enough = self._max_devices - max(1, min(_MAX_CLAIMS, self._max_devices // 2) // 2)
        look_s = -math.inf
        while True:
            room = 1  # after an error, the next attempt comes after a pause
            owner = self._lease.owner
            claims: list[Claim] = []
            try:
                if owner is not None:
                    await self._intake.put_again()
                    await self._give_back_held(owner)
                if owner is not None and self._loop.time() >= look_s:
                    look_s = self._loop.time() + POLL_S
                    await self._look_around(owner)  # before a backlog takes all the room
                room = min(self._max_devices - occupancy.devices, _MAX_CLAIMS)
                if owner is not None and room > 0 and (not self.is_draining or self._are_own_due()):
                    with self._ownership.asking() as told:
                        claims = await self._outbox.claim(owner, room)
                    if owner == self._lease.owner:  # else the lease was lost meanwhile
                        self._dispatcher.take_claims(claims, told)
            except OutboxError as error:
                self.error = error
                self._report("not claimed", error)
            else:
                if owner is not None:
                    self.error, self.answered_s = None, self._loop.time()
            if len(claims) >= room and not occupancy.has_ended:  # there may be more
                with suppress(TimeoutError):
                    async with asyncio.timeout(_HELD_POLL_S if self._engine.are_some_held else POLL_S):
                        await occupancy.wait_until_below(enough)
            else:
                await asyncio.sleep(POLL_S)

    async def _give_back_held(self, owner: int) -> None:
        """Release devices that would take up more than half of the room until their accounts are accepted."""
        ownership = self._ownership
        if not self._engine.is_held and not ownership.releasing:
            return
        async with ownership.writing:
            if owner != self._lease.owner:
                return
            self._dispatcher.give_back_held(
                self._max_devices // 2, min_hold_s=POLL_S, timeout_s=self._timeout_s
            )
            if ownership.releasing:
                await self._outbox.release(owner, list(ownership.releasing.values()))
                ownership.releasing.clear()

    async def _look_around(self, owner: int) -> None:
        """Take what others have put for owned devices, and settle what others have sent."""
        elsewhere = self._ownership.elsewhere
        while elsewhere or not self.is_draining:
            # Devices of held accounts may take up all the room for long; newer statuses of theirs take up no more.
            room = _MAX_CLAIMS if self._engine.is_held else self._max_devices - self._engine.occupancy.devices
            limit = min(room, _MAX_CLAIMS)
            if limit <= 0:
                break
            with self._ownership.asking() as told:
                newer = await self._outbox.newer(owner, limit)
            if owner == self._lease.owner:
                self._dispatcher.take_claims(newer, told)
            if len(newer) < limit:
                break
        if elsewhere:
            asked = dict(islice(elsewhere.items(), None if self.is_draining else _MAX_LOOKED_UP))
            for progress in await self._outbox.progress(asked):
                del asked[progress.device_id]
                self._dispatcher.settle_by(progress)
            # A device that the outbox does not know was delivered. What was put meanwhile may not be in this answer.
            for pending in asked.values():
                if not self._intake.is_unfiled(pending):
                    self._dispatcher.settle_gone(pending)
            self._dispatcher.progress.set()

    async def _write_completions(self) -> None:
        news = self._dispatcher.news
        while True:
            await news.wait()
            news.clear()
            owner, completed = self._lease.owner, self._ownership.take_completed()
            if owner is None or not completed:
                continue
            try:
                newer = await self._outbox.finish(owner, completed)
            except OutboxError as error:
                self._report("not noted", error)
                news.set()
                await asyncio.sleep(_RETRY_S)
            else:
                if owner == self._lease.owner:
                    self._ownership.written(completed)
                    await self._take_newer(owner, newer)
            self._dispatcher.progress.set()

    async def _take_newer(self, owner: int, newer: list[Claim]) -> None:
        if newer and self.is_draining:
            async with self._ownership.writing:  # a put under way would be answered as this worker's
                if owner != self._lease.owner:
                    return
                newer = self._dispatcher.give_back_newer(newer, timeout_s=self._timeout_s)
        self._dispatcher.take_claims(newer)

    def _are_own_due(self) -> bool:
        now_s = self._loop.time()
        return any(pending.held_until_s <= now_s for pending in self._ownership.elsewhere.values())

    def _report(self, what: str, error: OutboxError) -> None:
        _log.warning("%s: %s", what, error, extra={"error": type(error).__name__})

    def _ended(self, task: asyncio.Task[None]) -> None:
        # These tasks end by cancellation only, unless there is a bug, here or in the engine.
        if not task.cancelled() and (error := task.exception()) is not None:
            self._engine.fail(error)

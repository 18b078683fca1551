"""Backend for an outbox that other processes use too: a worker with a lease on the devices that it sends for."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from printos_async._errors import OutboxError

from .backend import close_outbox, open_outbox
from .dispatch import Dispatcher
from .lease import Lease
from .worker import Worker

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from printos_async._api.requests import Call
    from printos_async._delivery.device_state import PendingStatus
    from printos_async._delivery.results import Reporter
    from printos_async._delivery.settings import PusherSettings
    from printos_async._execution.channel import Channel
    from printos_async.outbox import Outbox

    from .backend import Waiter

_log = logging.getLogger("printos_async.outbox")

# Others cannot send for the devices that one worker owns: it owns no more than keeps its permits in use, and takes
# what it puts.
_OWNED_PER_PERMIT = 4
_MIN_OWNED_DEVICES = 1_024
# Longest time that closing takes. If the database hangs, the end of the lease frees the devices.
_LEAVING_S = 0.4
# An outbox is asked each half second; one that is silent for longer than this is away.
_SILENT_S = 5.0


class SharedBackend:
    """Writes statuses to the outbox before they count as accepted, and sends those whose devices it owns.

    Args:
        outbox: The outbox.
        channel: Sends the statuses; its tenant owns the rows of the outbox, and those of others are never touched.
        settings: The delivery policy, and the number of devices that this worker owns at most.
        reporter: Is told of accepted statuses and their outcomes.
    """

    def __init__(
        self, outbox: Outbox, channel: Channel, settings: PusherSettings, reporter: Reporter
    ) -> None:
        self._tenant = channel.tenant  # first: where no account is named, no engine must watch the host
        self._outbox = outbox
        self._opening = asyncio.Lock()
        self.is_open = False
        self._dispatcher = Dispatcher(channel, settings, reporter)
        self.engine = self._dispatcher.engine
        self._lease = Lease(outbox, channel, self._dispatcher)
        max_devices = max(_MIN_OWNED_DEVICES, _OWNED_PER_PERMIT * channel.executor.limiter.maximum)
        self._worker = Worker(
            outbox,
            self._lease,
            self._dispatcher,
            channel.executor.accounts,
            max_devices=min(max_devices, settings.max_pending_devices),
        )

    async def open(self) -> None:
        """As ``DeliveryBackend.open``; joins the workers of the outbox."""
        async with self._opening:
            if self.is_open:
                return
            await open_outbox(self._outbox, self._tenant)
            try:
                self._outbox.on_replaced = self._file_replaced
                await self._lease.join()
            except BaseException:
                await self._close_outbox()
                raise
            self._worker.start()
            self.is_open = True

    def put(self, call: Call, waiter: Waiter) -> Awaitable[PendingStatus]:
        """As ``DeliveryBackend.put``; the status is in the outbox when it is accepted, and there is always room."""
        return self._worker.put(call, waiter)

    def withdraw(self, pending: PendingStatus) -> bool:  # noqa: ARG002  # as in the protocol
        """Return False: another worker may have the status by now."""
        return False

    def problem(self, now_s: float) -> str | None:
        """As ``DeliveryBackend.problem``."""
        silent_s = now_s - self._worker.answered_s
        if self._worker.error is not None:
            return f"the outbox cannot be read or written: {self._worker.error}"
        if silent_s > _SILENT_S:
            return f"the outbox has not answered for {silent_s:.0f} s"
        return None

    async def drained(self, until_s: float) -> None:
        """As ``DeliveryBackend.drained``; waits until the outcomes are written to the outbox, too."""
        dispatcher = self._dispatcher
        self._worker.is_draining = True  # first: others may put more than this sends, for ever
        await self.engine.drained(until_s)
        while self.is_open and (dispatcher.has_unwritten or dispatcher.left_to_others.are_due_by(until_s)):
            dispatcher.progress.clear()
            await dispatcher.progress.wait()
            await self.engine.drained(until_s)

    def unsettled(self) -> list[PendingStatus]:
        """As ``DeliveryBackend.unsettled``, with the statuses that were left to other workers."""
        return [*self.engine.unsettled(), *self._dispatcher.left_to_others.statuses.values()]

    async def aclose(self) -> None:
        """As ``DeliveryBackend.aclose``, within half a second; what takes longer is free when the lease ends."""
        async with self._opening:
            if not self.is_open:
                return
            try:
                await self._leave()
            finally:
                self.is_open = False
                self._worker.is_closed = True
                self._dispatcher.progress.set()
                await self._close_outbox()
                # The outbox is closed: what is still to be written gets an error.
                await self._worker.puts.settle()

    async def _leave(self) -> None:
        await self._worker.stop()
        try:
            async with asyncio.timeout(_LEAVING_S):
                await self._worker.puts.settle()
                owner = self._lease.owner
                if owner is not None:
                    await self._outbox.finish(owner, self._dispatcher.take_completed())
                    await self._outbox.release(owner, self._dispatcher.releases())
                    await self._outbox.leave(owner)
        except (OutboxError, TimeoutError) as error:
            name = type(error).__name__
            _log.warning("what was not sent is free when the lease ends: %s", name, extra={"error": name})

    async def _close_outbox(self) -> None:
        try:
            await close_outbox(self._outbox)
        finally:
            # Another pusher or spooler may open it next.
            self._outbox.on_replaced = None

    def _file_replaced(self) -> None:
        # The lease went with the old file. Without it the engine has no more than what is in flight.
        self._lease.lose()
        self._dispatcher.left_to_others.file_replaced(self.engine.unsettled())

"""Spooler: writes statuses to an outbox for another process to send."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from printos_async._errors import PusherClosedError
from printos_async.outbox.protocol import Draft

from .outbox.backend import close_outbox, open_outbox
from .outbox.group_commit import GroupCommit

if TYPE_CHECKING:
    from types import TracebackType

    from printos_async._api.requests import Operations
    from printos_async._config import Tenant
    from printos_async._models import DeviceId, DeviceStatusUpdate
    from printos_async.outbox import Kept, Outbox

# Longest time for which closing waits for puts that are not yet being written. Those that are end in the outbox.
_CLOSING_S = 1.0


class Spooler:
    """Writes statuses to an outbox, from which a pusher or a worker sends them.

    Made by ``PrintOSClient.spooler``. It opens and closes the outbox: no other spooler or pusher may have the same object
    meanwhile.
    """

    def __init__(self, outbox: Outbox, operations: Operations, *, tenant: Tenant) -> None:
        self._outbox = outbox
        self._operations = operations
        self._tenant = tenant
        self._puts: GroupCommit[Draft, Kept] = GroupCommit(self._outbox.put)
        self._opening = asyncio.Lock()
        self._is_open = False
        self._closed = False

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def put(self, device_id: DeviceId, status: DeviceStatusUpdate) -> int:
        """Write a status as the newest of its device; durable when this returns, if the outbox is.

        Calls that overlap share commits. Cancelling leaves open whether the status was written.

        Args:
            device_id: Identifier that PrintOS gave the device; 1 to 256 characters, no path separators.
            status: The status to send. It is encoded at once: changing it later changes nothing.

        Returns:
            The status's sequence number: higher than that of every earlier status of the device.

        Raises:
            InvalidDeviceIdError: The identifier would change the request's path.
            InvalidStatusError: The status cannot be sent as given.
            OutboxError: The outbox cannot be written. The status was not accepted.
            ConfigurationError: A pusher or another spooler has the same outbox object, or it is open for another account.
            PusherClosedError: The spooler was closed.
        """
        self._require_open()
        call = self._operations.update_device_status(device_id, status)
        if not self._is_open:
            await self._open()
        kept = await self._puts.submit(Draft(call.device_id or "", call.body))
        return kept.seq

    async def aclose(self) -> None:
        """Wait for writes in progress, and close the outbox. The second time does nothing.

        If the database hangs, a put that could not be written within a second gets an ``OutboxError``.
        """
        self._closed = True
        async with self._opening:
            if not self._is_open:
                return
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_CLOSING_S):
                        await self._puts.settle()
            finally:
                self._is_open = False
                await close_outbox(self._outbox)
                await self._puts.settle()  # the outbox is closed: what is still to be written gets an error

    async def _open(self) -> None:
        async with self._opening:
            self._require_open()
            if not self._is_open:
                await open_outbox(self._outbox, self._tenant)
                self._is_open = True
                self._require_open()  # else it was closed meanwhile, and is closed as soon as it is open

    def _require_open(self) -> None:
        if self._closed:
            raise PusherClosedError("the spooler was closed and accepts no more")

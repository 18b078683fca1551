"""An outbox in the hands of a pusher: opened at the first need, closed at the end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from attrs import frozen

from .exclusive import Loan
from .shared import Delivery

if TYPE_CHECKING:
    from collections.abc import Callable

    from printos_async._api.requests import Operations
    from printos_async._delivery.device_state import DeliveryPolicy, PendingStatus
    from printos_async._delivery.engine import Engine
    from printos_async._events import Hooks
    from printos_async.outbox import Outbox, PrivateOutbox

    from .dispatch import Settle


@frozen(kw_only=True)
class Custody:
    """Where a pusher's statuses are kept.

    Attributes:
        outbox: The outbox.
        account: Whose statuses they are; nothing of anybody else's is touched.
        timeout_s: Seconds after which every attempt has ended.
        max_devices: Devices of a shared outbox that the pusher owns at once.
    """

    outbox: Outbox
    account: str
    timeout_s: float
    max_devices: int


class Keeper:
    """Opens and closes the outbox of one pusher.

    Attributes:
        is_open: Whether the outbox is open.
        delivery: What goes between engine and outbox where others use that too; else the engine has it all.
    """

    def __init__(
        self,
        custody: Custody,
        engine: Engine,
        operations: Operations,
        policy: DeliveryPolicy,
        hooks: Hooks,
        *,
        accepted: Callable[[PendingStatus], None],
        settle: Settle,
    ) -> None:
        self._outbox = custody.outbox
        self._account = custody.account
        self._opening = asyncio.Lock()
        self.is_open = False
        self._loan: Loan | None = None
        self.delivery: Delivery | None = None
        if custody.outbox.is_shared:
            self.delivery = Delivery(
                custody.outbox,
                engine,
                operations,
                policy,
                hooks,
                timeout_s=custody.timeout_s,
                max_devices=custody.max_devices,
                accepted=accepted,
                settle=settle,
            )
        else:
            self._loan = Loan(
                cast("PrivateOutbox", custody.outbox),  # which is what one is that is not shared
                engine,
                operations,
                policy,
                timeout_s=custody.timeout_s,
                accepted=accepted,
            )

    async def open(self) -> None:
        """Open the outbox and take what is there, once; whoever comes meanwhile waits.

        Raises:
            OutboxError: It cannot be read or written.
            ConfigurationError: Another pusher has it, or it is open for another account.
        """
        if not self.is_open:
            async with self._opening:
                await self._open()

    async def _open(self) -> None:
        holder = self.delivery or self._loan
        if self.is_open or holder is None:
            return
        await self._outbox.open(self._account)
        try:
            await holder.start()
        except BaseException:
            if self.delivery is not None:  # that of a loan may be somebody else's
                await self._outbox.aclose()
            raise
        self.is_open = True

    async def drained(self, until_s: float) -> None:
        """Wait until everything accepted that can be settled by then is so, and noted in the outbox."""
        if self.is_open and self.delivery is not None:
            await self.delivery.drained(until_s)

    async def close(self) -> None:
        """Give back what was not sent, and close the outbox."""
        async with self._opening:
            holder = self.delivery or self._loan
            if self.is_open and holder is not None:
                self.is_open = False
                try:
                    await holder.aclose()
                finally:
                    await self._outbox.aclose()
                    if self.delivery is not None:
                        await self.delivery.settle_puts()

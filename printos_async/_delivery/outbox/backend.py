"""Delivery backend: the protocol that a pusher uses, and the backend that keeps statuses in memory only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from printos_async._delivery.backpressure import Admission

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable

    from printos_async._api.requests import Call
    from printos_async._delivery.device_state import PendingStatus
    from printos_async._delivery.engine import Engine
    from printos_async._delivery.results import Reporter
    from printos_async._models import PushResult

    Waiter = asyncio.Future[PushResult] | None


class DeliveryBackend(Protocol):
    """Accepts a pusher's statuses, keeps them until they are sent, and reports their outcomes.

    Attributes:
        engine: Sends the statuses.
        is_open: Whether statuses can be put.
    """

    engine: Engine
    is_open: bool

    async def open(self) -> None:
        """Make ready for ``put``. The second time does nothing; concurrent calls wait for the first.

        Raises:
            OutboxError: The outbox cannot be read or written.
            ConfigurationError: Another pusher has the outbox, or it is open for another account.
        """
        ...

    def put(self, call: Call, waiter: Waiter) -> Awaitable[PendingStatus]:
        """Accept an encoded status; ``waiter`` gets its result.

        Raises:
            PusherFullError: There is no room.
            PusherClosedError: The pusher was closed before the status was accepted.
            OutboxError: The outbox cannot be written.
        """
        ...

    def withdraw(self, pending: PendingStatus) -> bool:
        """Remove a waiting status; False if it stays."""
        ...

    def problem(self, now_s: float) -> str | None:
        """Return why statuses cannot be stored or claimed at the moment; None if they can, as far as is known."""
        ...

    async def drained(self, until_s: float) -> None:
        """Wait until every status is settled that may be sent before ``until_s``."""
        ...

    def unsettled(self) -> list[PendingStatus]:
        """Return the accepted statuses that have no outcome yet."""
        ...

    async def aclose(self) -> None:
        """Release unsent statuses to the outbox, and close it. The engine has been closed before."""
        ...


class MemoryBackend:
    """Keeps statuses in the engine only.

    Args:
        engine: Sends the statuses.
        reporter: Is told of accepted statuses.
        max_pending_devices: Devices with work pending at most.
        on_full: Whether a status without room waits or is refused.
    """

    is_open = True

    def __init__(
        self,
        engine: Engine,
        reporter: Reporter,
        *,
        max_pending_devices: int,
        on_full: Literal["wait", "raise"],
    ) -> None:
        self.engine = engine
        self._reporter = reporter
        self._admission = Admission(
            engine.occupancy, engine.is_active, max_pending_devices=max_pending_devices, on_full=on_full
        )

    async def open(self) -> None:
        """As ``DeliveryBackend.open``: nothing has to be opened."""

    def put(self, call: Call, waiter: Waiter) -> Awaitable[PendingStatus]:
        """As ``DeliveryBackend.put``, when there is room."""
        return self._admission.enter(call.device_id or "", lambda: self._accept(call, waiter))

    def withdraw(self, pending: PendingStatus) -> bool:
        """As ``DeliveryBackend.withdraw``."""
        return self.engine.withdraw(pending)

    def problem(self, now_s: float) -> str | None:  # noqa: ARG002  # as in the protocol
        """As ``DeliveryBackend.problem``: memory has none."""
        return None

    async def drained(self, until_s: float) -> None:
        """As ``DeliveryBackend.drained``."""
        await self.engine.drained(until_s)

    def unsettled(self) -> list[PendingStatus]:
        """As ``DeliveryBackend.unsettled``."""
        return self.engine.unsettled()

    async def aclose(self) -> None:
        """As ``DeliveryBackend.aclose``: nothing outlives the pusher."""

    def _accept(self, call: Call, waiter: Waiter) -> PendingStatus:
        self.engine.occupancy.require_open()
        pending = self.engine.accept(call, waiter)
        self._reporter.accept(pending)
        return pending

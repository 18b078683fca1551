"""Long-lived pusher: accepts statuses at any time, and sends the newest of each device."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, Self

from attrs import field, frozen

from .health import PusherHealth, health_of
from .results import withdraw

if TYPE_CHECKING:
    from types import TracebackType

    from printos_async._api.requests import Operations
    from printos_async._execution.circuit_breaker import Circuit
    from printos_async._execution.executor import Executor
    from printos_async._models import DeviceId, DeviceStatusUpdate, PushResult

    from .device_state import PendingStatus
    from .outbox.backend import DeliveryBackend
    from .results import Reporter

_log = logging.getLogger("printos_async.pusher")


@frozen(kw_only=True)
class PusherStats:
    """Counts of a pusher at one moment: ``sent + superseded + failed + pending == accepted``.

    Attributes:
        accepted: Statuses accepted so far, without those that their caller withdrew.
        sent: Of these, acknowledged by the server, or skipped because they were unchanged.
        superseded: Of these, replaced by a newer one of the same device.
        failed: Of these, failed for good.
        pending: Of these, waiting or in flight.
        active_devices: Devices with a status that is waiting, in flight or to be sent again.
        in_flight: This pusher's requests in flight.
        limit: The client's concurrency limit at the moment.
        requests: This pusher's requests so far, retries and reassertions included.
        circuit: ``"open"`` while the host seems down and gets probes only.
        held_accounts: The client's accounts that PrintOS refuses at the moment; each gets probes only.
        since_success_s: Seconds since PrintOS last accepted a request of the client; None if it never did.
    """

    accepted: int
    sent: int
    superseded: int
    failed: int
    pending: int
    active_devices: int
    in_flight: int
    limit: int
    requests: int
    circuit: Circuit
    held_accounts: int
    since_success_s: float | None = field(eq=False)  # it is another one a moment later


class StatusPusher:
    """Sends the newest status of every device, one request per device at a time, until it is closed.

    Made by ``PrintOSClient.status_pusher``, which describes the settings. Use it as an asynchronous context
    manager: leaving drains for up to ``drain_timeout_s``, or not at all if an exception is the reason. It belongs to
    the event loop in which it was made.

    It outlasts outages: while nothing succeeds it probes the host once a second at most, and keeps each device's newest
    status until it is sent, superseded, refused for good or too late. An HTML page, such as that of a captive portal,
    is an outage too. A status that fails while others succeed is given up after the ``max_attempts`` of the retry
    policy. A pause that the host asks for holds for an hour at most; then the host is probed once a minute.

    Every accepted status has one end event: ``StatusSent``, ``StatusSuperseded``, ``StatusFailed`` or, if it was still
    pending when its caller or the pusher ended, ``StatusWithdrawn``.

    With an outbox that other processes use too, such as ``SqlOutbox``, a status is accepted when it is durable, and
    the pusher also sends what others have put. One outbox object serves one pusher or spooler at a time, which opens
    and closes it.
    """

    def __init__(
        self,
        executor: Executor,
        operations: Operations,
        backend: DeliveryBackend,
        reporter: Reporter,
        *,
        drain_timeout_s: float | None,
    ) -> None:
        self._executor = executor
        self._encode = operations.update_device_status
        self._backend = backend
        self._engine = backend.engine
        self._occupancy = backend.engine.occupancy
        self._reporter = reporter
        self._loop = asyncio.get_running_loop()
        self._drain_timeout_s = drain_timeout_s
        self._ending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._occupancy.require_open()  # once closed, nothing would close what is opened now
        try:
            await self._backend.open()
        except BaseException:
            await self.aclose()  # the caller cannot: nothing was entered
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self._occupancy.is_closed:  # else the caller has drained already
                await self.drain(timeout_s=self._drain_timeout_s)
        finally:
            await self.aclose()

    async def put(self, device_id: DeviceId, status: DeviceStatusUpdate) -> None:
        """Accept the newest status of one device.

        A status of the same device that is still waiting is superseded and never sent. Where
        ``max_pending_devices`` devices have something to be done, this waits, or raises, unless the device is
        one of them. Cancelling while it waits accepts nothing.

        With a shared outbox the status is in it when this returns, and there is always room. Cancelling while
        it is written leaves open whether it was accepted.

        Args:
            device_id: Identifier that PrintOS gave the device; 1 to 256 characters, no path separators.
            status: The status to send. It is encoded at once: changing it later changes nothing.

        Raises:
            InvalidDeviceIdError: The identifier would change the request's path.
            InvalidStatusError: The status cannot be sent as given.
            PusherFullError: There is no room, and ``on_full`` is ``"raise"``.
            PusherClosedError: The pusher is draining or closed.
            OutboxError: The outbox cannot be written. The status was not accepted.

        Source: operation ``updateDeviceStatus``; PUT replaces, so a replay is safe.
        """
        await self._accept(device_id, status, None)

    async def push(self, device_id: DeviceId, status: DeviceStatusUpdate) -> PushResult:
        """Accept a status like ``put``, and wait for its result.

        Cancelling withdraws the status if it is still waiting, and detaches from it if it is in flight or if
        it has superseded another one: else the device would get neither. From a shared outbox nothing is
        withdrawn.

        Returns:
            The result; where the status was superseded, ``superseded_by`` is the newer one's sequence number.

        Raises:
            InvalidDeviceIdError: The identifier would change the request's path.
            InvalidStatusError: The status cannot be sent as given.
            PusherFullError: There is no room, and ``on_full`` is ``"raise"``.
            PusherClosedError: The pusher is draining or closed, or was closed before there was a result.
            OutboxError: The outbox cannot be written. The status was not accepted.
        """
        waiter: asyncio.Future[PushResult] = self._loop.create_future()
        pending: PendingStatus | None = None
        try:
            pending = await self._accept(device_id, status, waiter)
            return await waiter
        except asyncio.CancelledError:
            if pending is not None and not pending.has_ended and self._backend.withdraw(pending):
                self._reporter.cancel(pending)
            raise
        finally:
            waiter.cancel()  # no result is awaited any more, even if the outbox still accepts the status

    async def drain(self, timeout_s: float | None = None) -> PusherStats:
        """Accept no more, and wait until every accepted status is settled and, where needed, sent again.

        Statuses in a shared outbox that others have put, and that this pusher has not claimed, are left to others.

        Cancelling only stops the waiting; the pusher goes on sending and accepts no more.

        Statuses that cannot be sent in time are not waited for: this returns as soon as every status that is left is
        held for longer than the rest of ``timeout_s``, by ``min_interval_s`` or after an uncertain write. A durable
        outbox keeps these statuses; in memory they stay ``pending``, and another ``drain`` with more time sends them.

        Args:
            timeout_s: Seconds to wait at most; None for as long as it takes.

        Returns:
            The counts; ``pending`` is the number of statuses that were not settled in time.
        """
        self._occupancy.is_closed = True
        until_s = math.inf if timeout_s is None else self._loop.time() + timeout_s
        text = "statuses that cannot be sent within %(timeout_s)s s, because they are held for longer: %(pending)d"
        try:
            async with asyncio.timeout(timeout_s):
                await self._backend.drained(until_s)
        except TimeoutError:
            text = "statuses that were not settled within %(timeout_s)s s: %(pending)d"
        stats = self.stats()
        if stats.pending and self._ending is None:
            fields = {"pending": stats.pending, "timeout_s": timeout_s}
            _log.warning(text, fields, extra=fields)
        return stats

    async def wait_ended(self) -> None:
        """Wait until the pusher is closed: for a process that only sends what others have put.

        Cancelling stops the waiting only.

        Raises:
            Exception: A bug, of a hook for example. The pusher accepts no more; until it is closed, it may still send
                what it has accepted.
        """
        await self._occupancy.wait_until_below(0)

    async def aclose(self) -> None:
        """Stop at once. Statuses that are waiting or in flight are withdrawn, and stay ``pending``.

        With an outbox, unsent statuses stay there for the next pusher or another worker.

        Callers that wait in ``push`` get a ``PusherClosedError``. The second time does nothing.
        """
        self._occupancy.is_closed = True
        if self._ending is None:
            self._ending = self._loop.create_task(self._end())
        # Cancelling the caller, however often, does not cancel the closing.
        await asyncio.shield(self._ending)

    def stats(self) -> PusherStats:
        """Return the counts of this moment."""
        counts = self._reporter.counts
        since_success_s = self._loop.time() - self._executor.circuit_breaker.succeeded_s
        return PusherStats(
            accepted=self._reporter.accepted,
            sent=counts["sent"],
            superseded=counts["superseded"],
            failed=counts["failed"],
            pending=self._reporter.pending,
            active_devices=self._occupancy.devices,
            in_flight=self._engine.senders.in_flight,
            limit=self._executor.limiter.limit,
            requests=self._engine.senders.requests,
            circuit=self._executor.circuit_breaker.circuit,
            held_accounts=self._executor.accounts.held,
            since_success_s=None if math.isinf(since_success_s) else since_success_s,
        )

    def health(self) -> PusherHealth:
        """Return whether statuses get through at this moment, and why not; for probes of an orchestrator.

        It does no I/O. An outage shows when requests have failed: without traffic nothing is known.
        """
        return health_of(self._executor, self._backend, now_s=self._loop.time())

    async def _accept(
        self, device_id: DeviceId, status: DeviceStatusUpdate, waiter: asyncio.Future[PushResult] | None
    ) -> PendingStatus:
        self._occupancy.require_open()
        call = self._encode(device_id, status)
        if not self._backend.is_open:
            await self._backend.open()
            self._occupancy.require_open()
        return await self._backend.put(call, waiter)

    async def _end(self) -> None:
        hooks = self._executor.hooks
        await self._engine.aclose()
        withdraw(self._backend.unsettled(), hooks)  # before the outbox is closed, which may take its time
        try:
            await self._backend.aclose()
        finally:
            withdraw(self._backend.unsettled(), hooks)  # what the outbox has accepted meanwhile

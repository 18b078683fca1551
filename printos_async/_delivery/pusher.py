"""The long-lived pusher: accepts statuses as they come, and sends each device's newest."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, Literal, Self

from attrs import frozen

from printos_async._errors import PusherClosedError
from printos_async._events import StatusAccepted, StatusWithdrawn

from .backpressure import Admission
from .engine import Engine
from .outbox.backend import Keeper
from .results import emit_outcome, make_result

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from printos_async._api.answers import Answers
    from printos_async._api.requests import Operations
    from printos_async._api.validation import Call
    from printos_async._errors import PrintOSError
    from printos_async._execution.circuit_breaker import Circuit
    from printos_async._execution.executor import Core
    from printos_async._models import DeviceId, DeviceStatusUpdate, PushResult

    from .device_state import DeliveryPolicy, Outcome, PendingStatus
    from .outbox.backend import Custody
    from .outbox.shared import Delivery

_log = logging.getLogger("printos_async.pusher")


@frozen(kw_only=True)
class PusherStats:
    """A pusher's account at one moment: ``sent + superseded + failed + pending == accepted``.

    Attributes:
        accepted: Statuses accepted so far, those that their caller withdrew not counted.
        sent: Of these, acknowledged by the server, or left out because nothing had changed.
        superseded: Of these, replaced by a newer one of the same device.
        failed: Of these, given up.
        pending: Of these, waiting or in flight.
        active_devices: Devices with something waiting, in flight or to be sent again.
        in_flight: This pusher's requests in flight.
        limit: Requests that the client allows in flight at the moment.
        requests: This pusher's requests so far, retries and reassertions included.
        circuit: ``"open"`` while the host seems down and is only probed.
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


class StatusPusher:
    """Sends the newest status of every device, one request per device at a time, for as long as it lives.

    Made by ``PrintOSClient.status_pusher``, which describes the settings. Use it as an asynchronous context
    manager: leaving drains for up to ``drain_timeout_s``, or not at all if an exception is the reason. It belongs to
    the event loop in which it was made.

    Every accepted status has one end, and one event of it: ``StatusSent``, ``StatusSuperseded``, ``StatusFailed`` or,
    where it was still pending when its caller or the pusher ended, ``StatusWithdrawn``.

    With an outbox that other processes use too, such as ``SqlOutbox``, a status is accepted when it is durable, and
    the pusher also sends what others have put. One outbox object serves one pusher at a time, which opens and
    closes it.
    """

    def __init__(
        self,
        core: Core,
        operations: Operations,
        answers: Answers,
        policy: DeliveryPolicy,
        *,
        max_pending_devices: int,
        on_full: Literal["wait", "raise"],
        drain_timeout_s: float | None,
        custody: Custody | None = None,
    ) -> None:
        self._core = core
        self._loop = asyncio.get_running_loop()
        self._engine = Engine(core, operations, answers, policy, self._settle)
        self._admission = Admission(self._engine, max_pending_devices=max_pending_devices, on_full=on_full)
        self._drain_timeout_s = drain_timeout_s
        self._keeper: Keeper | None = None
        self._delivery: Delivery | None = None
        if custody is not None:
            self._keeper = Keeper(
                custody,
                self._engine,
                operations,
                policy,
                core.hooks,
                accepted=self._count_accepted,
                settle=self._settle,
            )
            self._delivery = self._keeper.delivery
        self._accepted = 0
        self._outcomes: dict[Outcome, int] = {"sent": 0, "superseded": 0, "failed": 0}
        self._closed = False
        self._ending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._keeper is not None:
            await self._keeper.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self._closed:  # who has drained already has waited as long as they wanted
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
        """Accept a status like ``put``, and wait for what becomes of it.

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
            if pending is not None and not pending.has_ended and self._engine.withdraw(pending):
                self._accepted -= 1
                self._withdraw([pending])
            raise
        finally:
            waiter.cancel()  # cancelled while the outbox was written: nobody waits for what it may still accept

    async def drain(self, timeout_s: float | None = None) -> PusherStats:
        """Accept no more, and wait until everything accepted is settled and, where needed, sent again.

        Of a shared outbox, what others have put and this pusher has not claimed yet is left to them.

        Cancelling stops the waiting only; the pusher goes on with what it has and stays closed for more.

        What cannot be sent in time is not waited for: as soon as every status that is left is held for longer than
        the rest of ``timeout_s``, by ``min_interval_s`` or after an uncertain write, this returns. A durable outbox
        keeps these statuses; in memory they stay ``pending``, and another ``drain`` with more time sends them.

        Args:
            timeout_s: Seconds to wait at most; None for as long as it takes.

        Returns:
            The account; ``pending`` is what was not settled in time.
        """
        self._closed = True
        until_s = math.inf if timeout_s is None else self._loop.time() + timeout_s
        text = "%(pending)d statuses cannot be sent within %(timeout_s)s s: they are held for longer"
        try:
            async with asyncio.timeout(timeout_s):
                await self._engine.drained(until_s)
                if self._keeper is not None:
                    await self._keeper.drained(until_s)
        except TimeoutError:
            text = "%(pending)d statuses were not settled within %(timeout_s)s s"
        stats = self.stats()
        if stats.pending and self._ending is None:
            fields = {"pending": stats.pending, "timeout_s": timeout_s}
            _log.warning(text, fields, extra=fields)
        return stats

    async def wait_ended(self) -> None:
        """Wait until the pusher was closed: for a process that only sends what others have put.

        Cancelling stops the waiting only.

        Raises:
            Exception: A bug, of a hook for example, has ended its work; nothing is sent any more.
        """
        await self._engine.occupancy.wait_until_below(0)

    async def aclose(self) -> None:
        """End at once. What has no answer by now and what waits is withdrawn, and stays ``pending``.

        With an outbox, what is not sent stays there, for the next pusher or another worker.

        Those who wait in ``push`` get a ``PusherClosedError``. The second time does nothing.
        """
        self._closed = True
        if self._ending is None:
            self._ending = self._loop.create_task(self._end())
        # Whoever is cancelled here, and however often, it comes to its end.
        await asyncio.shield(self._ending)

    def stats(self) -> PusherStats:
        """Give the account of this moment."""
        settled = sum(self._outcomes.values())
        return PusherStats(
            accepted=self._accepted,
            sent=self._outcomes["sent"],
            superseded=self._outcomes["superseded"],
            failed=self._outcomes["failed"],
            pending=self._accepted - settled,
            active_devices=self._engine.occupancy.devices,
            in_flight=self._engine.in_flight,
            limit=self._core.limiter.limit,
            requests=self._engine.requests,
            circuit=self._core.health.circuit,
        )

    async def _accept(
        self, device_id: DeviceId, status: DeviceStatusUpdate, waiter: asyncio.Future[PushResult] | None
    ) -> PendingStatus | None:
        self._require_open()
        call = self._engine.encode(device_id, status)
        if self._keeper is not None:
            if not self._keeper.is_open:
                await self._keeper.open()
                self._require_open()
            if self._delivery is not None:
                await self._delivery.put(call, waiter)
                return None
        return await self._admission.enter(call.device_id or "", lambda: self._take(call, waiter))

    def _take(self, call: Call, waiter: asyncio.Future[PushResult] | None) -> PendingStatus:
        self._require_open()
        pending = self._engine.accept(call, waiter)
        self._count_accepted(pending)
        return pending

    def _count_accepted(self, pending: PendingStatus) -> None:
        self._accepted += 1
        if self._core.hooks:
            self._core.hooks.emit(StatusAccepted(pending.device_id, pending.seq))

    async def _end(self) -> None:
        await self._engine.aclose()
        self._withdraw_rest()  # before the outbox, which may take its time
        if self._keeper is not None:
            try:
                await self._keeper.close()
            finally:
                self._withdraw_rest()  # what the outbox has accepted meanwhile

    def _withdraw_rest(self) -> None:
        unsettled = self._engine.unsettled()
        if self._delivery is not None:
            unsettled += self._delivery.left_to_others()
        rest = [pending for pending in unsettled if not pending.has_ended]
        self._withdraw(rest)
        reason = PusherClosedError("the pusher was closed before this status was settled")
        for pending in rest:
            pending.abandon(reason)

    def _withdraw(self, statuses: Iterable[PendingStatus]) -> None:
        for pending in statuses:
            pending.has_ended = True
            if self._core.hooks:
                self._core.hooks.emit(StatusWithdrawn(pending.device_id, pending.seq))

    def _require_open(self) -> None:
        if self._closed:
            raise PusherClosedError("the pusher is draining or closed and accepts no more")
        if self._engine.occupancy.crash is not None:
            raise self._engine.occupancy.crash

    def _settle(
        self, pending: PendingStatus, outcome: Outcome, error: PrintOSError | None, superseded_by: int | None
    ) -> None:
        if pending.has_ended:
            return  # the outbox tells of one that was withdrawn
        pending.has_ended = True
        self._outcomes[outcome] += 1
        if self._delivery is not None:
            self._delivery.dispatcher.settled(pending, outcome, error)
        now_s = self._loop.time()
        if outcome == "failed" or self._core.hooks:  # a failure is logged even if nobody watches
            emit_outcome(self._core.hooks, pending, outcome, error, superseded_by, now_s=now_s)
        waiter = pending.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(make_result(pending, outcome, error, superseded_by, now_s=now_s))

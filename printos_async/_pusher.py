"""The long-lived pusher: accepts statuses as they come, and sends each device's newest."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Literal, Self

from attrs import frozen

from ._engine import Engine
from ._errors import PusherClosedError, PusherFullError
from ._events import StatusAccepted, StatusWithdrawn
from ._settling import emit_outcome, make_result

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from ._answers import Answers
    from ._core import Core
    from ._encode import Call
    from ._errors import PrintOSError
    from ._health import Circuit
    from ._models import DeviceId, DeviceStatusUpdate, PushResult
    from ._operations import Operations
    from ._slot import Entry, Outcome, Promises

_log = logging.getLogger("printos_async.pusher")

EXIT_DRAIN_S = 30.0


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
    manager: leaving drains for up to 30 s, or not at all if an exception is the reason. It belongs to the event
    loop in which it was made.
    """

    def __init__(
        self,
        core: Core,
        operations: Operations,
        answers: Answers,
        promises: Promises,
        *,
        max_pending_devices: int,
        on_full: Literal["wait", "raise"],
    ) -> None:
        self._core = core
        self._max_pending_devices = max_pending_devices
        self._on_full = on_full
        self._loop = asyncio.get_running_loop()
        self._engine = Engine(core, operations, answers, promises, self._settle)
        self._accepted = 0
        self._outcomes: dict[Outcome, int] = {"sent": 0, "superseded": 0, "failed": 0}
        self._closed = False
        self._ended = False
        self._head_of_line = asyncio.Lock()
        self._in_line: dict[str, int] = {}  # devices whose statuses wait for room

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self._closed:  # who has drained already has waited as long as they wanted
                await self.drain(timeout_s=EXIT_DRAIN_S)
        finally:
            await self.aclose()

    async def put(self, device_id: DeviceId, status: DeviceStatusUpdate) -> None:
        """Accept the newest status of one device.

        A status of the same device that is still waiting is superseded and never sent. Where
        ``max_pending_devices`` devices have something to be done, this waits, or raises, unless the device is
        one of them. Cancelling while it waits accepts nothing.

        Args:
            device_id: Identifier that PrintOS gave the device; 1 to 256 characters, no path separators.
            status: The status to send. It is encoded at once: changing it later changes nothing.

        Raises:
            InvalidDeviceIdError: The identifier would change the request's path.
            InvalidStatusError: The status cannot be sent as given.
            PusherFullError: There is no room, and ``on_full`` is ``"raise"``.
            PusherClosedError: The pusher is draining or closed.

        Source: operation ``updateDeviceStatus``; PUT replaces, so a replay is safe.
        """
        await self._accept(device_id, status, None)

    async def push(self, device_id: DeviceId, status: DeviceStatusUpdate) -> PushResult:
        """Accept a status like ``put``, and wait for what becomes of it.

        Cancelling withdraws the status if it is still waiting, and detaches from it if it is in flight or if
        it has superseded another one: else the device would get neither.

        Returns:
            The result; where the status was superseded, ``superseded_by`` is the newer one's sequence number.

        Raises:
            InvalidDeviceIdError: The identifier would change the request's path.
            InvalidStatusError: The status cannot be sent as given.
            PusherFullError: There is no room, and ``on_full`` is ``"raise"``.
            PusherClosedError: The pusher is draining or closed, or was closed before there was a result.
        """
        waiter: asyncio.Future[PushResult] = self._loop.create_future()
        entry = await self._accept(device_id, status, waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if self._engine.withdraw(entry):
                self._accepted -= 1
                self._emit_withdrawn([entry])
            raise

    async def drain(self, timeout_s: float | None = None) -> PusherStats:
        """Accept no more, and wait until everything accepted is settled and, where needed, sent again.

        Cancelling stops the waiting only; the pusher goes on with what it has and stays closed for more.

        Args:
            timeout_s: Seconds to wait at most; None for as long as it takes.

        Returns:
            The account; ``pending`` is what was not settled in time.
        """
        self._closed = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._engine.occupancy.wait_until_below(1)
        except TimeoutError:
            fields = {"pending": self.stats().pending, "timeout_s": timeout_s}
            _log.warning("%(pending)d statuses were not settled within %(timeout_s)s s", fields, extra=fields)
        return self.stats()

    async def aclose(self) -> None:
        """End at once. What is in flight ends by itself; what waits is not sent and stays ``pending``.

        Those who wait in ``push`` get a ``PusherClosedError``. The second time does nothing.
        """
        self._closed = True
        unsettled = [] if self._ended else self._engine.unsettled()
        self._ended = True
        self._emit_withdrawn(unsettled)
        await self._engine.aclose(PusherClosedError("the pusher was closed before this status was settled"))

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
    ) -> Entry:
        self._require_open()
        call = self._engine.encode(device_id, status)
        device_id = call.device_id or ""
        if self._engine.occupancy.devices < self._max_pending_devices and not self._in_line:
            return self._take(call, waiter)
        # A status of a device that has one waiting needs no room, but must not overtake an older one in the line.
        if self._engine.is_active(device_id) and device_id not in self._in_line:
            return self._take(call, waiter)
        if self._on_full == "raise":
            raise PusherFullError(
                f"{self._max_pending_devices} devices have something waiting; try again later"
            )
        self._in_line[device_id] = self._in_line.get(device_id, 0) + 1
        try:
            async with (
                self._head_of_line
            ):  # in the order of coming; only the first is woken when there is room
                full = self._engine.occupancy.devices >= self._max_pending_devices
                if full and not self._engine.is_active(device_id):
                    # Down a little, not by one: a handover for each status costs more than the queue.
                    room = self._max_pending_devices // 8
                    await self._engine.occupancy.wait_until_below(self._max_pending_devices - room)
                self._require_open()
                return self._take(call, waiter)
        finally:
            self._in_line[device_id] -= 1
            if not self._in_line[device_id]:
                del self._in_line[device_id]

    def _take(self, call: Call, waiter: asyncio.Future[PushResult] | None) -> Entry:
        entry = self._engine.accept(call, waiter)
        self._accepted += 1
        if self._core.hooks:
            self._core.hooks.emit(StatusAccepted(entry.device_id, entry.seq))
        return entry

    def _emit_withdrawn(self, entries: Iterable[Entry]) -> None:
        if self._core.hooks:
            for entry in entries:
                self._core.hooks.emit(StatusWithdrawn(entry.device_id, entry.seq))

    def _require_open(self) -> None:
        if self._closed:
            raise PusherClosedError("the pusher is draining or closed and accepts no more")
        if self._engine.occupancy.crash is not None:
            raise self._engine.occupancy.crash

    def _settle(
        self, entry: Entry, outcome: Outcome, error: PrintOSError | None, superseded_by: int | None
    ) -> None:
        self._outcomes[outcome] += 1
        now_s = self._loop.time()
        if outcome == "failed" or self._core.hooks:  # a failure is logged even if nobody watches
            emit_outcome(self._core.hooks, entry, outcome, error, superseded_by, now_s=now_s)
        waiter = entry.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(make_result(entry, outcome, error, superseded_by, now_s=now_s))

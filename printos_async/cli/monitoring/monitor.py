"""Monitor of a command that runs on: its heartbeat, its pages and its service manager."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Self

from attrs import field, frozen

from printos_async.cli.credentials.reread_file import QUIET_S
from printos_async.cli.options.listen import listen_error
from printos_async.cli.terminal.output import complain
from printos_async.outbox.sampling import StatsSampler

from .service_manager import ServiceManager

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from printos_async._delivery.pusher import PusherStats, StatusPusher
    from printos_async._events import Hook
    from printos_async.cli.options.listen import ListenAddress
    from printos_async.outbox import SqlOutbox

    from .metrics import Metrics
    from .server import MonitoringServer

_BEAT_EVERY_S = 0.5
_STALL_S = 5.0
_STATUS_EVERY_S = 5.0
_OUTBOX_EVERY_S = 5.0
# More than the pause after which a signal's files are read.
_RELOAD_S = 2 * QUIET_S
_NOT_STARTED: Mapping[str, str] = {"not_started": "it is starting"}


@frozen
class Sample:
    """State of a command at one moment.

    Attributes:
        reasons: Why statuses do not get through, as in ``PusherHealth``.
        stats: The pusher's counts; None before there is a pusher.
        taken_s: The moment, by ``time.monotonic``.
    """

    reasons: Mapping[str, str] = _NOT_STARTED
    stats: PusherStats | None = None
    taken_s: float = field(factory=time.monotonic)

    @property
    def age_s(self) -> float:
        """Seconds since it was taken."""
        return time.monotonic() - self.taken_s


class Heartbeat:
    """Takes samples on the event loop. Other threads read the last one, without a lock and even if the loop is blocked.

    Args:
        stall_s: Seconds without a sample after which the event loop counts as stalled.

    Attributes:
        latest: The last sample.
        pusher: What is sampled, once there is one.
    """

    def __init__(self, *, stall_s: float) -> None:
        self._stall_s = stall_s
        self.latest = Sample()
        self.pusher: StatusPusher | None = None

    def beat(self) -> Sample:
        """Take a sample; call it on the event loop."""
        if self.pusher is None:
            self.latest = Sample()
        else:
            reasons = dict[str, str](self.pusher.health().reasons.items())
            self.latest = Sample(reasons, self.pusher.stats())
        return self.latest

    def stalled(self) -> Mapping[str, str]:
        """Return a reason if the event loop is blocked, else nothing."""
        age_s = self.latest.age_s
        if age_s < self._stall_s:
            return {}
        return {"stalled": f"the event loop has been blocked for {age_s:.0f} s"}


class Monitor:
    """Health and metrics of one command, over HTTP and to systemd; an asynchronous context manager.

    Args:
        listen: Where to serve them; None for nowhere.
        stall_s: Seconds without a heartbeat after which the event loop counts as stalled.
        reload_s: Seconds after which files that are read again count as read.

    Attributes:
        hooks: Hooks for the client.
    """

    def __init__(
        self, listen: ListenAddress | None, *, stall_s: float = _STALL_S, reload_s: float = _RELOAD_S
    ) -> None:
        self._listen = listen
        self._heartbeat = Heartbeat(stall_s=stall_s)
        self._reload_s = reload_s
        self._manager = ServiceManager(os.environ)
        self._describe: Callable[[], str] | None = None
        self._metrics: Metrics | None = None
        self._server: MonitoringServer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._is_ready = False
        self._is_stopping = False
        self._next_status_s = 0.0
        self._shown_reasons: object = None
        self.hooks: Sequence[Hook] = ()
        if listen is not None:
            from .metrics import Metrics  # noqa: PLC0415  # needs the extra

            self._metrics = Metrics(self._heartbeat)
            self.hooks = (self._metrics.on_event,)

    async def __aenter__(self) -> Self:
        """Listen, and begin to beat.

        Raises:
            CommandError: The address cannot be listened on.
        """
        if self._listen is not None and self._metrics is not None:
            self._server = _listen(self._listen, self._metrics)
        self._manager.open()
        self._tasks.append(asyncio.create_task(self._keep_beating()))
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self._stopping()
        self._manager.close()
        if self._server is not None:
            await asyncio.to_thread(self._server.stop)

    @property
    def address(self) -> ListenAddress | None:
        """The address that it listens on; None if it does not listen."""
        return None if self._server is None else self._server.address

    def watch(
        self, pusher: StatusPusher, describe: Callable[[], str], *, outbox: SqlOutbox | None = None
    ) -> None:
        """Show the state and the counts of a pusher from now on.

        Args:
            pusher: The pusher.
            describe: Returns the line of state.
            outbox: Its outbox, if it has one.
        """
        self._heartbeat.pusher = pusher
        self._describe = describe
        if outbox is not None and self._metrics is not None:
            self._metrics.outbox = StatsSampler(outbox, every_s=_OUTBOX_EVERY_S)
            self._tasks.append(asyncio.create_task(self._metrics.outbox.run()))

    def announcing(self, reload: Callable[[], None]) -> Callable[[], None]:
        """Return a function that reads files again, and notifies the service manager before and after."""

        def announced() -> None:
            self._manager.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                reload()
            finally:
                asyncio.get_running_loop().call_later(self._reload_s, self._reloaded)

        return announced

    def _reloaded(self) -> None:
        # Before the service is ready, that is still to be notified; after STOPPING=1 it is ready no more.
        if self._is_ready and not self._is_stopping:
            self._manager.notify("READY=1")

    async def _keep_beating(self) -> None:
        every_s = min(_BEAT_EVERY_S, self._manager.watchdog_s / 4 or _BEAT_EVERY_S)
        while True:
            self._notify(self._heartbeat.beat())
            await asyncio.sleep(every_s)

    def _notify(self, sample: Sample) -> None:
        reasons, manager = sample.reasons, self._manager
        # This task shows that the event loop runs; a bug in one of the pusher's tasks stops the pusher.
        if "stopped" not in reasons:
            manager.notify_alive()
        if "closed" in reasons:
            self._stopping()
        # READY does not wait for the end of an outage: systemd would kill the worker after TimeoutStartSec.
        elif not self._is_ready and not reasons.keys() & {"not_started", "outbox_unavailable", "stopped"}:
            self._is_ready = manager.notify("READY=1")
        now_s = time.monotonic()
        codes = set(reasons)
        if self._describe is not None and (now_s >= self._next_status_s or codes != self._shown_reasons):
            manager.notify(f"STATUS={' · '.join([*reasons.values(), self._describe()])}")
            self._next_status_s, self._shown_reasons = now_s + _STATUS_EVERY_S, codes

    def _stopping(self) -> None:
        if not self._is_stopping:
            self._is_stopping = True
            self._manager.notify("STOPPING=1")


def _listen(address: ListenAddress, metrics: Metrics) -> MonitoringServer:
    from .server import MonitoringServer  # noqa: PLC0415  # only where it is asked for

    try:
        server = MonitoringServer(address, metrics)
    except (OSError, UnicodeError) as error:
        raise listen_error(address, error, options="--listen") from error
    if not address.is_loopback:
        complain(
            f"warning: {server.address} can be reached from other machines, without encryption or a password: they can "
            "read counts and states; use --listen 127.0.0.1:9464 to serve this machine only"
        )
    complain(f"health and metrics at http://{server.address}: /livez, /readyz and /metrics")
    return server

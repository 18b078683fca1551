"""``printos push --follow``: a pusher that is fed line by line, and what is seen of it meanwhile."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from printos_async._events import CircuitChanged
from printos_async.cli.terminal.output import complain_of_circuit
from printos_async.cli.terminal.pusher_line import PusherLine

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from printos_async._client import PrintOSClient
    from printos_async._delivery.pusher import StatusPusher
    from printos_async._events import Event
    from printos_async._models import StatusPush
    from printos_async.cli.report.counts import Tally


class Follow:
    """Pushes statuses as they come, for as long as they come, and drains.

    Args:
        delivery: The arguments of ``PrintOSClient.status_pusher`` that were given.
        drain_timeout_s: Seconds to drain once the statuses end; None for as long as it takes.
        tally: Where the outcomes are counted, from the client's events.

    Attributes:
        unconfirmed: Devices whose newest status was acknowledged but, after the answer to another one was lost,
            not sent once more: the other one may have landed on it.
    """

    def __init__(self, delivery: Mapping[str, Any], *, drain_timeout_s: float | None, tally: Tally) -> None:
        self._delivery = delivery
        self._drain_timeout_s = drain_timeout_s
        self._tally = tally
        self._pusher: StatusPusher | None = None
        self._waiting_for_room = 0
        self._line = PusherLine()
        self.unconfirmed = 0

    def on_event(self, event: Event) -> None:
        """Count outcomes, and say what an operator should know at once; a hook."""
        self._tally.on_outcome(event)
        if isinstance(event, CircuitChanged):
            complain_of_circuit(event)

    async def run(self, client: PrintOSClient, statuses: AsyncGenerator[StatusPush, None]) -> None:
        """Push until the statuses end, and drain; cancelling gives up what is not sent."""
        pusher = self._pusher = client.status_pusher(**self._delivery)
        try:
            async with aclosing(pusher), aclosing(statuses):
                async for push in statuses:
                    self._waiting_for_room = 1
                    await pusher.put(push.device_id, push.status)
                    self._waiting_for_room = 0
                await pusher.drain(self._drain_timeout_s)
        finally:
            open_devices = self._tally.open_devices - self._waiting_for_room
            self.unconfirmed = pusher.stats().active_devices - open_devices

    def sample(self) -> str:
        """Describe this moment in one line."""
        if self._pusher is None:
            return ""
        return self._line.describe(self._pusher.stats(), retries=self._tally.retries)

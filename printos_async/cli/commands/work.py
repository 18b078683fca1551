"""``printos worker``: one pusher that delivers what is in an outbox, and what is seen of it meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import attrs
from attrs import frozen

from printos_async._delivery.pusher import PusherStats
from printos_async._events import CircuitChanged, RetryScheduled
from printos_async.cli.terminal.log import LibraryWarnings
from printos_async.cli.terminal.output import complain

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping

    from printos_async._delivery.pusher import StatusPusher
    from printos_async._events import Event
    from printos_async.cli.options.worker import WorkerSettings

# Of a worker that has ended nothing is under way any more.
_OF_THIS_MOMENT = frozenset({"pending", "active_devices", "in_flight", "limit"})


@frozen
class WorkState:
    """What one or several workers have done so far.

    Attributes:
        stats: Their pushers' account.
        retries: Requests that were tried again.
    """

    stats: PusherStats
    retries: int = 0

    @classmethod
    def sum_of(cls, states: Iterable[Self]) -> Self:
        """Add up the states of several workers."""
        states = list(states)
        is_open = any(state.stats.circuit == "open" for state in states)
        sums: dict[str, Any] = {
            name: sum(getattr(state.stats, name) for state in states)
            for name in _field_names()
            if name != "circuit"
        }
        return cls(
            PusherStats(**sums, circuit="open" if is_open else "closed"),
            sum(state.retries for state in states),
        )

    def ended(self) -> Self:
        """Give what remains of it when the worker has ended."""
        gone = dict.fromkeys(_OF_THIS_MOMENT, 0)
        return attrs.evolve(self, stats=attrs.evolve(self.stats, **gone, circuit="closed"))

    def to_json(self) -> dict[str, Any]:
        """Give it for another process."""
        return {"stats": attrs.asdict(self.stats), "retries": self.retries}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` gave."""
        return cls(PusherStats(**value["stats"]), value["retries"])


class Work:
    """Delivers what is in an outbox, until told to stop.

    Args:
        settings: What it needs to know.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._pusher: StatusPusher | None = None
        self._retries = 0

    def state(self) -> WorkState:
        """Give what it has done so far."""
        if self._pusher is None:
            return WorkState.sum_of(())
        return WorkState(self._pusher.stats(), self._retries)

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until ``stop`` is set, and then finish what is under way, as long as the settings allow.

        What is not finished by then goes back to the outbox. Cancelling gives back at once.

        Raises:
            ConfigurationError: A setting is out of range.
            OutboxError: The outbox cannot be used.
        """
        settings = self._settings
        async with (
            settings.client.make_client(hooks=[self._on_event]) as client,
            settings.make_pusher(client) as pusher,
        ):
            self._pusher = pusher
            with LibraryWarnings(except_for="CircuitChanged"):
                await _first_of(stop.wait(), pusher.wait_ended())
                await pusher.drain(settings.drain_timeout_s)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, RetryScheduled):
            self._retries += 1
        elif isinstance(event, CircuitChanged):
            complain(
                "the server seems down; it is asked once a second until it answers"
                if event.circuit == "open"
                else "the server is back"
            )


async def _first_of(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait for the first of them to end, and raise what it raises."""
    tasks = {asyncio.create_task(wait) for wait in waits}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    for task in done:
        task.result()


def _field_names() -> list[str]:
    return [attribute.name for attribute in attrs.fields(PusherStats)]

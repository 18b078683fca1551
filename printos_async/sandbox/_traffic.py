"""How many requests the server saw at once: in all, per device, and logins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._exchange import Exchange

if TYPE_CHECKING:
    from starlette.types import Receive, Send

    from ._clock import ServerClock
    from ._exchange import Connection
    from ._records import RecordedRequest
    from ._state import State


class Traffic:
    """The exchanges in flight, and the most that there ever were."""

    def __init__(self, state: State, clock: ServerClock) -> None:
        self._state = state
        self._clock = clock
        self._in_flight: set[Exchange] = set()
        self._by_device: dict[str, list[Exchange]] = {}
        self.max_concurrency = 0
        self.logins_in_flight = 0
        self.max_logins_in_flight = 0
        self.max_in_flight_by_device: dict[str, int] = {}

    @property
    def in_flight(self) -> int:
        """Requests in flight now."""
        return len(self._in_flight)

    @property
    def in_flight_by_device(self) -> dict[str, int]:
        """Status updates in flight now, of the devices that have any."""
        return {device_id: len(exchanges) for device_id, exchanges in self._by_device.items()}

    def arrive(
        self, record: RecordedRequest, *, connection: Connection | None, receive: Receive, send: Send
    ) -> Exchange:
        """Count a request that has just arrived."""
        exchange = Exchange(record, connection=connection, receive=receive, send=send, clock=self._clock)
        if connection is not None:
            connection.on_lost = lambda: self.depart(exchange)
        self._in_flight.add(exchange)
        self.max_concurrency = max(self.max_concurrency, len(self._in_flight))
        if record.device_id is not None:
            self._arrive_at(record.device_id, exchange)
        elif record.operation == "login":
            self.logins_in_flight += 1
            self.max_logins_in_flight = max(self.max_logins_in_flight, self.logins_in_flight)
        self._state.changed()
        return exchange

    def _arrive_at(self, device_id: str, exchange: Exchange) -> None:
        others = self._by_device.get(device_id)
        if others is None:
            self._by_device[device_id] = [exchange]
            self.max_in_flight_by_device.setdefault(device_id, 1)
            return
        # A client that gave up and tried again has one request in flight, although this server may read the
        # new request before the end of the old connection.
        for other in list(others):
            if other.connection is not None and other.connection.peer_has_left():
                self.depart(other)
        others = self._by_device.setdefault(device_id, [])
        others.append(exchange)
        self.max_in_flight_by_device[device_id] = max(self.max_in_flight_by_device[device_id], len(others))

    def depart(self, exchange: Exchange) -> None:
        """Take a request out of the count; a second time does nothing."""
        if exchange not in self._in_flight:
            return
        self._in_flight.remove(exchange)
        if exchange.connection is not None:
            exchange.connection.on_lost = None
        device_id = exchange.record.device_id
        if device_id is not None:
            exchanges = self._by_device[device_id]
            exchanges.remove(exchange)
            if not exchanges:
                del self._by_device[device_id]
        elif exchange.record.operation == "login":
            self.logins_in_flight -= 1
        self._state.changed()

    def reset(self) -> None:
        """Forget the maxima."""
        self.max_concurrency = len(self._in_flight)
        self.max_logins_in_flight = self.logins_in_flight
        self.max_in_flight_by_device = self.in_flight_by_device

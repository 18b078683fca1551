"""How many requests the server saw at once: in all, per device, and logins."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._exchange import Exchange


class Traffic:
    """The exchanges in flight, and the most that there ever were."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
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

    def arrive(self, exchange: Exchange) -> None:
        """Count a request that has just arrived."""
        record = exchange.record
        if exchange.connection is not None:
            exchange.connection.on_lost = lambda: self.depart(exchange)
        self._in_flight.add(exchange)
        self.max_concurrency = max(self.max_concurrency, len(self._in_flight))
        if record.device_id is not None:
            self._arrive_at(record.device_id, exchange)
        elif record.operation == "login":
            self.logins_in_flight += 1
            self.max_logins_in_flight = max(self.max_logins_in_flight, self.logins_in_flight)
        self._on_change()

    def _arrive_at(self, device_id: str, exchange: Exchange) -> None:
        # A client that gave up and tried again has one request in flight, although this server may read the
        # new request before the end of the old connection.
        for other in list(self._by_device.get(device_id, ())):
            if other.connection is not None and other.connection.peer_has_left():
                self.depart(other)
        exchanges = self._by_device.setdefault(device_id, [])
        exchanges.append(exchange)
        most = self.max_in_flight_by_device.get(device_id, 0)
        self.max_in_flight_by_device[device_id] = max(most, len(exchanges))

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
        self._on_change()

    def reset(self) -> None:
        """Forget the maxima."""
        self.max_concurrency = len(self._in_flight)
        self.max_logins_in_flight = self.logins_in_flight
        self.max_in_flight_by_device = self.in_flight_by_device

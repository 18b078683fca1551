"""One request on its way with the ways in which it can end, and how many the server saw at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from . import _answers

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Send

    from ._answers import Answer, RefusedError, ServerClock
    from ._records import RecordedRequest
    from ._server import Connection

MAX_BODY_BYTES = 1024 * 1024


@define(eq=False)
class Exchange:
    """A request and its connection; the connection is None under another server than the sandbox's."""

    record: RecordedRequest
    connection: Connection | None
    _receive: Receive
    _send: Send
    _clock: ServerClock

    def client_has_left(self) -> bool:
        """Return whether nobody waits for the answer any more; never true without a connection."""
        return self.connection is not None and self.connection.is_closing()

    async def read(self) -> bytes | None:
        """Read the body, of a long one enough to see that; None if the client left before its end."""
        chunks = bytearray()
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return None
            if len(chunks) <= MAX_BODY_BYTES:
                chunks += message.get("body", b"")
            if not message.get("more_body", False):
                return bytes(chunks)

    async def respond(self, answer: Answer) -> None:
        """Answer."""
        if not self.client_has_left():
            self.record.status = answer.status
        headers = [*self._clock.date(), *answer.headers, (b"content-length", b"%d" % len(answer.body))]
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": answer.body})

    def error(self, refused: RefusedError) -> Answer:
        """Return the answer of a refused request."""
        return _answers.error(refused, request_id=self.record.sequence)

    async def reset(self) -> None:
        """Reset the connection instead of an answer.

        Raises:
            ConnectionResetError: There is no connection to reset.
        """
        if self.connection is None:
            raise ConnectionResetError("the sandbox resets this connection")
        self.connection.reset()
        await self.hang()

    async def cut_off(self, answer: Answer) -> None:
        """Announce more bytes than come, and close.

        Raises:
            ConnectionResetError: There is no connection to close.
        """
        if self.connection is None:
            raise ConnectionResetError("the sandbox cuts this answer off")
        self.connection.write_and_close(_answers.cut_off(answer, self._clock.date()))
        await self.hang()

    async def hang(self) -> None:
        """Return once the connection is gone."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


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

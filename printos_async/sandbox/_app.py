"""The specification's operations over the state, with the faults that the plan asks for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from . import _answers, _schema
from ._auth import TOKEN_HEADER
from ._faults import pick

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from ._answers import Answer
    from ._auth import Gatekeeper
    from ._faults import Fate, FaultPlan, Operation
    from ._state import State
    from ._traffic import Connection, Exchange, Traffic

MAX_BODY_BYTES = 1024 * 1024
CONNECTION_EXTENSION = "printos.sandbox.connection"
ROUTE_DEVICES = "/devices"
ROUTE_STATUS = "/devices/{deviceId}/status"
ROUTE_UNKNOWN = "(unknown)"

_OPERATIONS: dict[str, dict[str, Operation]] = {
    ROUTE_DEVICES: {"GET": "listDevices", "POST": "provisionDevice"},
    ROUTE_STATUS: {"PUT": "updateDeviceStatus"},
    ROUTE_UNKNOWN: {},
}


class Gates:
    """Hold status updates back until a test lets them go."""

    def __init__(self) -> None:
        self._gates: dict[str | None, asyncio.Event] = {}

    def close(self, device_id: str | None) -> None:
        """Hold the updates of one device, or of all."""
        self._gates.setdefault(device_id, asyncio.Event())

    def open(self, device_id: str | None) -> None:
        """Let go the updates of one device, or every update that is held."""
        for key in [device_id] if device_id is not None else list(self._gates):
            gate = self._gates.pop(key, None)
            if gate is not None:
                gate.set()

    async def pass_through(self, device_id: str | None) -> None:
        """Return once neither the device's gate nor the common one is closed."""
        while self._gates:
            gate = self._gates.get(device_id) or self._gates.get(None)
            if gate is None:
                return
            await gate.wait()


class Api:
    """The ASGI application behind ``Sandbox.app``."""

    def __init__(
        self, *, state: State, traffic: Traffic, gatekeeper: Gatekeeper, plan: FaultPlan, login_path: str
    ) -> None:
        self.state = state
        self.traffic = traffic
        self.gatekeeper = gatekeeper
        self.plan = plan
        self.gates = Gates()
        self.login_path = login_path
        self.logins_count = 0
        self._operations = {**_OPERATIONS, login_path: {"POST": "login"}}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        method: str = scope["method"]
        raw_path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
        raw_path = raw_path.partition(b"?")[0]
        route, device_id = self._route(raw_path)
        operation = self._operations[route].get(method)
        connection: Connection | None = scope.get("extensions", {}).get(CONNECTION_EXTENSION)
        exchange = self.traffic.arrive(
            method,
            raw_path.decode("latin-1"),
            operation,
            device_id if operation == "updateDeviceStatus" else None,
            scope["headers"],
            connection,
        )
        try:
            body = await _read(receive)
            if body is not None:
                await self._serve(exchange, route, raw_path, body, receive, send)
        except asyncio.CancelledError:
            # The server stops: it has closed the connection, and what still waited here ends without a word.
            if not exchange.client_has_left():
                raise
        finally:
            self.state.request_counts[method, route, exchange.record.status or 0] += 1
            self.traffic.depart(exchange)

    def _route(self, raw_path: bytes) -> tuple[str, str | None]:
        # By the path as sent: an encoded slash belongs to the identifier.
        match raw_path.split(b"/"):
            case [b"", b"devices"]:
                return ROUTE_DEVICES, None
            case [b"", b"devices", device_id, b"status"] if device_id:
                return ROUTE_STATUS, unquote(device_id.decode("latin-1"))
        if raw_path == self.login_path.encode():
            return self.login_path, None
        return ROUTE_UNKNOWN, None

    async def _serve(
        self, exchange: Exchange, route: str, raw_path: bytes, body: bytes, receive: Receive, send: Send
    ) -> None:
        record = exchange.record
        if record.operation is None:
            await self._send(exchange, self._no_such_operation(exchange, route), send)
            return
        fate = self.plan.next(record.operation, record.device_id, raw_path, body)
        record.fault = fate.kind
        if record.operation == "updateDeviceStatus":
            await self.gates.pass_through(record.device_id)
        if fate.latency_s:
            await asyncio.sleep(fate.latency_s)
        if fate.kind is None:
            await self._send(exchange, self._answer(exchange, raw_path, body, fate), send)
        else:
            await self._serve_faulty(exchange, raw_path, body, fate, receive, send)

    async def _serve_faulty(
        self, exchange: Exchange, raw_path: bytes, body: bytes, fate: Fate, receive: Receive, send: Send
    ) -> None:
        faults = self.plan.faults
        number = exchange.record.sequence
        match fate.kind:
            case "rate_limited":
                headers = (
                    ((b"retry-after", faults.retry_after.encode("latin-1")),) if faults.retry_after else ()
                )
                answer = _answers.error(429, "too many requests", request_id=number, headers=headers)
                await self._send(exchange, answer, send)
                return
            case "server_error":
                status = pick(faults.server_error_statuses, fate.choice)
                await self._send(exchange, _answers.error(status, "out of order", request_id=number), send)
                return
            case "reset_before":
                await self._reset(exchange, receive)
                return
            case "hang_before":
                await _until_disconnect(receive)
                return
        answer = self._answer(exchange, raw_path, body, fate)
        match fate.kind:
            case "reset_after":
                await self._reset(exchange, receive)
            case "hang_after":
                await _until_disconnect(receive)
            case "truncated":
                await self._cut_off(exchange, answer, receive)
            case "malformed" if answer.status < 300:
                kind = pick(faults.malformed_kinds, fate.choice)
                await self._send(exchange, _answers.malformed(kind, answer), send)
            case "late_write" if answer.status < 300:
                await self._answer_of_late_write(exchange, fate, receive, send)
            case _:
                # A body cannot be spoilt, nor a write delayed, where the request was refused.
                exchange.record.fault = None
                await self._send(exchange, answer, send)

    async def _answer_of_late_write(
        self, exchange: Exchange, fate: Fate, receive: Receive, send: Send
    ) -> None:
        match pick(self.plan.faults.late_write_answers, fate.choice):
            case "504":
                answer = _answers.error(504, "upstream timed out", request_id=exchange.record.sequence)
                await self._send(exchange, answer, send)
            case "reset":
                await self._reset(exchange, receive)
            case "hang":
                await _until_disconnect(receive)

    async def _send(self, exchange: Exchange, answer: Answer, send: Send) -> None:
        if not exchange.client_has_left():
            exchange.record.status = answer.status
        headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _reset(self, exchange: Exchange, receive: Receive) -> None:
        if exchange.connection is None:
            raise ConnectionResetError("the sandbox resets this connection")
        exchange.connection.reset()
        await _until_disconnect(receive)

    async def _cut_off(self, exchange: Exchange, answer: Answer, receive: Receive) -> None:
        if exchange.connection is None:
            raise ConnectionResetError("the sandbox cuts this answer off")
        exchange.connection.write_and_close(_answers.cut_off(answer))
        await _until_disconnect(receive)

    def _no_such_operation(self, exchange: Exchange, route: str) -> Answer:
        number = exchange.record.sequence
        allowed = self._operations[route]
        if not allowed:
            return _answers.error(404, "no such path", request_id=number)
        headers = ((b"allow", ", ".join(allowed).encode()),)
        return _answers.error(405, "method not allowed", request_id=number, headers=headers)

    def _answer(self, exchange: Exchange, raw_path: bytes, body: bytes, fate: Fate) -> Answer:
        record = exchange.record
        if record.operation != "login":
            refusal = self.gatekeeper.refuse(record.method, raw_path, record.headers)
            if refusal is not None:
                return _answers.error(401, refusal, request_id=record.sequence)
        if record.operation == "listDevices":
            return _answers.json_answer(200, {"devices": [d.to_json() for d in self.state.devices.values()]})
        if len(body) > MAX_BODY_BYTES:
            return _answers.error(413, "the body is larger than 1 MiB", request_id=record.sequence)
        media_type = dict(record.headers).get(b"content-type", b"").partition(b";")[0].strip().lower()
        if media_type != b"application/json":
            return _answers.error(415, "content-type is not application/json", request_id=record.sequence)
        try:
            match record.operation:
                case "provisionDevice":
                    return self._provision(body)
                case "login":
                    return self._login(exchange, body)
                case _:
                    return self._update(exchange, body, fate)
        except _schema.BadBodyError as bad:
            return _answers.error(400, str(bad), request_id=record.sequence)

    def _provision(self, body: bytes) -> Answer:
        request = _schema.provision_request(body)
        device = self.state.provision(
            request.get("model"), request.get("serialNumber"), request.get("location")
        )
        return _answers.json_answer(201, device.to_json())

    def _update(self, exchange: Exchange, body: bytes, fate: Fate) -> Answer:
        device_id = exchange.record.device_id
        status = _schema.status_update(body)
        if device_id is None or device_id not in self.state.devices:
            return _answers.error(404, "no such device", request_id=exchange.record.sequence)
        if fate.kind == "late_write":
            self.state.apply_later(device_id, status, delay_s=fate.late_by_s)
        else:
            self.state.apply(device_id, status, late=exchange.client_has_left())
        return _answers.NO_CONTENT_200

    def _login(self, exchange: Exchange, body: bytes) -> Answer:
        self.logins_count += 1
        token = self.gatekeeper.login(*_schema.credentials(body))
        if token is None:
            return _answers.error(401, "wrong login or password", request_id=exchange.record.sequence)
        cookie = (b"set-cookie", f"{TOKEN_HEADER}={token}; Path=/; HttpOnly".encode())
        return _answers.json_answer(200, {"authToken": token}, headers=(cookie,))


async def _read(receive: Receive) -> bytes | None:
    """Read the request's body; None if the client left before its end. One byte too many is kept, not more."""
    chunks = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        if len(chunks) <= MAX_BODY_BYTES:
            chunks += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(chunks)


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

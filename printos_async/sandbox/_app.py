"""The ASGI application: each request meets its fate on the way to its operation, or on the way back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import quote

from attrs import define

from ._answers import EMPTY_200, RefusedError, malformed
from ._exchange import Exchange, Traffic
from ._plan import pick

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from ._answers import Answer, ServerClock
    from ._auth import Gatekeeper
    from ._faults import FaultKind, LateAnswer
    from ._operations import Operations
    from ._plan import Fate, FaultPlan
    from ._server import Connection
    from ._state import State

CONNECTION_EXTENSION = "printos.sandbox.connection"
_BEFORE_THE_WRITE = frozenset({"rate_limited", "server_error", "reset_before", "hang_before"})


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


@define(eq=False)
class Api:
    """What ``Sandbox.app`` mounts."""

    _state: State
    _traffic: Traffic
    _operations: Operations
    _plan: FaultPlan
    _gates: Gates
    _gatekeeper: Gatekeeper
    _clock: ServerClock
    _record_headers: bool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        raw_path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
        path = raw_path.decode("latin-1").partition("?")[0]
        route, operation, device_id = self._operations.find(scope["method"], path)
        connection: Connection | None = (scope.get("extensions") or {}).get(CONNECTION_EXTENSION)
        record = self._state.new_request(
            scope["method"], path, operation=operation, device_id=device_id, headers=scope["headers"]
        )
        exchange = Exchange(record, connection, receive, send, self._clock)
        self._traffic.arrive(exchange)
        try:
            body = await exchange.read()
            if body is None:
                return
            if operation is None:
                await exchange.respond(exchange.error(self._operations.refusal(record, route)))
                return
            fate = self._plan.next(operation, device_id, path, body)
            record.fault = fate.kind
            await self._serve(exchange, body, fate)
        except asyncio.CancelledError:
            # The server stops: it has closed the connection, and what still waited here ends without a word.
            if not exchange.client_has_left():
                raise
        finally:
            self._state.request_counts[record.method, route, record.status or 0] += 1
            if not self._record_headers:
                # They would be most of the record's memory.
                record.headers = []
            self._traffic.depart(exchange)

    async def _serve(self, exchange: Exchange, body: bytes, fate: Fate) -> None:
        record = exchange.record
        if record.operation == "updateDeviceStatus":
            await self._gates.pass_through(record.device_id)
        if fate.latency_s:
            await asyncio.sleep(fate.latency_s)
        answer = self._answer(exchange, body, fate)
        end: FaultKind | LateAnswer | None = fate.kind
        if end in {"malformed", "late_write"} and not answer.is_success:
            # A body cannot be spoilt, nor a write delayed, where the request was refused.
            end = record.fault = None
        elif end == "late_write":
            end = pick(self._plan.faults.late_write_answers, fate.choice)
        match end:
            case "reset_before" | "reset_after" | "reset":
                await exchange.reset()
            case "hang_before" | "hang_after" | "hang":
                await exchange.hang()
            case "truncated":
                await exchange.cut_off(answer)
            case "malformed":
                kind = pick(self._plan.faults.malformed_kinds, fate.choice)
                await exchange.respond(malformed(kind, answer))
            case "504":
                await exchange.respond(exchange.error(RefusedError(504, "upstream timed out")))
            case _:
                await exchange.respond(answer)

    def _answer(self, exchange: Exchange, body: bytes, fate: Fate) -> Answer:
        """Serve a request, unless a fault leaves nothing written."""
        record, faults = exchange.record, self._plan.faults
        if fate.kind in _BEFORE_THE_WRITE:
            self._gatekeeper.see(record)
        match fate.kind:
            case "rate_limited":
                value = faults.retry_after.encode("latin-1")
                headers = ((b"retry-after", value),) if value else ()
                return exchange.error(RefusedError(429, "too many requests", headers=headers))
            case "server_error":
                status = pick(faults.server_error_statuses, fate.choice)
                return exchange.error(RefusedError(status, "out of order"))
            case "reset_before" | "hang_before":
                return EMPTY_200  # never sent
        try:
            return self._operations.serve(
                record,
                body,
                write_late_by_s=fate.late_by_s if fate.kind == "late_write" else None,
                is_late=exchange.client_has_left(),
            )
        except RefusedError as refused:
            return exchange.error(refused)

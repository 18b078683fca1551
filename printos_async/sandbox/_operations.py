"""The specification's operations, and the login: a request in, an answer out, nothing of faults."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from . import _answers
from ._auth import TOKEN_HEADER
from ._exchange import MAX_BODY_BYTES
from ._schema import BadBodyError, credentials

if TYPE_CHECKING:
    from collections.abc import Iterable

    from printos_async._api.generated_operations import GeneratedOperation

    from ._answers import Answer
    from ._auth import Gatekeeper
    from ._faults import Operation
    from ._records import RecordedRequest
    from ._schema import Schema
    from ._state import State

ROUTE_DEVICES = "/devices"
ROUTE_STATUS = "/devices/{deviceId}/status"
ROUTE_UNKNOWN = "(unknown)"
SERVED: dict[Operation, tuple[str, str]] = {
    "listDevices": ("GET", ROUTE_DEVICES),
    "provisionDevice": ("POST", ROUTE_DEVICES),
    "updateDeviceStatus": ("PUT", ROUTE_STATUS),
}


def unserved_operations(specified: Iterable[GeneratedOperation]) -> list[GeneratedOperation]:
    """Return those of the specification's operations that the sandbox does not serve."""
    served = {(method, _without_names(route)) for method, route in SERVED.values()}
    return [
        operation
        for operation in specified
        if (operation.method, _without_names(operation.route)) not in served
    ]


class Operations:
    """Routes and serves requests."""

    def __init__(self, *, state: State, gatekeeper: Gatekeeper, login_path: str, schema: Schema) -> None:
        self._state = state
        self._gatekeeper = gatekeeper
        self._login_path = login_path
        self._schema = schema
        self._by_route: dict[str, dict[str, Operation]] = {ROUTE_UNKNOWN: {}, login_path: {"POST": "login"}}
        for operation, (method, route) in SERVED.items():
            self._by_route.setdefault(route, {})[method] = operation
        unserved = unserved_operations(schema.operations)
        self._unserved = [(operation, operation.path_pattern) for operation in unserved]
        self.logins_count = 0

    def find(self, method: str, path: str) -> tuple[str, Operation | None, str | None]:
        """Return the route, the operation and the device of a path as it was sent."""
        # Not the decoded path: an encoded slash belongs to the identifier.
        match path.split("/"):
            case ["", "devices"]:
                route, device_id = ROUTE_DEVICES, None
            case ["", "devices", segment, "status"] if segment:
                route, device_id = ROUTE_STATUS, unquote(segment)
            case _:
                route, device_id = (self._login_path if path == self._login_path else ROUTE_UNKNOWN), None
        operation = self._by_route[route].get(method)
        if operation is None and (unserved := self._find_unserved(method, path)) is not None:
            route = unserved.route
        return route, operation, device_id if operation == "updateDeviceStatus" else None

    def _find_unserved(self, method: str, path: str) -> GeneratedOperation | None:
        for operation, pattern in self._unserved:
            if operation.method == method and pattern.fullmatch(path):
                return operation
        return None

    def refuse(self, request: RecordedRequest, route: str) -> Answer:
        """Answer a request that no operation serves."""
        if (unserved := self._find_unserved(request.method, request.path)) is not None:
            reason = (
                f"the sandbox does not serve {unserved.operation_id} ({unserved.method} {unserved.route})"
            )
            return _answers.error(501, reason, request_id=request.sequence)
        allowed = self._by_route[route]
        if not allowed:
            return _answers.error(404, "no such path", request_id=request.sequence)
        headers = ((b"allow", ", ".join(allowed).encode()),)
        return _answers.error(405, "method not allowed", request_id=request.sequence, headers=headers)

    def serve(
        self, request: RecordedRequest, body: bytes, *, write_late_by_s: float | None, is_late: bool
    ) -> Answer:
        """Do what is asked for and give the answer.

        Args:
            request: The request; its ``operation`` is not None.
            body: Its body.
            write_late_by_s: Seconds after which a status is to be written, None for now.
            is_late: Whether the client has left already.
        """
        refusal = self._refuse_credentials(request) or _refuse_content(request, body)
        if refusal is not None:
            return refusal
        try:
            if request.operation == "listDevices":
                return self._list()
            if request.operation == "provisionDevice":
                return self._provision(body)
            if request.operation == "login":
                return self._login(request, body)
            return self._update(request, body, write_late_by_s=write_late_by_s, is_late=is_late)
        except BadBodyError as bad:
            return _answers.error(400, str(bad), request_id=request.sequence)

    def see_credentials(self, request: RecordedRequest) -> None:
        """Take note of the credentials of a request that a fault has ended before it was served."""
        self._gatekeeper.see(request)

    def _refuse_credentials(self, request: RecordedRequest) -> Answer | None:
        if request.operation == "login":
            return None
        refusal = self._gatekeeper.refuse(request)
        if refusal is None:
            return None
        return _answers.error(refusal.status, refusal.message, request_id=request.sequence)

    def _list(self) -> Answer:
        return _answers.json_answer(200, self._schema.list_to_json(self._state.devices.values()))

    def _provision(self, body: bytes) -> Answer:
        device = self._state.provision(self._schema.read_provision_request(body))
        return _answers.json_answer(201, self._schema.device_to_json(device))

    def _update(
        self, request: RecordedRequest, body: bytes, *, write_late_by_s: float | None, is_late: bool
    ) -> Answer:
        status = self._schema.read_status(body)
        device_id = request.device_id
        if device_id is None or device_id not in self._state.devices:
            return _answers.error(404, "no such device", request_id=request.sequence)
        if write_late_by_s is None:
            self._state.apply(device_id, status, late=is_late)
        else:
            self._state.apply_later(device_id, status, delay_s=write_late_by_s)
        return _answers.EMPTY_200

    def _login(self, request: RecordedRequest, body: bytes) -> Answer:
        self.logins_count += 1
        token = self._gatekeeper.login(*credentials(body))
        if token is None:
            return _answers.error(401, "wrong login or password", request_id=request.sequence)
        cookie = (b"set-cookie", f"{TOKEN_HEADER}={token}; Path=/; HttpOnly".encode())
        return _answers.json_answer(200, {"authToken": token}, headers=(cookie,))


def _without_names(route: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", route)


def _refuse_content(request: RecordedRequest, body: bytes) -> Answer | None:
    if request.operation == "listDevices":
        return None
    if len(body) > MAX_BODY_BYTES:
        return _answers.error(413, "the body is larger than 1 MiB", request_id=request.sequence)
    media_type = dict(request.headers).get(b"content-type", b"").partition(b";")[0].strip().lower()
    if media_type != b"application/json":
        return _answers.error(415, "content-type is not application/json", request_id=request.sequence)
    return None

"""The specification's operations, and the login: a request in, an answer out, nothing of faults."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from ._answers import EMPTY_200, RefusedError, json_answer
from ._auth import TOKEN_HEADER
from ._exchange import MAX_BODY_BYTES
from ._schema import credentials, read_body

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

    def __init__(self, state: State, gatekeeper: Gatekeeper, login_path: str, schema: Schema) -> None:
        self._state = state
        self._gatekeeper = gatekeeper
        self._login_path = login_path
        self._schema = schema
        self._by_route: dict[str, dict[str, Operation]] = {ROUTE_UNKNOWN: {}, login_path: {"POST": "login"}}
        for operation, (method, route) in SERVED.items():
            self._by_route.setdefault(route, {})[method] = operation
        unserved = unserved_operations(schema.operations)
        self._unserved = [(operation, operation.path_pattern) for operation in unserved]

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

    def refusal(self, request: RecordedRequest, route: str) -> RefusedError:
        """Return the error of a request that no operation serves."""
        if (unserved := self._find_unserved(request.method, request.path)) is not None:
            return RefusedError(
                501,
                f"the sandbox does not serve {unserved.operation_id} ({unserved.method} {unserved.route})",
            )
        allowed = self._by_route[route]
        if not allowed:
            return RefusedError(404, "no such path")
        return RefusedError(405, "method not allowed", headers=((b"allow", ", ".join(allowed).encode()),))

    def serve(
        self, request: RecordedRequest, body: bytes, *, write_late_by_s: float | None, is_late: bool
    ) -> Answer:
        """Do what is asked for and give the answer.

        Args:
            request: The request; its ``operation`` is not None.
            body: Its body.
            write_late_by_s: Seconds after which a status is to be written, None for now.
            is_late: Whether the client has left already.

        Raises:
            RefusedError: The credentials, the device or the body are not accepted.
        """
        if request.operation != "login":
            self._gatekeeper.check(request)
        if request.operation == "listDevices":
            return json_answer(200, self._schema.list_to_json(self._state.devices.values()))
        _check_content(request, body)
        if request.operation == "provisionDevice":
            device = self._state.provision(read_body(self._schema.provision_request, body))
            return json_answer(201, self._schema.device_to_json(device))
        if request.operation == "login":
            token = self._gatekeeper.login(*credentials(body))
            cookie = (b"set-cookie", f"{TOKEN_HEADER}={token}; Path=/; HttpOnly".encode())
            return json_answer(200, {"authToken": token}, headers=(cookie,))
        status = read_body(self._schema.status_update, body)
        device_id = request.device_id
        if device_id is None or device_id not in self._state.devices:
            raise RefusedError(404, "no such device")
        if write_late_by_s is None:
            self._state.apply(device_id, status, late=is_late)
        else:
            self._state.apply_later(device_id, status, delay_s=write_late_by_s)
        return EMPTY_200


def _without_names(route: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", route)


def _check_content(request: RecordedRequest, body: bytes) -> None:
    if len(body) > MAX_BODY_BYTES:
        raise RefusedError(413, "the body is larger than 1 MiB")
    media_type = dict(request.headers).get(b"content-type", b"").partition(b";")[0].strip().lower()
    if media_type != b"application/json":
        raise RefusedError(415, "content-type is not application/json")

"""From a call to what all calls of its operation have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from printos_async._events import Endpoint

if TYPE_CHECKING:
    from printos_async._transport import Origin

    from .validation import Call

_DEVICE_ID = "{deviceId}"
# The generated endpoints have their paths filled in only; a test holds these against the specification.
ROUTES = {
    "listDevices": "/devices",
    "provisionDevice": "/devices",
    "updateDeviceStatus": f"/devices/{_DEVICE_ID}/status",
}


def make_endpoint(call: Call, origin: Origin) -> Endpoint:
    """Give the endpoint that a call goes to, with the device's identifier taken out of its path."""
    route = ROUTES[call.operation]
    base_path = call.path.removesuffix(device_path(route, call.device_id))
    return Endpoint(call.method, base_path + route, origin.scheme, origin.host, origin.port)


def device_path(route: str, device_id: str | None) -> str:
    """Give a route's path for one device, percent-encoded."""
    return route if device_id is None else route.replace(_DEVICE_ID, quote(device_id, safe=""))

"""Requests: the specification's operations as calls, checked before anything is sent."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
from attrs import define

from printos_async._errors import ConfigurationError
from printos_async._events import Endpoint

from .generated_client import GENERATED_CLIENT
from .validation import check_device_id, check_provision_request, check_status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from printos_async._models import DeviceId, DeviceProvisionRequest, DeviceStatusUpdate
    from printos_async._transport import Origin

    from .generated_client import GeneratedClient

_DEVICE_ID = "{deviceId}"
# The generated endpoints have their paths filled in only; a test compares these with the specification.
ROUTES = {
    "listDevices": "/devices",
    "provisionDevice": "/devices",
    "updateDeviceStatus": f"/devices/{_DEVICE_ID}/status",
}
_USER_AGENT = f"printos-async/{version('printos-async')} Python/{platform.python_version()}"
_HEADERS: tuple[tuple[str, str], ...] = (
    ("user-agent", _USER_AGENT),
    ("accept", "application/json"),
    ("accept-encoding", "gzip, deflate"),
)
# Shared, because many calls wait at once, and the garbage collector looks at each tuple.
_JSON_HEADERS = (*_HEADERS, ("content-type", "application/json"))
_KNOWN_KWARGS = frozenset({"method", "url", "headers", "json", "params"})


def make_json_encode(make_c_encoder: Callable[..., Any] | None) -> Callable[[Any], str]:
    """Return a function that encodes as ``json.JSONEncoder.encode`` does.

    ``encode`` makes a C encoder for each value; this function makes one for all. The C encoder is not documented: if it
    is missing, or takes other arguments, the function is ``encode``.
    """
    # What is encoded has been checked, and a cycle is nested too deeply to pass the checks.
    encoder = json.JSONEncoder(allow_nan=False, check_circular=False, separators=(",", ":"))
    try:
        encode = make_c_encoder(  # type: ignore[misc]  # None is not callable either
            None,
            encoder.default,
            encode_basestring_ascii,
            encoder.indent,
            encoder.key_separator,
            encoder.item_separator,
            encoder.sort_keys,
            encoder.skipkeys,
            encoder.allow_nan,
        )
    except TypeError:
        return encoder.encode
    return lambda value: "".join(encode(value, 0))


_to_json = make_json_encode(getattr(json.encoder, "c_make_encoder", None))


@define(eq=False)
class Call:
    """One operation, ready to be signed and sent, as often as needed.

    Attributes:
        operation: The specification's ``operationId``.
        method: In capitals.
        path: Percent-encoded, with the base URL's own path in front; this is what is signed.
        query: Percent-encoded, without the question mark.
        headers: Names in lower case, without credentials.
        body: The JSON as bytes.
        device_id: The device, for a status.
    """

    operation: str
    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    device_id: str | None = None

    @property
    def replayable(self) -> bool:
        """Whether applying it twice has the same effect as once: PUT replaces, POST makes a device."""
        return self.method != "POST"


class Operations:
    """The operations of one base URL, as calls.

    Args:
        base_path: The base URL's own path, percent-encoded, without a slash at the end.
        generated: Describes the requests.
    """

    def __init__(self, base_path: str, generated: GeneratedClient = GENERATED_CLIENT) -> None:
        self._base_path = base_path
        self._generated = generated

    def list_devices(self, page_token: str | None = None) -> Call:
        """``GET /devices``; a token asks for the page that it was given for.

        Raises:
            ConfigurationError: The generated client requires an argument that is not passed.
        """
        pages = self._generated.pages
        page = {} if page_token is None or pages is None else {pages.parameter: page_token}
        try:
            kwargs = self._generated.list_devices(**page)
        except TypeError as error:
            raise _not_built("listDevices", error) from error
        return self._build_call("listDevices", kwargs)

    def provision_device(self, request: DeviceProvisionRequest) -> Call:
        """``POST /devices``.

        Raises:
            InvalidProvisionRequestError: The request cannot be sent as given.
        """
        check_provision_request(request)
        try:
            kwargs = self._generated.provision_device(body=request)
        except TypeError as error:
            raise _not_built("provisionDevice", error) from error
        return self._build_call("provisionDevice", kwargs)

    def update_device_status(self, device_id: DeviceId, status: DeviceStatusUpdate) -> Call:
        """``PUT /devices/{deviceId}/status``.

        Raises:
            InvalidDeviceIdError: The identifier would change the path.
            InvalidStatusError: The status cannot be sent as given.
        """
        checked_id = check_device_id(device_id)
        check_status(status)
        try:
            kwargs = self._generated.update_device_status(checked_id, body=status)
        except TypeError as error:
            raise _not_built("updateDeviceStatus", error) from error
        return self._build_call("updateDeviceStatus", kwargs, checked_id)

    def stored_status(self, device_id: str, body: bytes) -> Call:
        """``PUT /devices/{deviceId}/status`` with the body of an earlier call of ``update_device_status``.

        Raises:
            InvalidDeviceIdError: The identifier would change the path.
        """
        path = self._base_path + device_path(ROUTES["updateDeviceStatus"], check_device_id(device_id))
        return Call("updateDeviceStatus", "PUT", path, "", _JSON_HEADERS, body, device_id)

    def _build_call(self, operation: str, kwargs: Mapping[str, Any], device_id: str | None = None) -> Call:
        """Return the call that a generated endpoint's request arguments describe."""
        if not _KNOWN_KWARGS.issuperset(kwargs):
            unknown = ", ".join(sorted(kwargs.keys() - _KNOWN_KWARGS))
            raise ConfigurationError(
                f"the generated client sends {operation} with {unknown}, which printos_async does not know how to send"
            )
        body, headers = b"", _HEADERS
        if "json" in kwargs:
            body = _to_json(kwargs["json"]).encode("ascii")
            headers = _JSON_HEADERS
        for name, value in kwargs.get("headers", {}).items():
            if name != "Content-Type":
                headers = (*headers, (name.lower(), str(value)))
        query = str(httpx.QueryParams(kwargs["params"])) if kwargs.get("params") else ""
        path = self._base_path + kwargs["url"]
        return Call(operation, kwargs["method"].upper(), path, query, headers, body, device_id)


def _not_built(operation: str, error: TypeError) -> ConfigurationError:
    return ConfigurationError(
        f"the generated client cannot build {operation} from what printos_async passes ({error}); "
        "./codegen.sh --findings says what to change"
    )


def make_endpoint(call: Call, origin: Origin) -> Endpoint:
    """Return the endpoint of a call: its path has a placeholder for the device's identifier."""
    route = ROUTES[call.operation]
    base_path = call.path.removesuffix(device_path(route, call.device_id))
    return Endpoint(call.method, base_path + route, origin.scheme, origin.host, origin.port)


def device_path(route: str, device_id: str | None) -> str:
    """Return a route's path for one device, percent-encoded."""
    return route if device_id is None else route.replace(_DEVICE_ID, quote(device_id, safe=""))

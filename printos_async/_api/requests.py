"""The specification's operations as calls: what the generated endpoints say is sent, checked before it is."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING

from printos_device_api.api.devices import list_devices, provision_device, update_device_status

from printos_async._models import DeviceStatusUpdate

from .validation import Call, build_call, check_device_id, check_provision_request, check_status

if TYPE_CHECKING:
    from printos_async._models import DeviceId, DeviceProvisionRequest

_NO_STATUS = DeviceStatusUpdate()
_USER_AGENT = f"printos-async/{version('printos-async')} Python/{platform.python_version()}"


class Operations:
    """Makes calls for one base URL.

    Args:
        base_path: The base URL's own path, percent-encoded, without a slash at the end.
    """

    def __init__(self, base_path: str) -> None:
        self._base_path = base_path
        self._headers = (
            ("user-agent", _USER_AGENT),
            ("accept", "application/json"),
            ("accept-encoding", "gzip, deflate"),
        )

    def list_devices(self) -> Call:
        """``GET /devices``."""
        return build_call(
            "listDevices",
            list_devices._get_kwargs(),  # noqa: SLF001  # the one place where the generated code describes a request
            base_path=self._base_path,
            headers=self._headers,
        )

    def provision_device(self, request: DeviceProvisionRequest) -> Call:
        """``POST /devices``.

        Raises:
            InvalidProvisionRequestError: The request cannot be sent as given.
        """
        check_provision_request(request)
        kwargs = provision_device._get_kwargs(body=request)  # noqa: SLF001
        return build_call("provisionDevice", kwargs, base_path=self._base_path, headers=self._headers)

    def update_device_status(self, device_id: DeviceId, status: DeviceStatusUpdate) -> Call:
        """``PUT /devices/{deviceId}/status``.

        Raises:
            InvalidDeviceIdError: The identifier would change the path.
            InvalidStatusError: The status cannot be sent as given.
        """
        checked_id = check_device_id(device_id)
        check_status(status)
        kwargs = update_device_status._get_kwargs(checked_id, body=status)  # noqa: SLF001
        return build_call(
            "updateDeviceStatus",
            kwargs,
            base_path=self._base_path,
            headers=self._headers,
            device_id=checked_id,
        )

    def stored_status(self, device_id: str, body: bytes) -> Call:
        """``PUT /devices/{deviceId}/status`` with a body that was encoded before.

        Raises:
            InvalidDeviceIdError: The identifier would change the path.
        """
        call = self.update_device_status(device_id, _NO_STATUS)
        call.body = body
        return call

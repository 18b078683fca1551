"""The part of the generated client that requests and answers are made with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import field, frozen
from printos_device_api.api.devices import list_devices, provision_device, update_device_status

from printos_async._models import PrintDevice, PrintDeviceList

from .pages import Pages, pages_of

if TYPE_CHECKING:
    from collections.abc import Callable


@frozen(kw_only=True)
class GeneratedClient:
    """Functions that describe the requests, and models of the answers.

    The generated endpoints' ``_get_kwargs`` name method, path and body, so a regenerated client changes what is sent.

    Attributes:
        list_devices: Describes ``listDevices``; takes the token of a page, if there are pages.
        provision_device: Describes ``provisionDevice``; takes the request as ``body``.
        update_device_status: Describes ``updateDeviceStatus``; takes the device's identifier, and the status as ``body``.
        device: Model of a device.
        device_list: Model of the answer of ``listDevices``.
        pages: Pages of the list; None where it has none.
    """

    list_devices: Callable[..., dict[str, Any]]
    provision_device: Callable[..., dict[str, Any]]
    update_device_status: Callable[..., dict[str, Any]]
    device: type
    device_list: type
    pages: Pages | None = field(init=False)

    @pages.default
    def _find_pages(self) -> Pages | None:
        return pages_of(self.list_devices, self.device_list)


GENERATED_CLIENT = GeneratedClient(
    list_devices=list_devices._get_kwargs,  # noqa: SLF001
    provision_device=provision_device._get_kwargs,  # noqa: SLF001
    update_device_status=update_device_status._get_kwargs,  # noqa: SLF001
    device=PrintDevice,
    device_list=PrintDeviceList,
)

"""The one listing of devices: page after page where the specification has pages, else one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from printos_async._api.body import DecodeError
from printos_async._api.responses import MAX_DEVICES

if TYPE_CHECKING:
    from printos_async._api.responses import DevicePage
    from printos_async._models import PrintDevice
    from printos_async._transport import RawResponse

    from .channel import Channel

MAX_PAGES = 10_000


async def list_all(
    channel: Channel, *, max_pages: int = MAX_PAGES, max_devices: int = MAX_DEVICES
) -> list[PrintDevice]:
    """Return the devices of all pages; see ``PrintOSClient.list_devices``."""
    executor, operations = channel.executor, channel.operations
    devices: list[PrintDevice] = []
    tokens: set[str] = set()

    async def next_page(response: RawResponse) -> DevicePage:
        page = await channel.answers.device_page(response)
        if page.next_token is not None and page.next_token in tokens:
            raise DecodeError("it names a next page that was read before: the list would have no end")
        if page.next_token is not None and len(tokens) + 1 == max_pages:
            raise DecodeError(f"the list has more than {max_pages:,} pages")
        if len(devices) + len(page.devices) > max_devices:
            raise DecodeError(f"the list has more than {max_devices:,} devices")
        return page

    page = await executor.run(operations.list_devices(), next_page)
    while page.next_token is not None:
        tokens.add(page.next_token)
        devices += page.devices
        page = await executor.run(operations.list_devices(page.next_token), next_page)
    return devices + page.devices if devices else page.devices

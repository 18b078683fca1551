"""What each operation makes of a 2xx answer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from printos_async._events import FieldUnreadable
from printos_async._http import is_intermediary_page
from printos_async._transport import EXCERPT_BYTES

from .responses import (
    DecodeError,
    IntermediaryPageError,
    beginning,
    content,
    decode_device_list,
    decode_provisioned,
)

if TYPE_CHECKING:
    from printos_async._events import Hooks
    from printos_async._models import PrintDevice
    from printos_async._transport import WireResponse


class Answers:
    """Reads answers within a size limit and reports fields that cannot be read.

    Every method raises ``DecodeError`` where the answer is not what the specification says.
    """

    def __init__(self, *, max_body_bytes: int, hooks: Hooks) -> None:
        self._max_body_bytes = max_body_bytes
        self._hooks = hooks

    async def device_list(self, response: WireResponse) -> list[PrintDevice]:
        """Read the answer of ``listDevices``; others have their turn in between."""
        return await decode_device_list(self._content(response), partial(self._unreadable, "listDevices"))

    async def provisioned(self, response: WireResponse) -> PrintDevice:
        """Read the answer of ``provisionDevice``."""
        return decode_provisioned(self._content(response), partial(self._unreadable, "provisionDevice"))

    async def acknowledgement(self, response: WireResponse) -> None:
        """Look at the answer of ``updateDeviceStatus``, to which the specification gives no body."""
        if not response.body and not response.overflow:
            return
        max_bytes = min(self._max_body_bytes, EXCERPT_BYTES)
        body, is_cut = beginning(response, max_bytes=max_bytes)
        if is_cut and max_bytes == self._max_body_bytes:
            raise DecodeError(f"the body is larger than max_body_bytes ({max_bytes})")
        # A page with status 200 comes from something between, such as a captive portal: the status is not there.
        if is_intermediary_page(body, response.header("content-type")):
            raise IntermediaryPageError("the body is HTML or XML; is a proxy or a login page between?")
        if b'"smsError"' in body:
            raise DecodeError("the body is PrintOS's error envelope")

    def _content(self, response: WireResponse) -> bytes:
        return content(response, max_bytes=self._max_body_bytes)

    def _unreadable(self, operation: str, device_id: str | None, field: str, raw: object) -> None:
        if self._hooks:
            self._hooks.emit(FieldUnreadable(operation, device_id, field, raw))

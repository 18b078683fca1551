"""Responses: what each operation's 2xx answer says, as models.

The generated models raise untyped errors on what they cannot read and take any type they are given, so a
field is looked at before it counts: a date that ``fromisoformat`` refuses goes to dateutil; what cannot be read
stays unset, its raw value kept in ``additional_properties``, and is reported. A required field must be readable.
"""

from __future__ import annotations

import asyncio
import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from attrs import frozen
from dateutil import parser as dateutil_parser

from printos_async._common.http import is_intermediary_page
from printos_async._events import FieldUnreadable
from printos_async._transport import EXCERPT_BYTES

from .body import DecodeError, IntermediaryPageError, beginning, content, parse_json, refuse_constant
from .fields import described, fields_of
from .generated_client import GENERATED_CLIENT
from .json_validation import raw_problem

if TYPE_CHECKING:
    from printos_async._events import Hooks
    from printos_async._models import PrintDevice
    from printos_async._transport import RawResponse

    from .generated_client import GeneratedClient

# Two and a half times the largest fleet, and ten values for each of its devices. What a value costs once it is
# parsed is up to 130 bytes, a device 540: of 64 MiB of "{}," 3.3 GiB would come.
MAX_DEVICES = 250_000
MAX_VALUES = 2_500_000
# Two to three milliseconds of work, after which other tasks run.
SLICE_DEVICES = 250
_OPENING = re.compile(r'[ \t\n\r]*\{[ \t\n\r]*"devices"[ \t\n\r]*:[ \t\n\r]*\[[ \t\n\r]*')
_COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")
_CLOSING = re.compile(r"[ \t\n\r]*\]")
_MAX_DATE_CHARS = 64
# From Python 3.14 on, fromisoformat reads it; a date is to mean the same on every version.
_AT_24_HOURS = re.compile(r"[T ]24")
_DEFAULT_A = datetime(2000, 1, 1)  # noqa: DTZ001  # a date-time without an offset stays without one
_DEFAULT_B = datetime(2001, 2, 2)  # noqa: DTZ001


class Answers:
    """Decodes answers within a size limit and reports fields that cannot be read.

    Every method raises ``DecodeError`` where the answer is not what the specification says.

    Args:
        max_body_bytes: Largest body that is decoded.
        hooks: Receive the events.
        generated: Has the models.
    """

    def __init__(
        self, *, max_body_bytes: int, hooks: Hooks, generated: GeneratedClient = GENERATED_CLIENT
    ) -> None:
        self._max_body_bytes = max_body_bytes
        self._hooks = hooks
        self._generated = generated

    async def device_page(self, response: RawResponse) -> DevicePage:
        """Return the devices of a ``listDevices`` answer; other tasks run between its slices."""
        body = content(response, max_bytes=self._max_body_bytes)
        await asyncio.sleep(0)
        _check_size(body)
        await asyncio.sleep(0)
        raw_devices, others = await _scan_devices(body) or _parse_devices(body)
        if len(raw_devices) > MAX_DEVICES:
            raise DecodeError(f"the list has more than {MAX_DEVICES:,} devices")
        devices, pages = [], self._generated.pages
        for index, raw in enumerate(raw_devices):
            if index % SLICE_DEVICES == 0:
                await asyncio.sleep(0)
            devices.append(self._device(raw, "listDevices", index))
            raw_devices[index] = None  # not the memory of both
        return DevicePage(devices, None if pages is None else pages.next_token(others))

    async def provisioned(self, response: RawResponse) -> PrintDevice:
        """Return the device of a ``provisionDevice`` answer."""
        body = content(response, max_bytes=self._max_body_bytes)
        _check_size(body)
        answer = parse_json(body)
        device = self._device(answer, "provisionDevice")
        if "id" in answer and not (isinstance(answer["id"], str) and answer["id"]):
            raise DecodeError("the device's id is not a text; list_devices() tells what was provisioned")
        if not any(field.name in answer for field in fields_of(self._generated.device)):
            raise DecodeError("the answer has none of a device's properties")
        return device

    async def acknowledgement(self, response: RawResponse) -> None:
        """Check the answer of ``updateDeviceStatus``, which has no body by the specification."""
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

    def _device(self, raw: Any, operation: str, index: int | None = None) -> PrintDevice:
        if not isinstance(raw, dict):
            raise DecodeError(f"{_place(index)} must be an object, not {_kind(raw)}")
        model: Any = self._generated.device
        readable, refused = dict(raw), {}
        for field in fields_of(model):
            name = field.name
            if name in raw:
                value = raw[name]
                if type(value) in field.plain_kinds:
                    continue
                if datetime in field.allowed.kinds and (text := _iso_date(value)) is not None:
                    readable[name] = text
                    continue
                if raw_problem(value, field.allowed, name) is None:
                    continue
                refused[name] = readable.pop(name)
            if field.is_required:
                kind = f"not {described(field.allowed)}" if name in raw else "missing"
                raise DecodeError(f"{name} of {_place(index)} is {kind}")
        device: PrintDevice = model.from_dict(readable)
        device.additional_properties.update(refused)
        if self._hooks:
            for name, value in refused.items():
                self._hooks.emit(FieldUnreadable(operation, readable.get("id"), name, value))
        return device


@frozen
class DevicePage:
    """Devices of one ``listDevices`` answer.

    Attributes:
        devices: The devices.
        next_token: What asks for the next page; None if this is the last one, or lists have no pages.
    """

    devices: list[PrintDevice]
    next_token: str | None = None


async def _scan_devices(body: bytes) -> tuple[list[Any], dict[str, Any]] | None:
    """Parse the elements of ``devices`` one by one, and the other properties.

    None where the body does not begin with them, or is no JSON. ``json.loads`` would hold up the event loop, in a
    thread too: it does not let go of the interpreter's lock.
    """
    try:
        text = body.decode()
        if (opening := _OPENING.match(text)) is None:
            return None
        at = opening.end()
        devices: list[Any] = []
        while True:
            device, at = _DECODER.raw_decode(text, at)
            devices.append(device)
            if len(devices) % SLICE_DEVICES == 0:
                await asyncio.sleep(0)
            if (comma := _COMMA.match(text, at)) is None:
                break
            at = comma.end()
        closing = _CLOSING.match(text, at)
        # What follows has to be the rest of the object, and must not name the devices again.
        rest = None if closing is None else parse_json(b'{"": 0' + text[closing.end() :].encode())
    except (ValueError, RecursionError):  # also an empty list, which has no first element
        return None
    return None if rest is None or "devices" in rest else (devices, rest)


def _parse_devices(body: bytes) -> tuple[list[Any], dict[str, Any]]:
    answer = parse_json(body)
    if not isinstance(answer, dict):
        raise DecodeError(f"a device list must be an object, not {_kind(answer)}")
    devices = answer.get("devices", [])
    if not isinstance(devices, list):
        raise DecodeError(f"devices must be a list, not {_kind(devices)}")
    if "devices" not in answer and answer:
        # {} is an empty list by the specification; an object of other things is another answer.
        raise DecodeError("the answer has properties, but devices is not among them")
    return devices, answer


def _check_size(body: bytes) -> None:
    # Every value is behind one of these; those inside of texts are counted along.
    if body.count(b",") + body.count(b"{") + body.count(b"[") > MAX_VALUES:
        raise DecodeError(f"the body holds more than {MAX_VALUES:,} values")


def _place(index: int | None) -> str:
    return "the device" if index is None else f"devices[{index}]"


def _iso_date(value: object) -> str | None:
    """Return a date as the generated model reads it, or None."""
    if not isinstance(value, str) or len(value) > _MAX_DATE_CHARS:
        return None
    try:
        datetime.fromisoformat(value)
    except ValueError:
        pass
    else:
        if not _AT_24_HOURS.search(value):
            return value
    try:
        # dateutil fills what a text leaves out from a default and takes 01/02/2024 for January: a date that
        # changes with the default or with the order of day and month cannot be read for certain.
        first = dateutil_parser.parse(value, default=_DEFAULT_A, tzinfos=_zone)
        second = dateutil_parser.parse(value, default=_DEFAULT_B, tzinfos=_zone, dayfirst=True)
        return first.isoformat() if first == second else None
    except (ValueError, OverflowError, TypeError, ArithmeticError):
        return None


def _zone(name: str | None, offset: int | None) -> int | None:
    if name is not None and offset is None:
        raise ValueError(f"the time zone {name} has no fixed offset")
    return offset


_DECODER = json.JSONDecoder(parse_constant=refuse_constant)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")

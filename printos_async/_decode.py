"""From an answer's bytes to models, one device at a time.

The generated models raise untyped errors on what they cannot read and take any type they are given, so a
field is looked at before it counts: a date that ``fromisoformat`` refuses goes to dateutil; what cannot be read
stays unset, its raw value kept in ``additional_properties``, and is reported.
"""

from __future__ import annotations

import json
import zlib
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dateutil import parser as dateutil_parser
from printos_device_api.types import UNSET

from ._encode import field_types, json_name
from ._models import PrintDevice
from ._retry import is_intermediary_page

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from ._wire import WireResponse

    # device id (if readable), property name, raw value
    Unreadable = Callable[[str | None, str, object], None]

_MAX_DATE_CHARS = 64
_DEFAULT_A = datetime(2000, 1, 1)  # noqa: DTZ001  # a date-time without an offset stays without one
_DEFAULT_B = datetime(2001, 2, 2)  # noqa: DTZ001


class DecodeError(ValueError):
    """Says what is wrong with a body; quotes nothing of it."""


class IntermediaryPageError(DecodeError):
    """The body is HTML or XML: PrintOS sends neither."""


def content(response: WireResponse, *, max_bytes: int) -> bytes:
    """Undo the content coding of an answer's body, within a limit.

    Raises:
        DecodeError: The body is larger than ``max_bytes``, damaged, or coded in a way nobody asked for.
    """
    if response.overflow:
        raise DecodeError(f"the body is larger than max_body_bytes ({max_bytes})")
    codings = [value.strip().lower() for name, value in response.headers if name == "content-encoding"]
    coding = ", ".join(codings)
    if coding in {"identity", ""} or not response.body:
        return response.body
    if coding in {"gzip", "x-gzip"}:
        return _inflate(response.body, (zlib.MAX_WBITS | 16,), max_bytes)
    if coding == "deflate":  # RFC 9110 means zlib's format; some servers send the bare stream
        return _inflate(response.body, (zlib.MAX_WBITS, -zlib.MAX_WBITS), max_bytes)
    raise DecodeError("the body is compressed in a way that was not asked for")


def _inflate(body: bytes, formats: tuple[int, ...], max_bytes: int) -> bytes:
    for wbits in formats:
        inflater = zlib.decompressobj(wbits)
        try:
            plain = inflater.decompress(body, max_bytes + 1)
        except zlib.error:
            continue
        if len(plain) > max_bytes:
            raise DecodeError(f"the body is larger than max_body_bytes ({max_bytes}) once decompressed")
        if inflater.eof:
            return plain
    raise DecodeError("the compressed body is damaged")


def parse_json(body: bytes) -> Any:
    """Parse a body as JSON.

    Raises:
        DecodeError: It is empty, no JSON, holds NaN, or is nested too deeply.
    """
    if not body.strip():
        raise DecodeError("the body is empty")
    try:
        return json.loads(body, parse_constant=_no_constant)
    except RecursionError:
        reason = "the body is nested too deeply"
    except ValueError:
        reason = "no JSON"
    if is_intermediary_page(body):
        raise IntermediaryPageError("the body is HTML or XML, not JSON; is a proxy or a login page between?")
    raise DecodeError(reason)


def decode_device_list(body: bytes, unreadable: Unreadable) -> list[PrintDevice]:
    """Read a ``PrintDeviceList``.

    Raises:
        DecodeError: It is no object with a list ``devices`` of objects.
    """
    answer = parse_json(body)
    if not isinstance(answer, dict):
        raise DecodeError(f"a device list must be an object, not {_kind(answer)}")
    devices = answer.get("devices", [])
    if not isinstance(devices, list):
        raise DecodeError(f"devices must be a list, not {_kind(devices)}")
    if "devices" not in answer and answer:
        # {} is an empty list by the specification; an object of other things is another answer.
        raise DecodeError("the answer has properties, but devices is not among them")
    return [_decode_device(device, f"devices[{index}]", unreadable) for index, device in enumerate(devices)]


def decode_provisioned(body: bytes, unreadable: Unreadable) -> PrintDevice:
    """Read the ``PrintDevice`` that a provisioning answers with.

    Raises:
        DecodeError: It is no object, or its ``id`` cannot be used.
    """
    answer = parse_json(body)
    device = _decode_device(answer, "the device", unreadable)
    if "id" in answer and (device.id is UNSET or device.id == ""):
        raise DecodeError("the device's id is not a text; list_devices() tells what was provisioned")
    if not any(name in answer for name in map(json_name, _device_fields())):
        raise DecodeError("the answer has none of a device's properties")
    return device


def _device_fields() -> list[str]:
    return [name for name, _ in field_types(PrintDevice)]


def _decode_device(raw: Any, where: str, unreadable: Unreadable) -> PrintDevice:
    if not isinstance(raw, dict):
        raise DecodeError(f"{where} must be an object, not {_kind(raw)}")
    readable, refused = dict(raw), {}
    for name, allowed in field_types(PrintDevice):
        key = json_name(name)
        if key not in raw:
            continue
        value = raw[key]
        if datetime in allowed:
            text = _iso_date(value)
            if text is not None:
                readable[key] = text
                continue
        elif type(value) in allowed:
            continue
        refused[key] = readable.pop(key)
    device = PrintDevice.from_dict(readable)
    device.additional_properties.update(refused)
    for key, value in refused.items():
        unreadable(device.id if isinstance(device.id, str) else None, key, value)
    return device


def _iso_date(value: object) -> str | None:
    """Give a date as the generated model reads it, or None."""
    if not isinstance(value, str) or len(value) > _MAX_DATE_CHARS:
        return None
    try:
        datetime.fromisoformat(value)
    except ValueError:
        pass
    else:
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


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")

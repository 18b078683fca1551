"""Bodies of responses: content coding, size limits, JSON."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any

from printos_async._common.http import is_intermediary_page

if TYPE_CHECKING:
    from typing import NoReturn

    from printos_async._transport import RawResponse


class DecodeError(ValueError):
    """A body cannot be decoded; the message quotes nothing of it."""


class IntermediaryPageError(DecodeError):
    """The body is HTML or XML: PrintOS sends neither."""


def content(response: RawResponse, *, max_bytes: int) -> bytes:
    """Return an answer's body without its content coding.

    Raises:
        DecodeError: The body is larger than ``max_bytes``, damaged, or has a content coding that was not asked for.
    """
    if response.overflow:
        raise DecodeError(f"the body is larger than max_body_bytes ({max_bytes})")
    plain, is_cut = beginning(response, max_bytes=max_bytes)
    if is_cut:
        raise DecodeError(f"the body is larger than max_body_bytes ({max_bytes}) once decompressed")
    return plain


def beginning(response: RawResponse, *, max_bytes: int) -> tuple[bytes, bool]:
    """Return the first ``max_bytes`` of an answer's body without its content coding, and whether there is more.

    Raises:
        DecodeError: The body is damaged, or has a content coding that was not asked for.
    """
    formats = _formats(response)
    plain = _inflate(response, formats, max_bytes) if formats else response.body
    return plain[:max_bytes], response.overflow or len(plain) > max_bytes


def _formats(response: RawResponse) -> tuple[int, ...]:
    codings = [value.strip().lower() for name, value in response.headers if name == "content-encoding"]
    coding = ", ".join(codings)
    if coding in {"identity", ""} or not response.body:
        return ()
    if coding in {"gzip", "x-gzip"}:
        return (zlib.MAX_WBITS | 16,)
    if coding == "deflate":  # RFC 9110 means zlib's format; some servers send the bare stream
        return (zlib.MAX_WBITS, -zlib.MAX_WBITS)
    raise DecodeError("the body is compressed in a way that was not asked for")


def _inflate(response: RawResponse, formats: tuple[int, ...], max_bytes: int) -> bytes:
    """Decompress a body as far as one byte over ``max_bytes``, or as far as it came."""
    for wbits in formats:
        inflater = zlib.decompressobj(wbits)
        try:
            plain = inflater.decompress(response.body, max_bytes + 1)
        except zlib.error:
            continue
        if inflater.eof or response.overflow or len(plain) > max_bytes:
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
        return json.loads(body, parse_constant=refuse_constant)
    except RecursionError:
        reason = "the body is nested too deeply"
    except ValueError:
        reason = "no JSON"
    if is_intermediary_page(body):
        raise IntermediaryPageError("the body is HTML or XML, not JSON; is a proxy or a login page between?")
    raise DecodeError(reason)


def refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and Infinity, which ``json`` takes for numbers."""
    raise ValueError(f"{name} is not JSON")

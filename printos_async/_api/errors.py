"""Failed exchanges as errors of the public tree; secrets are redacted before anything is quoted."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from printos_async._auth import ALGORITHM_HEADER, DATE_HEADER
from printos_async._common.http import parse_retry_after
from printos_async._common.redaction import excerpt, one_line
from printos_async._errors import (
    ProxyError,
    RateLimitError,
    RequestTimeoutError,
    ResponseDecodeError,
    StatusError,
    TransportError,
    status_error_class,
)
from printos_async._transport import EXCERPT_BYTES, ProxyExchangeError

from .body import DecodeError, IntermediaryPageError, beginning, parse_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from printos_async._transport import ExchangeError, RawRequest, RawResponse

    from .requests import Call

MAX_BODY_CHARS = 2_048
_MAX_MESSAGE_CHARS = 300
_REQUEST_ID_HEADERS = ("x-request-id", "x-correlation-id", "x-amzn-requestid")
_HINTS = {
    401: "check the credentials, and this machine's clock if requests are signed",
    403: "these credentials may not do this",
    404: "is the device provisioned, and base_url right?",
}


def secrets_of(call: Call, request: RawRequest, known: Iterable[str]) -> set[str]:
    """Return what must not be quoted of a request: known secrets, and what authentication put into it."""
    harmless = {name for name, _ in call.headers} | {DATE_HEADER, ALGORITHM_HEADER}
    secrets = set(known)
    for name, value in request.headers:
        if name not in harmless:
            secrets.update([value, *value.replace(":", " ").split()[1:]])
    return secrets


def transport_error(call: Call, error: ExchangeError, secrets: Iterable[str]) -> TransportError:
    """Return the error for an exchange without a complete answer."""
    message = one_line(error.reason, secrets, limit=_MAX_MESSAGE_CHARS)
    if isinstance(error, ProxyExchangeError):
        return ProxyError(message, method=call.method, path=call.path, status=error.status)
    error_class = RequestTimeoutError if error.timed_out else TransportError
    return error_class(
        message,
        method=call.method,
        path=call.path,
        may_have_arrived=error.may_have_arrived,
        local=error.local,
    )


def status_error(call: Call, response: RawResponse, secrets: Iterable[str], *, hint: str = "") -> StatusError:
    """Return the error for an answer other than 2xx; ``hint`` says what else may be wrong."""
    secrets = tuple(secrets)
    try:
        body, cut = beginning(response, max_bytes=EXCERPT_BYTES)
    except DecodeError:
        body, cut = b"", response.overflow
    status = response.status
    message = _envelope_message(body, secrets)
    if not message and status == HTTPStatus.UNAUTHORIZED:
        hint = ""  # the text for a 401 names the clock as well
    parts = [_phrase(status), hint, message or _HINTS.get(status, "")]
    if 300 <= status <= 399:
        parts.append("redirects are not followed: give the address that the server names as base_url")
    request_id = next(filter(None, map(response.header, _REQUEST_ID_HEADERS)), None)
    return status_error_class(status)(
        ": ".join(filter(None, parts)),
        method=call.method,
        path=call.path,
        status=status,
        body=excerpt(body.decode("utf-8", "replace"), secrets, limit=MAX_BODY_CHARS, cut=cut),
        request_id=None if request_id is None else one_line(request_id, secrets, limit=_MAX_MESSAGE_CHARS),
        retry_after_s=parse_retry_after(response.header("retry-after"), now_s=time.time()),
    )


def decode_error(call: Call, response: RawResponse, error: DecodeError) -> ResponseDecodeError:
    """Return the error for a 2xx whose body is not what the specification says."""
    return ResponseDecodeError(
        f"{_phrase(response.status)}, but {error}",
        method=call.method,
        path=call.path,
        status=response.status,
        from_intermediary=isinstance(error, IntermediaryPageError),
    )


def pause_error(call: Call, pause_s: float) -> RateLimitError:
    """Return the error for a call that is not sent because the server asked for too long a pause."""
    return RateLimitError(
        f"not sent: the server asked for a pause, of which {pause_s:.0f} s are left",
        method=call.method,
        path=call.path,
        status=429,
        attempts=0,
        retry_after_s=pause_s,
    )


def _phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:  # unregistered, such as 299 or 520
        return str(status)


def _envelope_message(body: bytes, secrets: Iterable[str]) -> str:
    """Return the message of HP's ``smsError`` envelope, if the body is one."""
    try:
        answer: Any = parse_json(body)
    except DecodeError:
        return ""
    envelope = answer.get("smsError") if isinstance(answer, dict) else None
    message = envelope.get("message") if isinstance(envelope, dict) else None
    if not isinstance(message, str):
        return ""
    return one_line(message, secrets, limit=_MAX_MESSAGE_CHARS)

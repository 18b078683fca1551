"""Login responses: the session token in one, or the error that it stands for. No I/O."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from printos_async._common.http import is_intermediary_page, parse_retry_after
from printos_async._errors import (
    AuthenticationError,
    ResponseDecodeError,
    StatusError,
    status_error_class,
)

if TYPE_CHECKING:
    from .base import Response

TOKEN_HEADER = "Indigo-SmS-Auth-Token"  # noqa: S105  # the name of the header, and of the login's cookie
_REFUSALS = frozenset({400, 401, 403, 404, 422})
_MAX_TOKEN_CHARS = 8192


def token_in(response: Response) -> str | StatusError | ResponseDecodeError:
    """Return the token of a login's JSON body or cookie, or the error if it was not successful or has none."""
    status = response.status_code
    if not response.is_success:
        error_class = AuthenticationError if status in _REFUSALS else status_error_class(status)
        return error_class(
            f"login was answered with {status}; {_advice(status)}",
            method="POST",
            path=response.request.url.path,
            status=status,
            retry_after_s=parse_retry_after(response.headers.get("retry-after"), now_s=time.time()),
        )
    token = _json_token(response) or _cookie_token(response)
    if token is not None:
        return token
    page = is_intermediary_page(response.content, response.headers.get("content-type"))
    return ResponseDecodeError(
        "the login's answer is HTML or XML; is a proxy or a login page between?"
        if page
        else "the login's answer holds no authToken that can be sent",
        method="POST",
        path=response.request.url.path,
        status=status,
        from_intermediary=page,
    )


def _advice(status: int) -> str:
    if status == 429:
        return "PrintOS asks to wait before the next login"
    if status >= 500:
        return "PrintOS cannot log in at the moment"
    return "check login, password and login_url"


def _json_token(response: Response) -> str | None:
    try:
        answer = response.json()
    except (ValueError, RecursionError):
        return None
    return _sendable(answer.get("authToken")) if isinstance(answer, dict) else None


def _cookie_token(response: Response) -> str | None:
    for line in response.headers.get_list("set-cookie"):
        name, separator, value = line.partition(";")[0].partition("=")
        if separator and name.strip().lower() == TOKEN_HEADER.lower():
            return _sendable(value.strip().strip('"'))
    return None


def _sendable(token: object) -> str | None:
    if isinstance(token, str) and 0 < len(token) <= _MAX_TOKEN_CHARS and all("!" <= c <= "~" for c in token):
        return token
    return None

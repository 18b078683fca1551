"""Steps that read the answers: whether they are PrintOS's, and whether the credentials are accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from printos_async._errors import (
    APIError,
    MissingCredentialsError,
    ResponseDecodeError,
    StatusError,
    TransportError,
)
from printos_async.cli.terminal.output import counted

from .finding import Finding, failed, ok, skipped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from printos_async._models import PrintDevice

    from .observed_auth import Answer

_REFUSED = {401, 403}
# Of a login. PrintOS has no other reason to call it wrong.
_LOGIN_REFUSED = {400, 401, 403, 422}
_BASE_URL = "--base-url or PRINTOS_BASE_URL"


def check_path(
    devices: list[PrintDevice] | None, error: APIError | None, answers: Sequence[Answer]
) -> Finding:
    """Return whether PrintOS answers at the base URL's path."""
    if devices is not None:
        return ok("path", f"the list of the devices is there, with {counted(len(devices), 'device')}")
    at_login = bool(answers) and answers[-1].is_login
    if isinstance(error, StatusError):
        refusals = _LOGIN_REFUSED if at_login else _REFUSED
        if error.status in refusals:
            return ok("path", f"{error.path} is there, and refuses the credentials ({error.status})")
        return failed("path", error, _status_remedy(error, at_login=at_login, has_login=_logged_in(answers)))
    if isinstance(error, ResponseDecodeError):
        remedy = (
            "something between answers instead of PrintOS: sign in at the network's login page, set --proxy, or have"
            " the proxy let requests through unchanged"
            if error.from_intermediary
            else f"another service answers; check {_BASE_URL}"
        )
        return failed("path", error, remedy)
    if isinstance(error, TransportError):
        return failed(
            "path",
            error,
            f"the server took the request and did not answer it: check {_BASE_URL}, then try again",
        )
    return skipped("path", "no request could be sent")


def check_credentials(
    error: APIError | None, answers: Sequence[Answer], label: str, *, is_reached: bool
) -> Finding:
    """Return whether the credentials are accepted; ``is_reached`` says that the answers are PrintOS's."""
    remedy = (
        "check the key or login and its secret or password, and that they are of this system:"
        " credentials of stage.printos.api.hp.com are not valid on printos.api.hp.com"
    )
    if error is None:
        return ok("credentials", f"{label} is accepted")
    if isinstance(error, MissingCredentialsError):
        return failed("credentials", error, remedy)
    if not is_reached:
        if _logged_in(answers):
            return ok("credentials", f"{label} can log in")
        return skipped("credentials", "no answer tells whether they are right")
    if _logged_in(answers) and isinstance(error, StatusError) and error.status == 403:
        return failed(
            "credentials",
            f"{label} can log in, and may not list devices: {error}",
            "ask HP to allow it; statuses of the login's own device may be accepted all the same",
        )
    return failed("credentials", f"{label} is refused: {error}", remedy)


def _logged_in(answers: Sequence[Answer]) -> bool:
    return any(one.is_login and 200 <= one.status <= 299 and not one.is_page for one in answers)


def _status_remedy(error: StatusError, *, at_login: bool, has_login: bool) -> str:
    if 300 <= error.status <= 399:
        return f"give the address that the server names as {_BASE_URL}; a login page of the network redirects, too"
    if error.status == 407:
        return "a proxy answers: set --proxy or PRINTOS_PROXY, with its user and password"
    if error.status == 429:
        pause = "" if error.retry_after_s is None else f" {error.retry_after_s:.0f} s"
        return f"wait{pause}, and run the check again; PrintOS counts requests"
    if error.status >= 500:
        return "the server or a gateway before it is down: run the check again later"
    if at_login:
        return f"this is not PrintOS: check the host in {_BASE_URL}"
    also = "the login works, so the host is right: " if has_login else ""
    return f"{also}check the path in {_BASE_URL}; PrintOS's own has none"

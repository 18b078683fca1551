"""Steps that one list of the devices answers: proxy, TLS, clock, path and credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from printos_async._auth import REFUSED_SIGNATURE
from printos_async._errors import APIError, ProxyError, TransportError

from .answer import check_credentials, check_path
from .finding import Finding, failed, ok, skipped

if TYPE_CHECKING:
    from printos_async._client import PrintOSClient
    from printos_async._models import PrintDevice
    from printos_async._transport import Origin

    from .observed_auth import ObservedAuth

# As in HmacAuth: beyond the first, requests are signed with the server's time; beyond the second, no more.
_MAX_SKEW_S = 60.0
_MAX_CORRECTED_S = 86_400.0
CHECKS = ("proxy", "tls", "clock", "path", "credentials")


@frozen
class Exchange:
    """What became of the list of the devices.

    Attributes:
        origin: Where it was sent.
        proxy: Through which proxy, if any.
        auth: The credentials, with the answers.
        devices: The list, if it was answered.
        error: Why it was not.
        has_credentials: False if it was sent without any, because they cannot be read.
    """

    origin: Origin
    proxy: str
    auth: ObservedAuth
    devices: list[PrintDevice] | None
    error: APIError | None
    has_credentials: bool


async def list_devices(
    client: PrintOSClient, auth: ObservedAuth
) -> tuple[list[PrintDevice] | None, APIError | None]:
    """Return the list, or why there is none; asks once more if the clock may be the only reason."""
    error: APIError
    for may_correct in (True, False):  # once: the clocks of two servers behind one name may differ
        try:
            return await client.list_devices(), None
        except APIError as problem:
            error = problem
        is_refused = bool(auth.answers) and auth.answers[-1].status in REFUSED_SIGNATURE
        if not (may_correct and is_refused and auth.correct_clock()):
            break
    return None, error


def judge(exchange: Exchange) -> list[Finding]:
    """Return one finding for each of ``CHECKS``, in their order."""
    proxy = _proxy(exchange)
    if proxy.outcome == "failed":
        return [proxy, *(skipped(check, "the proxy lets nothing through") for check in CHECKS[1:])]
    tls = _tls(exchange)
    if tls.outcome == "failed":
        return [proxy, tls, *(skipped(check, "there is no TLS connection") for check in CHECKS[2:])]
    clock, path = _clock(exchange), check_path(exchange.devices, exchange.error, exchange.auth.answers)
    return [proxy, tls, clock, path, _credentials(exchange, is_reached=path.outcome == "ok")]


def _credentials(exchange: Exchange, *, is_reached: bool) -> Finding:
    auth, error = exchange.auth, exchange.error
    if not exchange.has_credentials:
        return skipped("credentials", "there are none that can be used")
    is_signed = not any(answer.is_login for answer in auth.answers)
    if error is not None and is_signed and abs(auth.ahead_s or 0.0) > _MAX_CORRECTED_S:
        return skipped("credentials", "signed requests are refused until the clock is right")
    return check_credentials(error, auth.answers, auth.label, is_reached=is_reached)


def _proxy(exchange: Exchange) -> Finding:
    if isinstance(exchange.error, ProxyError):
        return failed(
            "proxy",
            exchange.error.args[0],
            "check --proxy, PRINTOS_PROXY or HTTPS_PROXY with whoever runs the proxy: its address, user and password,"
            f" and that it allows connections to {exchange.origin.host}, port {exchange.origin.port}",
        )
    if not exchange.proxy:
        return skipped("proxy", "none is set")
    return ok("proxy", f"{exchange.proxy} lets requests through")


def _tls(exchange: Exchange) -> Finding:
    error, origin = exchange.error, exchange.origin
    if origin.scheme != "https":
        return skipped("tls", "the base URL is plain HTTP")
    if isinstance(error, TransportError) and not exchange.auth.answers:
        # With TLS 1.3 a server refuses a client certificate, or asks for one, only after the request was written.
        if "client certificate" in str(error):
            return failed(
                "tls",
                error.args[0],
                "give the certificate that the server's owner has issued, with its key: --client-cert and --client-key",
            )
        if not error.may_have_arrived:
            return failed(
                "tls",
                error.args[0],
                "if the network's own gateway opens TLS, trust its authority: --ca-file or --system-certificates;"
                " else check --base-url, this machine's clock, and the server's certificate with its owner",
            )
    return ok("tls", f"the certificate of {origin.host} is trusted")


def _clock(exchange: Exchange) -> Finding:
    ahead_s = exchange.auth.ahead_s
    if ahead_s is None:
        return skipped("clock", "no answer tells the server's time")
    if abs(ahead_s) <= _MAX_SKEW_S:
        return ok("clock", f"within {max(abs(ahead_s), 1.0):.0f} s of the server's")
    direction = "behind" if ahead_s > 0 else "ahead of"
    then = (
        "signed requests are sent with the server's time until then"
        if abs(ahead_s) <= _MAX_CORRECTED_S
        else "signed requests are refused until then"
    )
    return failed(
        "clock",
        f"this machine's clock is {abs(ahead_s):,.0f} s {direction} the server's",
        f"set the clock, and keep it right with NTP; {then}",
    )

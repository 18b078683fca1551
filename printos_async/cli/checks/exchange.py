"""Steps that one list of the devices answers: proxy, TLS, clock, path and credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from printos_async._auth import MAX_SKEW_S, MIN_SKEW_S, REFUSED_SIGNATURE
from printos_async._errors import (
    APIError,
    MissingCredentialsError,
    ProxyError,
    ResponseDecodeError,
    StatusError,
    TransportError,
)
from printos_async.cli.terminal.output import counted

from .finding import Finding, failed, ok, skipped

if TYPE_CHECKING:
    from printos_async._client import PrintOSClient
    from printos_async._models import PrintDevice
    from printos_async._transport import Origin

    from .observed_auth import ObservedAuth

_REFUSED = {401, 403}
# Answers to a login that mean wrong credentials.
_LOGIN_REFUSED = {400, 401, 403, 422}
_BASE_URL = "--base-url or PRINTOS_BASE_URL"
CHECKS = ("proxy", "tls", "clock", "path", "credentials")


@define
class Exchange:
    """The list of the devices, and what became of it.

    Attributes:
        origin: Where it is sent.
        proxy: Through which proxy, if any.
        auth: The credentials, with the answers.
        devices: The list, if it was answered.
        error: Why it was not.
    """

    origin: Origin
    proxy: str
    auth: ObservedAuth
    devices: list[PrintDevice] | None = None
    error: APIError | None = None

    async def list_devices(self, client: PrintOSClient) -> None:
        """Ask for the list, and once more if the clock may be the only reason why there is none."""
        for may_correct in (True, False):  # once: the clocks of two servers behind one name may differ
            try:
                self.devices, self.error = await client.list_devices(), None
            except APIError as error:
                self.error = error
            answers = self.auth.answers
            is_refused = self.error is not None and answers and answers[-1].status in REFUSED_SIGNATURE
            if not (may_correct and is_refused and self.auth.correct_clock()):
                break

    def judge(self) -> list[Finding]:
        """Return one finding for each of ``CHECKS``, in their order."""
        proxy = self._proxy()
        if proxy.outcome == "failed":
            return [proxy, *(skipped(check, "the proxy lets nothing through") for check in CHECKS[1:])]
        tls = self._tls()
        if tls.outcome == "failed":
            return [proxy, tls, *(skipped(check, "there is no TLS connection") for check in CHECKS[2:])]
        path = self._path()
        return [proxy, tls, self._clock(), path, self._credentials(is_reached=path.outcome == "ok")]

    @property
    def _at_login(self) -> bool:
        """Whether the last answer is that of a login."""
        return bool(self.auth.answers) and self.auth.answers[-1].is_login

    @property
    def _has_login(self) -> bool:
        """Whether a login was successful."""
        return any(one.is_login and 200 <= one.status <= 299 and not one.is_page for one in self.auth.answers)

    def _proxy(self) -> Finding:
        if isinstance(self.error, ProxyError):
            return failed(
                "proxy",
                self.error.args[0],
                "check --proxy, PRINTOS_PROXY or HTTPS_PROXY with whoever runs the proxy: its address, user and"
                f" password, and that it allows connections to {self.origin.host}, port {self.origin.port}",
            )
        if not self.proxy:
            return skipped("proxy", "none is set")
        return ok("proxy", f"{self.proxy} lets requests through")

    def _tls(self) -> Finding:
        error = self.error
        if self.origin.scheme != "https":
            return skipped("tls", "the base URL is plain HTTP")
        if isinstance(error, TransportError) and not self.auth.answers:
            remedy = ""
            # With TLS 1.3 a server refuses a client certificate, or asks for one, only after the request was written.
            if "client certificate" in str(error):
                remedy = (
                    "give the certificate that the server's owner has issued, with its key: --client-cert and"
                    " --client-key"
                )
            elif "does not speak TLS" in str(error):
                remedy = f"this port speaks plain HTTP, or something else: correct the port or the scheme in {_BASE_URL}"
            elif not error.may_have_arrived:
                remedy = (
                    "if the network's own gateway opens TLS, trust its authority: --ca-file or --system-certificates;"
                    " else check --base-url, this machine's clock, and the server's certificate with its owner"
                )
            if remedy:
                return failed("tls", error.args[0], remedy)
        return ok("tls", f"the certificate of {self.origin.host} is trusted")

    def _clock(self) -> Finding:
        ahead_s = self.auth.ahead_s
        if ahead_s is None:
            is_foreign = any(answer.is_page for answer in self.auth.answers)
            return skipped(
                "clock", "PrintOS did not answer" if is_foreign else "no answer tells the server's time"
            )
        if abs(ahead_s) <= MIN_SKEW_S:
            return ok("clock", f"within {max(abs(ahead_s), 1.0):.0f} s of the server's")
        direction = "behind" if ahead_s > 0 else "ahead of"
        then = (
            "signed requests are sent with the server's time until then"
            if abs(ahead_s) <= MAX_SKEW_S
            else "signed requests are refused until then"
        )
        return failed(
            "clock",
            f"this machine's clock is {abs(ahead_s):,.0f} s {direction} the server's",
            f"set the clock, and keep it right with NTP; {then}",
        )

    def _path(self) -> Finding:
        """Return whether PrintOS answers at the base URL's path."""
        error = self.error
        if self.devices is not None:
            return ok(
                "path", f"the list of the devices is there, with {counted(len(self.devices), 'device')}"
            )
        if isinstance(error, StatusError):
            if error.status in (_LOGIN_REFUSED if self._at_login else _REFUSED):
                return ok("path", f"{error.path} is there, and refuses the credentials ({error.status})")
            return failed("path", error, self._status_remedy(error))
        if isinstance(error, ResponseDecodeError):
            remedy = (
                "something between answers instead of PrintOS: sign in at the network's login page, set --proxy, or"
                " have the proxy let requests through unchanged"
                if error.from_intermediary
                else f"another service answers; check {_BASE_URL}"
            )
            return failed("path", error, remedy)
        if isinstance(error, TransportError):
            remedy = f"the server took the request and did not answer it: check {_BASE_URL}, then try again"
            return failed("path", error, remedy)
        return skipped("path", "no request could be sent")

    def _status_remedy(self, error: StatusError) -> str:
        if 300 <= error.status <= 399:
            return f"give the address that the server names as {_BASE_URL}; a login page of the network redirects, too"
        if error.status == 407:
            return "a proxy answers: set --proxy or PRINTOS_PROXY, with its user and password"
        if error.status == 429:
            pause = "" if error.retry_after_s is None else f" {error.retry_after_s:.0f} s"
            return f"wait{pause}, and run the check again; PrintOS counts requests"
        if error.status >= 500:
            return "the server or a gateway before it is down: run the check again later"
        if self._at_login:
            return f"this is not PrintOS: check the host in {_BASE_URL}"
        also = "the login works, so the host is right: " if self._has_login else ""
        return f"{also}check the path in {_BASE_URL}; PrintOS's own has none"

    def _credentials(self, *, is_reached: bool) -> Finding:
        """Return whether the credentials are accepted; ``is_reached`` says that the answers are PrintOS's."""
        auth, error, label = self.auth, self.error, self.auth.label
        if auth.is_anonymous:
            return skipped("credentials", "there are none that can be used")
        if error is None:
            return ok("credentials", f"{label} is accepted")
        is_signed = not any(answer.is_login for answer in auth.answers)
        if is_signed and abs(auth.ahead_s or 0.0) > MAX_SKEW_S:
            return skipped("credentials", "signed requests are refused until the clock is right")
        is_missing = isinstance(error, MissingCredentialsError)
        if not (is_reached or is_missing):
            if self._has_login:
                return ok("credentials", f"{label} can log in")
            return skipped("credentials", "no answer tells whether they are right")
        detail = str(error) if is_missing else f"{label} is refused: {error}"
        remedy = (
            "check the key or login and its secret or password, and that they are of this system:"
            " credentials of stage.printos.api.hp.com are not valid on printos.api.hp.com"
        )
        if self._has_login and isinstance(error, StatusError) and error.status == 403:
            detail = f"{label} can log in, and may not list devices: {error}"
            remedy = "ask HP to allow it; statuses of the login's own device may be accepted all the same"
        return failed("credentials", detail, remedy)

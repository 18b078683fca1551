"""Settings of the client: base URL, credentials, transport and TLS, and the tenant of an outbox."""

from __future__ import annotations

import hashlib
import os
import ssl
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeAlias

import httpx
from attrs import frozen

from ._auth import Account, AnyAuth, DeviceCredentials, HmacAuth, SessionTokenAuth
from ._common import optional_httpx2
from ._common.checks import require_type
from ._common.http import is_loopback
from ._errors import ConfigurationError
from ._transport import Http1Transport, HttpxTransport, Origin
from ._transport.base import DEFAULT_PORTS
from ._transport.dial import LOCAL_ERRORS
from ._transport.proxy_url import ProxyUrl, proxy_from_env

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ._transport import Transport

    Verify: TypeAlias = bool | ssl.SSLContext | Callable[[], ssl.SSLContext]

PRODUCTION_URL = "https://printos.api.hp.com"
_MAX_ACCOUNT_LENGTH = 200


@frozen
class Tenant:
    """An account, as an outbox sees it: its rows are stored apart from those of others.

    Attributes:
        account: The account's fingerprint: 32 hexadecimal digits.
        label: Name for people, without a secret: the account's name, or the host and the first characters of the key.
        host: PrintOS's host, with its port unless that is the default one.
    """

    account: str
    label: str
    host: str


def parse_base_url(base_url: str, *, allow_insecure_http: bool) -> tuple[Origin, str]:
    """Return a base URL's origin and its path, percent-encoded and without a slash at the end.

    Raises:
        ConfigurationError: It is not an absolute HTTP URL, has credentials, a query or a fragment, or is plain HTTP to
            another machine without ``allow_insecure_http``.
    """
    require_type("base_url", base_url, str, "str")
    # No part of the text is repeated in these errors: it may hold a password.
    try:
        url = httpx.URL(base_url.strip())
        host = url.host  # decoded only now, which fails for `xn--`
    except (httpx.InvalidURL, ValueError):
        url = None
    if url is None:
        raise ConfigurationError("base_url is not a URL")
    if url.scheme not in DEFAULT_PORTS or not host:
        raise ConfigurationError(
            f"base_url must start with https:// and name a host, such as {PRODUCTION_URL}"
        )
    if url.userinfo:
        raise ConfigurationError(
            "base_url must not hold credentials; pass them as auth=HmacAuth(key, secret)"
        )
    if url.query or url.fragment:
        raise ConfigurationError("base_url must not have a query or a fragment")
    path = url.raw_path.decode("ascii").rstrip("/")
    return origin_of(url, allow_insecure_http=allow_insecure_http), path


def origin_of(url: httpx.URL, *, allow_insecure_http: bool) -> Origin:
    """Return the origin that a request for ``url`` goes to.

    Raises:
        ConfigurationError: It is not HTTP, has a port that does not exist, or is plain HTTP to another machine without
            ``allow_insecure_http``.
    """
    if url.scheme not in DEFAULT_PORTS:
        raise ConfigurationError(f"requests go over https or http, not {url.scheme!r}")
    if url.port is not None and not 0 < url.port < 65_536:
        raise ConfigurationError(f"requests cannot go to port {url.port}; ports are 1 to 65535")
    host = url.raw_host.decode("ascii")
    if url.scheme == "http" and not allow_insecure_http and not is_loopback(host):
        raise ConfigurationError(
            f"http://{host} would send credentials and statuses in clear text; use https, "
            "or pass allow_insecure_http=True where the network itself is trusted"
        )
    return Origin(url.scheme, host, url.port or DEFAULT_PORTS[url.scheme])


def settings_from_env() -> dict[str, Any]:
    """Return the arguments of a client that environment variables name.

    Raises:
        ConfigurationError: No pair, both pairs or half a pair of credentials is set.
    """
    base_url = os.environ.get("PRINTOS_BASE_URL") or PRODUCTION_URL
    return {
        "base_url": base_url,
        "auth": auth_from_env(os.environ),
        "account": os.environ.get("PRINTOS_ACCOUNT") or None,
        "proxy": proxy_from_env(base_url),
    }


def auth_from_env(env: Mapping[str, str]) -> HmacAuth | SessionTokenAuth:
    """Return the credentials in environment variables.

    Raises:
        ConfigurationError: No pair, both pairs or half a pair of variables is set.
    """
    try:
        return _auth_from_env(env)
    except ConfigurationError as error:
        problem = str(error)
    del env  # some tracebacks show the values of locals
    raise ConfigurationError(problem)


def _auth_from_env(env: Mapping[str, str]) -> HmacAuth | SessionTokenAuth:
    pairs: dict[tuple[str, str], type[HmacAuth | SessionTokenAuth]] = {
        ("PRINTOS_KEY", "PRINTOS_SECRET"): HmacAuth,
        ("PRINTOS_LOGIN", "PRINTOS_PASSWORD"): SessionTokenAuth,
    }
    given = {names: make for names, make in pairs.items() if any(env.get(name) for name in names)}
    if len(given) != 1:
        problem = "are both set" if given else "are not set"
        raise ConfigurationError(
            f"PRINTOS_KEY with PRINTOS_SECRET and PRINTOS_LOGIN with PRINTOS_PASSWORD {problem}; set one pair"
        )
    [(names, make)] = given.items()
    missing = [name for name in names if not env.get(name)]
    if missing:
        raise ConfigurationError(f"{missing[0]} is not set; {' and '.join(names)} belong together")
    return make(env[names[0]], env[names[1]])


def check_account(account: str | None) -> None:
    """Raise ``ConfigurationError`` unless ``account`` is None or can be the name of an account."""
    require_type("account", account, str | None, "a name")
    if account is None:
        return
    if not account or len(account) > _MAX_ACCOUNT_LENGTH:
        raise ConfigurationError(f"account must have 1 to {_MAX_ACCOUNT_LENGTH} characters")
    if not account.isprintable() or account != account.strip():
        raise ConfigurationError("account must be printable, without spaces at its ends")


def tenant_of(base_url: str, auth: AnyAuth | None, account: str | None) -> Tenant:
    """Return the tenant of an outbox: the named account, or else that of this base URL and these credentials.

    Raises:
        ConfigurationError: No account is named, and ``auth`` has no attribute ``account``.
    """
    host = base_url.partition("://")[2].partition("/")[0]
    if account is not None:
        return Tenant(_fingerprint(f"account\n{account}"), account, host)
    caller = "nobody" if auth is None else getattr(auth, "account", None)
    if not isinstance(caller, str):
        raise ConfigurationError(
            f"{type(auth).__name__} needs an attribute `account`, a text without secrets that identifies the"
            " caller: an outbox must not send one's statuses with another's credentials; or name the account:"
            ' PrintOSClient(account="site-7")'
        )
    label = Account(auth).label
    if isinstance(auth, DeviceCredentials) and auth.default is not None:
        # It is what tells the tenant from others of the host.
        label += f", {Account(auth.default).label}"
    return Tenant(_fingerprint(f"{base_url}\n{caller}"), f"{host} {label}", host)


def _fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def transport_factory(
    transport: httpx.AsyncBaseTransport | optional_httpx2.AsyncBaseTransport | None,
    verify: Verify,
    proxy: ProxyUrl,
) -> Callable[[], Transport]:
    """Return a function that makes the client's transport: the given one, or else the default transport.

    Raises:
        ConfigurationError: A value has the wrong type, or ``transport`` is combined with one of the others.
    """
    require_type(
        "transport",
        transport,
        httpx.AsyncBaseTransport | optional_httpx2.AsyncBaseTransport | None,
        "httpx.AsyncBaseTransport or httpx2.AsyncBaseTransport",
    )
    if not callable(verify):
        require_type("verify", verify, bool | ssl.SSLContext, "bool, ssl.SSLContext or a function")
    via = proxy.parse()
    if transport is None:
        # Loading the certificates takes a while: once, and only if needed.
        make_ssl_context = (
            partial(_ask, verify) if callable(verify) else cache(partial(_make_ssl_context, verify))
        )
        return lambda: Http1Transport(make_ssl_context=make_ssl_context, proxy=via)
    if verify is not True:
        raise ConfigurationError("verify does not reach into a transport; make the transport with it")
    if via is not None:
        raise ConfigurationError("proxy does not reach into a transport; make the transport with it")
    return lambda: HttpxTransport(transport)


def _ask(function: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    context = function()
    require_type("what verify returns", context, ssl.SSLContext, "ssl.SSLContext")
    return context


def _make_ssl_context(verify: bool | ssl.SSLContext) -> ssl.SSLContext:  # noqa: FBT001
    """Return the context for TLS; certificates are checked unless ``verify`` is False.

    Raises:
        ConfigurationError: The certificates to check against cannot be loaded.
        OSError: This process has no file descriptor left to read them.
    """
    if isinstance(verify, ssl.SSLContext):
        return verify
    try:
        return httpx.create_ssl_context(verify=verify)
    except OSError as error:
        if error.errno in LOCAL_ERRORS:
            raise
        reason = error.strerror or type(error).__name__
    raise ConfigurationError(
        f"the certificates to check servers against cannot be loaded ({reason}); look at SSL_CERT_FILE and SSL_CERT_DIR"
    )

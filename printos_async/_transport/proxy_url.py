"""The proxy's URL: parsed, and found in the environment."""

from __future__ import annotations

import base64
import os
from urllib.parse import unquote_to_bytes
from urllib.request import getproxies_environment, proxy_bypass

import httpx

from printos_async._common.checks import require_type
from printos_async._common.http import is_loopback
from printos_async._errors import ConfigurationError

from .base import DEFAULT_PORTS, Origin
from .proxy import Proxy

_EXAMPLE = "http://user:password@host:port"


class ProxyUrl:
    """A URL that may hold a password, kept where tracebacks that show the values of locals do not look."""

    def __init__(self, url: str | None) -> None:
        self._url = url

    def parse(self) -> Proxy | None:
        """Return the proxy, or None if there is no URL.

        Raises:
            ConfigurationError: It is no URL of an HTTP proxy. No part of it is repeated.
        """
        if self._url is None:
            return None
        try:
            return _parse(self._url)
        except ConfigurationError as error:
            problem = str(error)
        raise ConfigurationError(problem)


def proxy_from_env(base_url: str) -> str | None:
    """Return the URL of the proxy for a base URL, as environment variables name it.

    ``PRINTOS_PROXY``, else ``HTTPS_PROXY`` or ``https_proxy``, and for plain HTTP ``http_proxy``. The latter are not
    for hosts in ``NO_PROXY``, nor for this machine.
    """
    if url := os.environ.get("PRINTOS_PROXY"):
        return url
    try:
        target = httpx.URL(base_url.strip())
        host = target.host
    except (httpx.InvalidURL, ValueError):
        return None  # the client refuses it
    proxies = getproxies_environment()
    proxy = proxies.get(target.scheme)
    if not proxy or is_loopback(host) or proxy_bypass(target.netloc.decode("ascii")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"  # as other programs read it


def _parse(text: str) -> Proxy:
    require_type("proxy", text, str, f"a URL such as {_EXAMPLE}")
    try:
        url = httpx.URL(text.strip())
        host = url.raw_host.decode("ascii")
        if ":" in host:
            host = host.replace("%25", "%")  # before the zone of an IPv6 address: RFC 6874
        # Not url.username: that replaces what is not UTF-8.
        user, _, password = map(unquote_to_bytes, url.userinfo.partition(b":"))
    except (httpx.InvalidURL, ValueError):
        raise ConfigurationError(
            f"proxy is not a URL such as {_EXAMPLE}; characters such as @ and / in the password are percent-encoded"
        ) from None
    if url.scheme.startswith("socks"):
        raise ConfigurationError(
            "proxy must be an HTTP proxy; for SOCKS pass transport=httpx.AsyncHTTPTransport(proxy=...)"
        )
    if url.scheme not in DEFAULT_PORTS or not host:
        raise ConfigurationError(f"proxy must start with http:// or https:// and name a host: {_EXAMPLE}")
    if url.port is not None and not 0 < url.port < 65_536:
        raise ConfigurationError(f"proxy must not have port {url.port}; ports are 1 to 65535")
    if url.raw_path not in {b"", b"/"} or url.fragment:
        raise ConfigurationError("proxy must not have a path, a query or a fragment")
    if b":" in user:
        raise ConfigurationError(
            "the user in proxy must not contain a colon, which ends it in Basic credentials"
        )
    authorization = None
    if url.userinfo:
        # RFC 7617, section 2.1.
        authorization = "Basic " + base64.b64encode(user + b":" + password).decode("ascii")
    return Proxy(Origin(url.scheme, host, url.port or DEFAULT_PORTS[url.scheme]), authorization)

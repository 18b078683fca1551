"""The proxy's URL: what is accepted, and where it is found."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from printos_async import ConfigurationError, HmacAuth, PrintOSClient
from printos_async._transport import Origin
from printos_async._transport.proxy_url import ProxyUrl, proxy_from_env
from tests.auth.tracebacks import assert_hidden_in_traceback

if TYPE_CHECKING:
    from collections.abc import Callable

PASSWORD = "pr0xy-p4ss"
URL = "https://printos.api.hp.com"


@pytest.mark.parametrize(
    ("url", "origin", "credentials"),
    [
        ("http://[fe80::1%25eth0]:8080", Origin("http", "fe80::1%eth0", 8080), None),
        ("http://proxy:3128", Origin("http", "proxy", 3128), None),
        ("http://proxy", Origin("http", "proxy", 80), None),
        (" https://proxy/ ", Origin("https", "proxy", 443), None),
        ("http://[::1]:8080", Origin("http", "::1", 8080), None),
        ("http://press:word@proxy:3128", Origin("http", "proxy", 3128), "press:word"),
        ("http://press:w%40%2Frd%3A%25@proxy", Origin("http", "proxy", 80), "press:w@/rd:%"),
        ("http://pr%C3%A9ss@proxy", Origin("http", "proxy", 80), "préss:"),
        ("HTTP://PROXY.example:3128", Origin("http", "proxy.example", 3128), None),
    ],
)
def test_url_of_a_proxy_is_read(url: str, origin: Origin, credentials: str | None) -> None:
    proxy = ProxyUrl(url).parse()
    assert proxy is not None
    assert proxy.origin == origin
    expected = None if credentials is None else "Basic " + base64.b64encode(credentials.encode()).decode()
    assert proxy.authorization == expected
    assert expected is None or expected not in repr(proxy)


def test_credentials_that_are_not_utf8_are_sent_as_they_are() -> None:
    proxy = ProxyUrl("http://pr%FFss:w%E9rd%00@proxy").parse()
    assert proxy is not None
    assert proxy.authorization is not None
    assert base64.b64decode(proxy.authorization.removeprefix("Basic ")) == b"pr\xffss:w\xe9rd\0"


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("http://press:word@proxy", "word"),
        ("http://press:w%40%2Frd%3A%25@proxy", "w@/rd:%"),
        ("http://press:w%E9rd@proxy", "w\ufffdrd"),
    ],
)
def test_password_and_what_is_sent_of_it_are_secrets(url: str, password: str) -> None:
    proxy = ProxyUrl(url).parse()
    assert proxy is not None
    credentials, *others = proxy.secrets
    assert proxy.authorization == f"Basic {credentials}"
    assert others == [password]


REFUSED: dict[str, Callable[[], tuple[Any, str]]] = {
    "no scheme": lambda: (f"press:{PASSWORD}@proxy:3128", "http://"),
    "no host": lambda: (f"http://press:{PASSWORD}@", "host"),
    "SOCKS": lambda: (f"socks5://press:{PASSWORD}@proxy", "AsyncHTTPTransport"),
    "path": lambda: (f"http://press:{PASSWORD}@proxy/x", "path"),
    "query": lambda: (f"http://press:{PASSWORD}@proxy?x", "query"),
    "fragment": lambda: (f"http://press:{PASSWORD}@proxy#x", "fragment"),
    "raw slash in the password": lambda: (f"http://press:{PASSWORD}/@proxy", "percent-encoded"),
    "bad port": lambda: (f"http://press:{PASSWORD}@proxy:x", "not a URL"),
    "colon in the user": lambda: (f"http://pr%3Aess:{PASSWORD}@proxy", "colon"),
    "bytes": lambda: (f"http://press:{PASSWORD}@proxy".encode(), "bytes"),
    "port 0": lambda: (f"http://press:{PASSWORD}@proxy:0", "port 0"),
    "port 65536": lambda: (f"http://press:{PASSWORD}@proxy:65536", "port 65536"),
    "empty": lambda: ("", "http://"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_url_that_is_refused_is_not_shown(kind: str) -> None:
    def make() -> None:
        PrintOSClient(URL, auth=None, proxy=REFUSED[kind]()[0])

    with pytest.raises(ConfigurationError, match=REFUSED[kind]()[1]) as caught:
        make()
    assert_hidden_in_traceback(caught.value, [PASSWORD])


def test_another_wrong_setting_does_not_show_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRINTOS_PROXY", f"http://press:{PASSWORD}@proxy")
    monkeypatch.setenv("PRINTOS_KEY", "key")
    monkeypatch.setenv("PRINTOS_SECRET", "secret")
    monkeypatch.setenv("PRINTOS_BASE_URL", "https://printos.invalid")
    with pytest.raises(ConfigurationError, match="timeout_s") as caught:
        PrintOSClient.from_env(timeout_s=-1)
    assert_hidden_in_traceback(caught.value, [PASSWORD])


async def test_transport_has_a_proxy_of_its_own() -> None:
    async with httpx.AsyncHTTPTransport() as transport:
        with pytest.raises(ConfigurationError, match="proxy does not reach into a transport"):
            PrintOSClient(URL, auth=HmacAuth("k", "secret"), transport=transport, proxy="http://proxy")


@pytest.mark.parametrize(
    ("base_url", "env", "expected"),
    [
        (URL, {}, None),
        (URL, {"PRINTOS_PROXY": "http://a", "HTTPS_PROXY": "http://b", "NO_PROXY": "*"}, "http://a"),
        (URL, {"PRINTOS_PROXY": "", "HTTPS_PROXY": "http://b"}, "http://b"),
        (URL, {"HTTPS_PROXY": "http://b", "https_proxy": "http://c"}, "http://c"),
        (URL, {"HTTPS_PROXY": "b:3128"}, "http://b:3128"),
        (URL, {"HTTP_PROXY": "http://b", "ALL_PROXY": "http://c"}, None),
        (URL, {"HTTPS_PROXY": "http://b", "NO_PROXY": "x,.hp.com"}, None),
        (URL, {"HTTPS_PROXY": "http://b", "no_proxy": "printos.api.hp.com:443"}, "http://b"),
        (URL, {"HTTPS_PROXY": "http://b", "NO_PROXY": "p.com"}, "http://b"),
        (URL, {"HTTPS_PROXY": "http://b", "NO_PROXY": "*"}, None),
        ("http://printos.test", {"http_proxy": "http://b"}, "http://b"),
        ("http://printos.test:8080", {"http_proxy": "http://b", "no_proxy": "printos.test:8080"}, None),
        ("http://printos.test", {"HTTPS_PROXY": "http://b"}, None),
        ("http://localhost:8080", {"http_proxy": "http://b"}, None),
        ("https://127.0.0.1:8080", {"HTTPS_PROXY": "http://b"}, None),
        ("https://[::1]", {"HTTPS_PROXY": "http://b"}, None),
        ("https://host:port", {"HTTPS_PROXY": "http://b"}, None),
    ],
)
def test_environment_names_the_proxy(
    monkeypatch: pytest.MonkeyPatch, base_url: str, env: dict[str, str], expected: str | None
) -> None:
    for name in ("PRINTOS", "HTTPS", "HTTP", "ALL", "NO"):
        monkeypatch.delenv(f"{name}_PROXY", raising=False)
        monkeypatch.delenv(f"{name.lower()}_proxy", raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert proxy_from_env(base_url) == expected

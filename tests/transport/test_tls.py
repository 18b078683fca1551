"""TLS that fails: the error says which certificate was refused, by whom, and why."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import trustme

from printos_async._transport import ExchangeError, Http1Transport, Origin, RawRequest
from printos_async._transport.proxy_url import ProxyUrl

from .blocking_tls import refusing_server
from .proxy import ConnectProxy
from .scripted import OK, ScriptedServer, always

if TYPE_CHECKING:
    from .conftest import Tls


async def failure(client: ssl.SSLContext, origin: Origin, proxy: ConnectProxy | None = None) -> ExchangeError:
    """Send one request, which must fail."""
    url = None if proxy is None else proxy.url
    transport = Http1Transport(make_ssl_context=lambda: client, proxy=ProxyUrl(url).parse())
    request = RawRequest(origin, "POST", "/", (), b"{}")
    with pytest.raises(ExchangeError) as caught:
        await transport.send(request, deadline=asyncio.get_running_loop().time() + 10, max_body_bytes=0)
    await transport.aclose()
    assert not caught.value.timed_out
    return caught.value


@pytest.mark.parametrize("via", ["direct", "proxy"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize(
    ("certificate", "words"),
    [
        ("none", "asks for a client certificate"),
        ("of another authority", "refuses the client certificate, for it does not know its authority"),
        ("expired", "refuses the client certificate, for it has expired"),
    ],
)
async def test_refused_client_certificate_is_named(
    tls: Tls, certificate: str, words: str, version: ssl.TLSVersion, via: str
) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.verify_mode = ssl.CERT_REQUIRED
    server.minimum_version = server.maximum_version = version
    tls.authority.configure_trust(server)
    tls.authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    tls.authority.configure_trust(client)
    if certificate == "of another authority":
        trustme.CA().issue_cert("press@example.test").configure_cert(client)
    elif certificate == "expired":
        old, older = datetime(2020, 1, 1, tzinfo=UTC), datetime(2019, 1, 1, tzinfo=UTC)
        issued = tls.authority.issue_cert("press@example.test", not_before=older, not_after=old)
        issued.configure_cert(client)
    if certificate == "none" and version == ssl.TLSVersion.TLSv1_2:
        words = "it may ask for a client certificate"
    with refusing_server(server) as port:
        origin = Origin("https", "127.0.0.1", port)
        if via == "direct":
            error = await failure(client, origin)
        else:
            async with ConnectProxy() as proxy:
                error = await failure(client, origin, proxy)
    assert words in error.reason
    # TLS 1.3: refused when the client has finished, and so has begun to write.
    assert error.may_have_arrived is (version == ssl.TLSVersion.TLSv1_3)


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        ("unknown authority", "no trusted authority issued it"),
        ("other name", "it is for another address"),
        ("expired", "it has expired"),
        ("future", "it is not valid yet; check this machine's clock"),
    ],
)
async def test_refused_certificate_of_the_server_is_named(problem: str, words: str) -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    client = ssl.create_default_context()
    if problem != "unknown authority":
        authority.configure_trust(client)
    years = {"expired": (2019, 2020), "future": (2090, 2091)}.get(problem)
    not_before, not_after = (datetime(year, 1, 1, tzinfo=UTC) for year in years) if years else (None, None)
    name = "10.1.2.3" if problem == "other name" else "127.0.0.1"
    authority.issue_cert(name, not_before=not_before, not_after=not_after).configure_cert(server_context)
    async with ScriptedServer(always(OK), server_context) as server:
        error = await failure(client, server.origin)
        assert f"the certificate of 127.0.0.1:{server.origin.port} is refused" in error.reason
        assert words in error.reason
        assert error.may_have_arrived is False


async def test_server_without_tls_is_named(tls: Tls) -> None:
    async with ScriptedServer(lambda peer: peer.send(b"HTTP/1.1 400 No\r\n\r\n")) as server:
        error = await failure(tls.client, server.origin._replace(scheme="https"))
        assert f"127.0.0.1:{server.origin.port} does not speak TLS" in error.reason

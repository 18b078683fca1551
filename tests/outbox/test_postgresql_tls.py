"""A password and statuses go to a server that has proved to be the right one, unless the URL says otherwise."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from printos_async import OutboxError, SqlOutbox

from .stores import ACCOUNT, draft
from .tls_front import fronted

if TYPE_CHECKING:
    from pathlib import Path

# Leads to this machine, and is no address of the loopback network: it stands for another machine.
ELSEWHERE = "0.0.0.0"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def root(authority: trustme.CA, tmp_path: Path) -> Path:
    file = tmp_path / "root.crt"
    authority.cert_pem.write_to_path(file)
    return file


@pytest.fixture(autouse=True)
def no_settings_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"):
        monkeypatch.delenv(name, raising=False)


def context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(made)
    return made


async def use(url: str) -> None:
    outbox = SqlOutbox(url)
    try:
        await outbox.open(ACCOUNT)
        await outbox.put([draft("dev-1")])
    finally:
        await outbox.aclose()


async def test_a_server_elsewhere_has_to_prove_itself_before_anything_is_sent(
    postgres_url: str, authority: trustme.CA, root: Path
) -> None:
    async with fronted(postgres_url, context(authority, ELSEWHERE), ELSEWHERE) as (front, url):
        with pytest.raises(OutboxError, match="sslrootcert"):
            await use(url)
        assert front.received == b""
        await use(f"{url}?sslrootcert={root}")
        assert b"dev-1" in front.received
        assert front.encrypted


async def test_a_server_elsewhere_that_offers_no_tls_gets_nothing(postgres_url: str) -> None:
    async with fronted(postgres_url, None, ELSEWHERE) as (front, url):
        with pytest.raises(OutboxError, match="sslmode=disable"):
            await use(url)
        assert front.received == b""
        await use(f"{url}?sslmode=disable")
        assert b"dev-1" in front.received


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
async def test_a_server_on_this_machine_need_not_offer_tls(postgres_url: str, mode: str) -> None:
    async with fronted(postgres_url, None, "127.0.0.1") as (_, url):
        await use(url)
        await use(f"{url}?sslmode={mode}")
        with pytest.raises(OutboxError, match="rejected SSL upgrade"):
            await use(f"{url}?sslmode=require")


async def test_the_certificates_that_the_system_trusts_are_enough(
    postgres_url: str, authority: trustme.CA, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fronted(postgres_url, context(authority, ELSEWHERE), ELSEWHERE) as (front, url):
        monkeypatch.setenv("SSL_CERT_FILE", str(root))
        await use(url)
        await use(f"{url}?sslmode=verify-full&sslrootcert=system")
        assert front.encrypted


@pytest.mark.parametrize(("mode", "refused"), [("require", ""), ("verify-ca", "CA"), ("verify-full", "name")])
async def test_each_mode_checks_what_it_does_in_libpq(
    postgres_url: str, authority: trustme.CA, root: Path, mode: str, refused: str
) -> None:
    async with fronted(postgres_url, context(authority, "other.example"), "127.0.0.1") as (front, url):
        if refused:
            with pytest.raises(OutboxError, match="certificate verify failed"):
                await use(f"{url}?sslmode={mode}")
            assert front.received == b""
        else:
            await use(f"{url}?sslmode={mode}")
        if refused == "name":
            with pytest.raises(OutboxError, match="certificate verify failed"):
                await use(f"{url}?sslmode={mode}&sslrootcert={root}")
            assert front.received == b""
        else:
            await use(f"{url}?sslmode={mode}&sslrootcert={root}")


async def test_a_client_has_a_certificate_of_its_own(
    postgres_url: str, authority: trustme.CA, root: Path, tmp_path: Path
) -> None:
    server = context(authority, ELSEWHERE)
    authority.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED
    own = authority.issue_cert("printos@example.org")
    (tmp_path / "own.crt").write_bytes(own.cert_chain_pems[0].bytes())
    key = serialization.load_pem_private_key(own.private_key_pem.bytes(), None)
    (tmp_path / "own.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"opens it"),
        )
    )
    files = f"sslrootcert={root}&sslcert={tmp_path}/own.crt&sslkey={tmp_path}/own.key"
    async with fronted(postgres_url, server, ELSEWHERE) as (front, url):
        with pytest.raises(OutboxError):
            await use(f"{url}?sslrootcert={root}")
        await use(f"{url}?{files}&sslpassword=opens%20it")
        assert b"dev-1" in front.received

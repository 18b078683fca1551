"""Commands behind a proxy, and with certificates of their own: through real sockets and real TLS."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import signal
import ssl
import sys
from typing import TYPE_CHECKING

import pytest
import trustme
from attrs import define

from printos_async.cli.options.tls_files import TlsFiles
from printos_async.cli.terminal.output import CommandError
from tests.transport.blocking_tls import refusing_server
from tests.transport.proxy import PASSWORD, URL_CREDENTIALS, ConnectProxy, TlsFront

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from printos_async.sandbox import Sandbox

    from .conftest import Cli


@define(eq=False)
class Site:
    """PrintOS behind an authenticating proxy, with a certificate of an own authority, asking clients for theirs."""

    proxy: ConnectProxy
    front: TlsFront
    authority: trustme.CA
    folder: Path

    @property
    def ca_file(self) -> Path:
        return self.folder / "authority.pem"

    @property
    def certificate(self) -> Path:
        return self.folder / "client.pem"

    @property
    def key(self) -> Path:
        return self.folder / "client.key"

    def issue(self, authority: trustme.CA | None = None) -> None:
        """Write a client certificate and its key."""
        write(authority or self.authority, self.certificate, self.key)

    @property
    def options(self) -> tuple[object, ...]:
        return (
            *("--proxy", self.proxy.url, "--ca-file", self.ca_file),
            *("--client-cert", self.certificate, "--client-key", self.key),
        )


def write(authority: trustme.CA, certificate: Path, key: Path) -> None:
    issued = authority.issue_cert("press-7@example.test")
    key.write_bytes(issued.private_key_pem.bytes())
    certificate.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))


@pytest.fixture(autouse=True)
def _no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def site(
    sandbox: Sandbox, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Site]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with TlsFront(context, sandbox.port) as front, ConnectProxy(authenticates=True) as proxy:
        site = Site(proxy, front, authority, tmp_path)
        authority.cert_pem.write_to_path(str(site.ca_file))
        site.issue()
        monkeypatch.setenv("PRINTOS_BASE_URL", front.url)
        yield site


def lines(count: int) -> str:
    return "".join(
        json.dumps({"deviceId": f"dev-{1 + number % 3}", "status": "DS_ON"}) + "\n" for number in range(count)
    )


def newest(sandbox: Sandbox, device_id: str) -> object:
    status = sandbox.devices[device_id].status
    return None if status is None else status["status"]


async def test_devices_push_and_worker_work(cli: Cli, sandbox: Sandbox, site: Site) -> None:
    listed = await cli.run("devices", "list", "--json", *site.options)
    assert (listed.code, len(listed.json["devices"])) == (0, 3)
    file = cli.file("statuses.jsonl", lines(3))
    assert (await cli.run("push", file, *site.options)).code == 0
    assert newest(sandbox, "dev-3") == "DS_ON"

    outbox = f"sqlite+aiosqlite:///{cli.folder / 'spool.db'}"
    newer = cli.file("newer.jsonl", lines(3).replace("DS_ON", "DS_OFF"))
    assert (await cli.run("push", newer, "--spool", "--outbox", outbox, *site.options)).code == 0
    worker = await cli.start("worker", "--outbox", outbox, "--json", *site.options)
    await sandbox.wait_for(lambda: newest(sandbox, "dev-3") == "DS_OFF", timeout_s=20)
    worker.send_signal(signal.SIGHUP)
    await worker.complaint("the files for TLS were read again")
    worker.send_signal(signal.SIGTERM)
    ended = await worker.wait()
    assert (ended.code, ended.json["sent"]) == (0, 3)
    assert site.proxy.tunnels == site.front.connections >= 3


async def test_environment_says_the_same_as_options(
    cli: Cli, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRINTOS_PROXY", site.proxy.url)
    monkeypatch.setenv("PRINTOS_CA_FILE", str(site.ca_file))
    monkeypatch.setenv("PRINTOS_CLIENT_CERT", str(site.certificate))
    monkeypatch.setenv("PRINTOS_CLIENT_KEY", str(site.key))
    assert (await cli.run("devices", "list")).code == 0
    assert site.proxy.tunnels == 1


async def test_wrong_password_of_the_proxy_is_named_and_not_shown(cli: Cli, site: Site) -> None:
    wrong = URL_CREDENTIALS[:-1] + "2"
    ended = await cli.run(
        "devices", "list", *site.options, "--proxy", site.proxy.url.replace(URL_CREDENTIALS, wrong)
    )
    assert ended.code == 1
    assert "refuses its credentials (407)" in ended.err
    assert PASSWORD[:-1] not in ended.err
    assert wrong not in ended.err
    assert len(site.proxy.heads) == 1


@pytest.mark.parametrize("where", ["option", "environment"])
async def test_url_of_a_proxy_that_cannot_be_used_is_not_shown(
    cli: Cli, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    url = "socks5://press:pr0xy-p4ss@proxy"
    options = ("--proxy", url) if where == "option" else ()
    if where == "environment":
        monkeypatch.setenv("PRINTOS_PROXY", url)
    ended = await cli.run("devices", "list", *options)
    assert ended.code == 2
    assert ("--proxy" if where == "option" else "PRINTOS_PROXY") in ended.err
    assert "pr0xy-p4ss" not in ended.err


async def test_missing_client_certificate_is_named(
    cli: Cli, sandbox: Sandbox, authority: trustme.CA, tmp_path: Path
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    with refusing_server(context) as port:
        ended = await cli.run(
            *("devices", "list", "--max-attempts", 1, "--ca-file", tmp_path / "authority.pem"),
            *("--base-url", f"https://127.0.0.1:{port}"),
        )
    assert ended.code == 1
    assert "asks for a client certificate; give one with verify= or --client-cert" in ended.err


async def test_authority_that_is_not_trusted_is_named(cli: Cli, site: Site) -> None:
    ended = await cli.run("devices", "list", "--max-attempts", 1, "--proxy", site.proxy.url)
    assert ended.code == 1
    assert "no trusted authority issued it" in ended.err
    assert "--ca-file" in ended.err


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> tuple[Path, Path, Path]:
    ca_file, certificate, key = (tmp_path / name for name in ("ca.pem", "client.pem", "client.key"))
    authority.cert_pem.write_to_path(str(ca_file))
    write(authority, certificate, key)
    return ca_file, certificate, key


@pytest.mark.parametrize(
    ("broken", "content", "words"),
    [
        (0, None, "cannot read the authorities in"),
        (0, b"nothing", "holds no certificate in PEM form"),
        (1, None, "cannot read the client certificate in"),
        (1, b"nothing", "must hold a certificate and its key in PEM form"),
        (2, None, "cannot read the client key in"),
        (2, b"another", "does not belong to the certificate in"),
        (2, b"encrypted", "is encrypted"),
    ],
)
def test_file_that_cannot_be_used_is_named(
    files: tuple[Path, Path, Path], broken: int, content: bytes | None, words: str
) -> None:
    path = files[broken]
    if content is None:
        path.unlink()
    elif content == b"another":
        path.write_bytes(trustme.CA().issue_cert("x.test").private_key_pem.bytes())
    elif content == b"encrypted":
        path.write_bytes(_encrypted(path.read_bytes()))
    else:
        path.write_bytes(content)
    with pytest.raises(CommandError, match=words) as caught:
        TlsFiles(*files)
    assert str(path) in str(caught.value)


def _encrypted(key: bytes) -> bytes:
    from cryptography.hazmat.primitives import serialization as form  # noqa: PLC0415

    loaded = form.load_pem_private_key(key, None)
    return loaded.private_bytes(
        form.Encoding.PEM, form.PrivateFormat.PKCS8, form.BestAvailableEncryption(b"word")
    )


async def test_key_without_a_certificate_is_refused(cli: Cli, sandbox: Sandbox, tmp_path: Path) -> None:
    ended = await cli.run("devices", "list", "--client-key", tmp_path / "key.pem")
    assert ended.code == 2
    assert "--client-cert" in ended.err


def test_context_is_kept_until_a_file_changes(
    files: tuple[Path, Path, Path], authority: trustme.CA, capsys: pytest.CaptureFixture[str]
) -> None:
    provider = TlsFiles(*files)
    first = provider.context()
    assert provider.context() is first
    key = files[2].read_bytes()
    files[2].write_bytes(b"half of a ke")
    for _ in range(3):
        assert provider.context() is first
    assert capsys.readouterr().err.count("new connections use what was read before") == 1
    files[2].write_bytes(key)
    second = provider.context()
    assert second is not first
    assert capsys.readouterr().err == "printos: the files for TLS were read again\n"
    files[0].unlink()
    assert provider.context() is second
    assert f"cannot read the authorities in {files[0]}" in capsys.readouterr().err


def test_files_are_read_again_when_asked(files: tuple[Path, Path, Path]) -> None:
    provider = TlsFiles(*files)
    first = provider.context()
    provider.read_again()
    assert provider.context() is not first


async def test_running_command_takes_a_new_certificate(cli: Cli, sandbox: Sandbox, site: Site) -> None:
    site.issue(trustme.CA())  # one that the server refuses
    running = await cli.start("push", "-", "--follow", "--json", *site.options)
    await running.write(lines(1).encode())
    async with asyncio.timeout(20):
        while site.proxy.tunnels < 1:
            site.proxy.read.clear()
            await site.proxy.read.wait()
    site.issue()
    await sandbox.wait_for(lambda: newest(sandbox, "dev-1") == "DS_ON", timeout_s=20)
    ended = await running.wait(b"")
    assert ended.json["sent"] == 1
    assert "the files for TLS were read again" in ended.err


@pytest.mark.skipif(importlib.util.find_spec("truststore") is None, reason="needs truststore")
async def test_systems_authorities_and_those_of_a_file_are_trusted(cli: Cli, site: Site) -> None:
    assert (await cli.run("devices", "list", "--system-certificates", *site.options)).code == 0
    ended = await cli.run(
        *("devices", "list", "--system-certificates", "--max-attempts", 1, "--proxy", site.proxy.url)
    )
    assert ended.code == 1
    assert "no trusted authority issued it" in ended.err


async def test_missing_package_for_the_systems_authorities_is_named(
    cli: Cli, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "truststore", None)
    ended = await cli.run("devices", "list", "--system-certificates")
    assert ended.code == 2
    assert "pip install" in ended.err

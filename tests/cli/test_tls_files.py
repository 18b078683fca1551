"""Files for TLS that are replaced, missing or not readable for a moment."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
import trustme

from printos_async.cli.options import tls_files
from printos_async.cli.options.tls_files import TlsFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from printos_async.sandbox import Sandbox

    from .conftest import Cli

_NOBODY = 65_534
KEPT = "new connections use what was read before"
READ = "printos: the files for TLS were read again\n"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certificate(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "client.pem"
    authority.issue_cert("press-7@example.test").private_key_and_cert_chain_pem.write_to_path(str(path))
    return path


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def provider(certificate: Path, ca_file: Path) -> TlsFiles:
    return TlsFiles(ca_file, certificate, None)


@contextmanager
def another_user() -> Iterator[None]:
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def age(path: Path) -> None:
    os.utime(path, (1, 1))


@pytest.mark.parametrize("name", ["ca_file", "certificate"])
@pytest.mark.parametrize("ask", [TlsFiles.context, TlsFiles.read_again], ids=["context", "reload"])
def test_a_file_that_vanishes_while_it_is_read_leaves_the_last_context(
    *,
    name: str,
    ask: Callable[[TlsFiles], object],
    provider: TlsFiles,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, path = provider.context(), request.getfixturevalue(name)
    content = path.read_bytes()
    really = tls_files.require_readable

    def vanish(found: Path, holds: str) -> None:
        really(found, holds)
        found.unlink(missing_ok=True)  # as `rm` and `install` do, at this moment

    age(path)
    with monkeypatch.context() as patched:
        patched.setattr(
            tls_files, "require_readable", lambda *of: vanish(*of) if of[0] == path else really(*of)
        )
        ask(provider)
    assert f"{path}: No such file or directory; {KEPT}" in capsys.readouterr().err
    assert provider.context() is first
    path.write_bytes(content)
    assert provider.context() is not first


def test_files_that_cannot_be_read_for_want_of_descriptors_are_read_later(
    certificate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resource = pytest.importorskip("resource")
    now_s = 0.0
    provider = TlsFiles(None, certificate, None, clock=lambda: now_s)
    first = provider.context()
    age(certificate)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        assert provider.context() is first
        assert provider.context() is first
        provider.read_again()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert capsys.readouterr().err.count(KEPT) == 2  # for the change, and for the signal
    now_s += 1.0
    assert provider.context() is not first  # the file looks as it did
    assert capsys.readouterr().err == READ


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="gives a file to another user")
def test_a_renewed_key_that_becomes_readable_later_is_read(
    authority: trustme.CA, capsys: pytest.CaptureFixture[str]
) -> None:
    with TemporaryDirectory() as folder:  # pytest's own are for this user alone
        Path(folder).chmod(0o755)
        certificate = Path(folder, "client.pem")
        authority.issue_cert("press-7@example.test").private_key_and_cert_chain_pem.write_to_path(
            str(certificate)
        )
        certificate.chmod(0o600)
        os.chown(certificate, _NOBODY, -1)
        provider = TlsFiles(None, certificate, None)
        first = provider.context()
        os.chown(certificate, 0, -1)
        age(certificate)
        with another_user():
            assert provider.context() is first
        assert f"{certificate}: Permission denied; {KEPT}" in capsys.readouterr().err
        os.chown(certificate, _NOBODY, -1)  # changes no size, no number, and no time of the last write
        with another_user():
            assert provider.context() is not first
        assert capsys.readouterr().err == READ


@pytest.mark.parametrize("content", [None, b"no certificate"], ids=["missing", "broken"])
@pytest.mark.parametrize("with_certificate", [False, True], ids=["no_certificate", "certificate"])
async def test_a_wrong_ssl_cert_file_is_named(
    *,
    cli: Cli,
    sandbox: Sandbox,
    certificate: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes | None,
    with_certificate: bool,
) -> None:
    path = tmp_path / "authorities.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    monkeypatch.setenv("PRINTOS_BASE_URL", "https://127.0.0.1:1")
    options = ("--client-cert", certificate) if with_certificate else ()
    ended = await cli.run("devices", "list", *options)
    assert ended.code == 2
    assert "SSL_CERT_FILE" in ended.err
    assert str(path) in ended.err or (content is not None and not with_certificate)

"""A context for TLS that cannot be made for a moment: no status is given up, and none stays claimed."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from attrs import define, field

from printos_async import (
    ConfigurationError,
    HmacAuth,
    MemoryOutbox,
    Outbox,
    PrintOSClient,
    SqlOutbox,
    StatusFailed,
    TransportError,
)
from tests.conftest import KEY, QUICK_RETRY, SECRET, status
from tests.transport.proxy import TlsFront

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from printos_async import Event
    from printos_async.sandbox import Sandbox


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@define(eq=False)
class Verify:
    """Function for ``verify``: fails as scripted, then returns a context that trusts the sandbox."""

    authority: trustme.CA
    failures: list[Exception] = field(factory=list)
    result: Any = None
    calls: int = 0

    def __call__(self) -> ssl.SSLContext:
        self.calls += 1
        if self.failures:
            raise self.failures.pop()
        if self.result is None:
            context = ssl.create_default_context()
            self.authority.configure_trust(context)
            self.result = context
        return self.result  # type: ignore[no-any-return]


def of_the_moment() -> list[Exception]:
    missing = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "authority.pem")
    half_written = ssl.SSLError(1, "no certificate or crl found")
    return [OSError(errno.EMFILE, os.strerror(errno.EMFILE)), missing, half_written]


@pytest.fixture
def verify(authority: trustme.CA) -> Verify:
    return Verify(authority)


@pytest.fixture(params=["none", "memory", "sqlite"])
def outbox(request: pytest.FixtureRequest, tmp_path: Path) -> Outbox | None:
    match request.param:
        case "none":
            return None
        case "memory":
            return MemoryOutbox()
    return SqlOutbox(f"sqlite+aiosqlite:///{tmp_path}/spool.db")


@asynccontextmanager
async def secure_client(
    sandbox: Sandbox, authority: trustme.CA, **settings: Any
) -> AsyncIterator[PrintOSClient]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with TlsFront(context, sandbox.port) as front:
        settings = {"auth": HmacAuth(KEY, SECRET), "retry": QUICK_RETRY, **settings}
        async with PrintOSClient(front.url, **settings) as client:
            yield client


async def test_a_pusher_retries_after_verify_failed(
    sandbox: Sandbox, authority: trustme.CA, verify: Verify, outbox: Outbox | None
) -> None:
    verify.failures = of_the_moment()
    async with (
        secure_client(sandbox, authority, verify=verify) as client,
        client.status_pusher(outbox=outbox) as pusher,
    ):
        result = await pusher.push("dev-1", status(1))
        assert (result.outcome, result.attempts) == ("sent", 4)
        stats = await pusher.drain(10.0)
    assert (stats.sent, stats.failed, stats.pending) == (1, 0, 0)
    assert stats.circuit == "closed"


async def test_calls_and_bulk_pushes_retry_after_verify_failed(
    sandbox: Sandbox, authority: trustme.CA, verify: Verify
) -> None:
    async with secure_client(sandbox, authority, verify=verify) as client:
        verify.failures = of_the_moment()
        assert await client.list_devices()
    async with secure_client(sandbox, authority, verify=verify) as client:
        verify.failures = of_the_moment()
        assert (await client.push_statuses({"dev-1": status(1)})).sent == 1


async def test_verify_that_fails_again_and_again_is_named(
    sandbox: Sandbox, authority: trustme.CA, verify: Verify, caplog: pytest.LogCaptureFixture
) -> None:
    missing = os.strerror(errno.ENOENT)
    verify.failures = [OSError(errno.ENOENT, missing)] * 10
    async with secure_client(sandbox, authority, verify=verify) as client:
        with pytest.raises(TransportError, match="verify returns no context for TLS: ") as caught:
            await client.list_devices()
    error = caught.value
    assert (error.local, error.may_have_arrived, error.attempts) == (True, False, QUICK_RETRY.max_attempts)
    assert error.__cause__ is error.__context__ is None
    assert [(record.name, record.levelname, record.error) for record in caplog.records] == [  # type: ignore[attr-defined]
        ("printos_async", "WARNING", "FileNotFoundError")
    ]
    assert missing in caplog.text


async def test_verify_that_fails_by_a_bug_fails_calls_and_pushes_with_a_transport_error(
    sandbox: Sandbox, authority: trustme.CA, verify: Verify, caplog: pytest.LogCaptureFixture
) -> None:
    attempts = QUICK_RETRY.max_attempts
    async with secure_client(sandbox, authority, verify=verify) as client:
        verify.failures = [KeyError(SECRET) for _ in range(2 * attempts)]
        with pytest.raises(TransportError, match=r"no context for TLS: KeyError$") as caught:
            await client.list_devices()
        report = await client.push_statuses({"dev-1": status(1)})
    [failure] = report.failures
    for error in (caught.value, failure.error):
        assert isinstance(error, TransportError)
        assert (error.local, error.may_have_arrived, error.attempts) == (True, False, attempts)
        assert error.__cause__ is error.__context__ is None
        assert SECRET not in str(error)
    assert [record.error for record in caplog.records] == ["KeyError"]  # type: ignore[attr-defined]
    assert SECRET not in caplog.text


async def test_a_pusher_goes_on_after_verify_failed_by_a_bug(
    sandbox: Sandbox, authority: trustme.CA, verify: Verify
) -> None:
    verify.failures = [KeyError("verify")]
    async with (
        secure_client(sandbox, authority, verify=verify) as client,
        client.status_pusher() as pusher,
    ):
        result = await pusher.push("dev-1", status(1))
    assert (result.outcome, result.attempts) == ("sent", 2)


async def test_a_status_that_the_configuration_forbids_to_send_fails_in_its_outbox_too(
    sandbox: Sandbox, authority: trustme.CA, verify: Verify, outbox: Outbox | None
) -> None:
    verify.result = "no context"
    events: list[Event] = []
    async with (
        secure_client(sandbox, authority, verify=verify, hooks=[events.append]) as client,
        client.status_pusher(outbox=outbox) as pusher,
    ):
        result = await pusher.push("dev-1", status(1))
        assert isinstance(result.error, ConfigurationError)
        stats = await pusher.drain(10.0)
        if isinstance(outbox, SqlOutbox):  # the others keep no dead letters
            kept = await outbox.stats()
            assert (kept.waiting, kept.claimed, kept.failed) == (0, 0, 1)
    assert (stats.sent, stats.failed, stats.pending) == (0, 1, 0)
    ends = [event for event in events if isinstance(event, StatusFailed)]
    assert [(end.device_id, end.cause) for end in ends] == [("dev-1", "ConfigurationError")]


async def test_a_process_without_descriptors_for_the_certificates_tries_again(
    sandbox: Sandbox, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    resource = pytest.importorskip("resource")
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    retried = asyncio.Event()
    async with (
        secure_client(sandbox, authority, hooks=[lambda _: retried.set()]) as client,
        client.status_pusher() as pusher,
    ):
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            await pusher.put("dev-1", status(1))
            async with asyncio.timeout(10):
                while pusher.stats().requests < 2:
                    await retried.wait()
                    retried.clear()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        stats = await pusher.drain(10.0)
    assert (stats.sent, stats.failed) == (1, 0)

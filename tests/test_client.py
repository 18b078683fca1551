from __future__ import annotations

import asyncio
import os
import pickle
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from printos_async import (
    APIError,
    AttemptFinished,
    ClientClosedError,
    ConcurrencyLimit,
    ConfigurationError,
    HmacAuth,
    InvalidDeviceIdError,
    InvalidProvisionRequestError,
    InvalidStatusError,
    MemoryOutbox,
    NotFoundError,
    OutboxError,
    PrintOSClient,
    PusherClosedError,
    RateLimitError,
    RequestTimeoutError,
    RetryPolicy,
    SessionTokenAuth,
    SqlOutbox,
)
from printos_async._config import parse_base_url

from .conftest import KEY, SECRET, status

if TYPE_CHECKING:
    from pathlib import Path

    from printos_async import Event
    from printos_async.sandbox import Sandbox

PRODUCTION = "https://printos.api.hp.com"


async def test_devices_are_provisioned_listed_and_updated(client: PrintOSClient, sandbox: Sandbox) -> None:
    device = await client.provision_device(model="Indigo 12000", serial_number="SN-1", location="Hall 3")
    assert isinstance(device.id, str)
    await client.update_device_status(device.id, status(12))
    devices = await client.list_devices()
    assert [found.serial_number for found in devices if found.id == device.id] == ["SN-1"]
    assert sandbox.devices[device.id].status == {"status": "DS_PRINTING", "metrics": {"pagesTotal": 12}}
    assert sandbox.devices[device.id].location == "Hall 3"


async def test_unknown_device_is_not_found_and_the_error_says_where(client: PrintOSClient) -> None:
    with pytest.raises(NotFoundError, match="PUT /devices/nobody/status: 404") as caught:
        await client.update_device_status("nobody", status())
    assert (caught.value.status, caught.value.method, caught.value.attempts) == (404, "PUT", 1)
    assert '"smsError"' in caught.value.body


async def test_a_thousand_calls_at_once_all_succeed(client: PrintOSClient, sandbox: Sandbox) -> None:
    await asyncio.gather(*(client.update_device_status(f"dev-{n % 10}", status(n)) for n in range(1000)))
    assert sandbox.applied_count == 1000
    assert sandbox.max_concurrency <= ConcurrencyLimit().maximum


async def test_a_path_in_the_base_url_goes_in_front_and_is_signed() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"devices": []})

    transport = httpx.MockTransport(answer)
    auth = HmacAuth(KEY, SECRET, clock=lambda: 1705322096.789)
    async with PrintOSClient("https://gateway.test/printos/v1/", auth=auth, transport=transport) as client:
        await client.list_devices()
    assert seen[0].url == "https://gateway.test/printos/v1/devices"
    again = httpx.Request("GET", seen[0].url)
    next(auth.auth_flow(again))
    assert seen[0].headers["x-hp-hmac-authentication"] == again.headers["x-hp-hmac-authentication"]


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "https://"),
        ("printos.api.hp.com", "https://"),
        ("ftp://printos.api.hp.com", "https://"),
        ("https://", "https://"),
        ("https://user:hunter2@printos.api.hp.com", "credentials"),
        ("https://printos.api.hp.com/?a=hunter2", "query"),
        ("https://printos.api.hp.com/#hunter2", "fragment"),
        ("http://printos.api.hp.com", "clear text"),
        ("http://127.0.0.1.hunter2.example", "clear text"),
        ("https://[::1", "not a URL"),
        ("https://a\x00b", "not a URL"),
        ("https://xn--/", "not a URL"),
        ("https://xn--hunter2-@host/", "not a URL|credentials"),
        ("https://printos.api.hp.com:0", "port 0"),
        ("https://printos.api.hp.com:65536", "port 65536; ports are 1 to 65535"),
        (None, "str"),
    ],
)
def test_a_base_url_that_is_wrong_or_unsafe_is_refused(url: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        PrintOSClient(url, auth=None)
    assert "hunter2@" not in str(caught.value)


@settings(deadline=None)
@given(
    st.text(max_size=30)
    | st.from_regex(
        r"(?i)(https?:)?(//)?[xn.\-\[\]:@%0-9a-f~_ \u00fc\u00df\u3002\u200d]{0,14}(:.{0,3})?(/.{0,4})?",
        fullmatch=True,
    )
)
def test_any_base_url_is_refused_or_can_be_used(url: str) -> None:
    try:
        origin, path = parse_base_url(url, allow_insecure_http=True)
    except ConfigurationError:
        return
    request = httpx.Request("GET", f"{origin}{path}/devices")
    assert (request.url.scheme, request.url.port or origin.port) == (origin.scheme, origin.port)
    assert request.url.host


@pytest.mark.parametrize(
    "url", ["http://localhost:1", "http://127.0.0.1", "http://[::1]:8080", "http://127.8.8.8"]
)
def test_plain_http_to_loopback_is_allowed(url: str) -> None:
    PrintOSClient(url, auth=None)


def test_plain_http_elsewhere_can_be_asked_for() -> None:
    assert "10.1.2.3" in repr(PrintOSClient("http://10.1.2.3", auth=None, allow_insecure_http=True))


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": float("inf")}, "timeout_s"),
        ({"timeout_s": "10"}, "timeout_s"),
        ({"max_body_bytes": -1}, "max_body_bytes"),
        ({"auth": ("key", "secret")}, "auth"),
        ({"retry": 3}, "retry"),
        ({"limit": 64}, "limit"),
        ({"transport": httpx.HTTPTransport()}, "transport"),
        ({"verify": "ca.pem"}, "verify"),
        ({"verify": False, "transport": httpx.MockTransport(lambda _: httpx.Response(200))}, "verify"),
    ],
)
def test_a_setting_that_is_wrong_is_refused_by_name(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        PrintOSClient(PRODUCTION, **{"auth": None, **settings})


@pytest.mark.parametrize(
    ("bounds", "problem"),
    [
        ({"minimum": 0}, "minimum"),
        ({"maximum": 0}, "maximum"),
        ({"minimum": 9, "maximum": 8}, "<="),
        ({"initial": 999}, "<="),
    ],
)
def test_bounds_that_contradict_each_other_are_refused(bounds: dict[str, int], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        ConcurrencyLimit(**bounds)


async def test_certificates_that_cannot_be_loaded_are_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    async with PrintOSClient("https://localhost:1", auth=None) as client:
        with pytest.raises(ConfigurationError, match="SSL_CERT_FILE"):
            await client.list_devices()


# The environment


@pytest.mark.parametrize(
    ("env", "kind"),
    [
        ({"PRINTOS_KEY": "k", "PRINTOS_SECRET": "s"}, HmacAuth),
        ({"PRINTOS_LOGIN": "l", "PRINTOS_PASSWORD": "p"}, SessionTokenAuth),
        ({"PRINTOS_KEY": "k", "PRINTOS_SECRET": "s", "PRINTOS_LOGIN": ""}, HmacAuth),
    ],
)
def test_settings_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], kind: type
) -> None:
    clear_environment(monkeypatch)
    for name, value in {"PRINTOS_BASE_URL": "https://stage.printos.api.hp.com", **env}.items():
        monkeypatch.setenv(name, value)
    client = PrintOSClient.from_env()
    assert repr(client) == "PrintOSClient('https://stage.printos.api.hp.com')"
    account = client._channel.attempts.accounts.known(None)
    assert account is not None
    assert isinstance(account.auth, kind)


@pytest.mark.parametrize(
    ("env", "problem"),
    [
        ({}, "not set"),
        ({"PRINTOS_KEY": "k"}, "PRINTOS_SECRET is not set"),
        ({"PRINTOS_PASSWORD": "p"}, "PRINTOS_LOGIN is not set"),
        ({"PRINTOS_KEY": "k", "PRINTOS_SECRET": "s", "PRINTOS_LOGIN": "l"}, "both set"),
    ],
)
def test_an_environment_that_says_too_little_or_too_much_is_refused(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], problem: str
) -> None:
    clear_environment(monkeypatch)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=problem):
        PrintOSClient.from_env()


def clear_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BASE_URL", "KEY", "SECRET", "LOGIN", "PASSWORD"):
        monkeypatch.delenv(f"PRINTOS_{name}", raising=False)


# Bad input


@pytest.mark.parametrize(
    "device_id",
    ["", ".", "..", "a/b", "a\\b", "a\nb", "a\x7fb", "\ud800", "x" * 257, None, 7, b"dev-1"],
    ids=ascii,
)
async def test_an_id_that_would_change_the_path_is_refused_before_sending(
    client: PrintOSClient, sandbox: Sandbox, device_id: Any
) -> None:
    with pytest.raises(InvalidDeviceIdError):
        await client.update_device_status(device_id, status())
    assert sandbox.request_count == 0


@pytest.mark.parametrize(
    "device_id", ["dev 1", "dev?1#2", "dev%2F1", "gerät-1", "装置", "...", "x" * 256, "a;b=c", "~"]
)
async def test_any_other_id_arrives_as_it_is(client: PrintOSClient, sandbox: Sandbox, device_id: str) -> None:
    sandbox.add_device(device_id)
    await client.update_device_status(device_id, status(3))
    assert sandbox.devices[device_id].updates == 1


async def test_a_provision_request_that_cannot_be_sent_is_refused(
    client: PrintOSClient, sandbox: Sandbox
) -> None:
    serial: Any = 5
    with pytest.raises(InvalidProvisionRequestError, match="serialNumber must be a text, not int 5"):
        await client.provision_device(model="m", serial_number=serial)
    assert sandbox.request_count == 0


async def test_something_else_than_a_status_is_refused(client: PrintOSClient) -> None:
    wrong: Any = {"status": "DS_ON"}
    with pytest.raises(InvalidStatusError, match="DeviceStatusUpdate, not dict"):
        await client.update_device_status("dev-1", wrong)


# Life and death


async def test_a_closed_client_says_so(client: PrintOSClient) -> None:
    await client.aclose()
    await client.aclose()
    with pytest.raises(ClientClosedError, match="closed"):
        await client.list_devices()
    with pytest.raises(ClientClosedError, match="closed"):
        await client.push_statuses({"dev-1": status()})
    with pytest.raises(ClientClosedError, match="closed"):
        await client.provision_devices([])


async def test_closing_ends_calls_in_flight_with_an_error(client: PrintOSClient, sandbox: Sandbox) -> None:
    await sandbox.block()
    call = asyncio.create_task(client.update_device_status("dev-1", status()))
    await sandbox.wait_for(lambda: sandbox.in_flight == 1)
    await client.aclose()
    with pytest.raises((APIError, ClientClosedError)):
        await call


def test_a_client_of_another_event_loop_says_so() -> None:
    client = PrintOSClient("http://127.0.0.1:9", auth=None, retry=RetryPolicy(max_attempts=1))

    async def use() -> None:
        with pytest.raises(APIError):
            await client.list_devices()

    asyncio.run(use())

    async def use_again() -> None:
        with pytest.raises(ClientClosedError, match="event loop"):
            await client.list_devices()
        await client.aclose()

    asyncio.run(use_again())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
async def test_a_client_that_was_forked_says_so(client: PrintOSClient) -> None:
    await client.list_devices()
    # As a worker of a pre-forking server: it must not use the parent's sockets.
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover  # another process
        told = b"nothing"
        try:
            asyncio.run(client.list_devices())
        except ClientClosedError as error:
            told = str(error).encode()
        finally:
            os.write(write, told)
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)  # noqa: ASYNC222  # it has closed its pipe, so it has ended
    assert b"another process" in told
    assert isinstance(await client.list_devices(), list)


async def test_a_client_needs_no_context_manager(sandbox: Sandbox) -> None:
    client = PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET))
    try:
        assert len(await client.list_devices()) == 10
    finally:
        await client.aclose()
    async with asyncio.timeout(10):
        while sandbox.open_connections:  # noqa: ASYNC110  # the server has no event for it
            await asyncio.sleep(0)


async def test_the_attempt_ends_by_its_own_timeout(sandbox: Sandbox) -> None:
    sandbox.inject("hang_before")
    retry = RetryPolicy(max_attempts=1)
    async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), timeout_s=0.5, retry=retry) as client:
        with pytest.raises(RequestTimeoutError) as caught:
            await client.update_device_status("dev-1", status())
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.may_have_arrived is True
        await client.update_device_status("dev-1", status())


async def test_cancelled_call_gives_its_permit_back_and_its_request_ends_by_itself(sandbox: Sandbox) -> None:
    limit = ConcurrencyLimit(maximum=1)
    async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), limit=limit) as client:
        await sandbox.block("dev-1")
        for _ in range(20):
            call = asyncio.create_task(client.update_device_status("dev-1", status()))
            waiting = asyncio.create_task(client.update_device_status("dev-1", status()))
            seen = sandbox.in_flight
            await sandbox.wait_for(lambda seen=seen: sandbox.in_flight > seen)  # type: ignore[misc]
            waiting.cancel()
            call.cancel()
            await asyncio.gather(call, waiting, return_exceptions=True)
        await client.update_device_status("dev-2", status())
        assert sandbox.in_flight == 20
        await sandbox.release()
        await sandbox.wait_for(lambda: sandbox.applied_count == 21)


async def test_a_hook_that_raises_harms_nothing_and_is_reported_once(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[Event] = []

    def broken(event: Event) -> None:
        raise RuntimeError(SECRET)

    auth = HmacAuth(KEY, SECRET)
    async with PrintOSClient(sandbox.url, auth=auth, hooks=[broken, events.append]) as client:
        await client.list_devices()
        await client.update_device_status("dev-1", status())
    assert [event.operation for event in events if isinstance(event, AttemptFinished)] == [
        "listDevices",
        "updateDeviceStatus",
    ]
    assert [record.getMessage() for record in caplog.records] == [
        "hook failed, further failures are not logged: RuntimeError"
    ]


def test_errors_cross_process_boundaries() -> None:
    error = RateLimitError(
        "slow down",
        method="PUT",
        path="/x",
        status=429,
        attempts=3,
        body="b",
        request_id="r",
        retry_after_s=2.0,
    )
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is RateLimitError
    assert str(again) == str(error) == "PUT /x (3 attempts): slow down"
    assert vars(again) == vars(error)


def test_importing_the_package_needs_no_extra() -> None:
    assert "printos_async" in sys.modules
    module = sys.modules["printos_async"]
    for name in ("starlette", "uvicorn", "typer", "rich"):
        assert name not in vars(module)


async def test_an_outbox_that_is_none_is_refused_with_what_to_give() -> None:
    async with PrintOSClient("http://127.0.0.1:1", auth=None) as client:
        url: Any = "sqlite+aiosqlite:///spool.db"
        for make in (client.spooler, lambda outbox: client.status_pusher(outbox=outbox)):
            with pytest.raises(ConfigurationError, match=r"outbox must be SqlOutbox\(url\)"):
                make(url)


async def test_a_lease_must_outlast_two_timeouts() -> None:
    async with PrintOSClient("http://127.0.0.1:1", auth=None, timeout_s=10.0) as client:
        with pytest.raises(ConfigurationError, match="at least 2 times timeout_s"):
            client.status_pusher(outbox=MemoryOutbox(lease_s=15.0))


@pytest.mark.parametrize("is_shared", [False, True], ids=["memory", "sql"])
async def test_an_outbox_needs_to_know_who_calls(*, is_shared: bool) -> None:
    outbox = SqlOutbox("sqlite+aiosqlite:///spool.db") if is_shared else MemoryOutbox()
    async with PrintOSClient("http://127.0.0.1:1", auth=httpx.BasicAuth("me", "word")) as client:
        with pytest.raises(ConfigurationError, match="BasicAuth needs an attribute `account`") as caught:
            client.status_pusher(outbox=outbox)
        # Nothing is left that would hold the account of the client's other calls.
        assert not client._channel.executor.circuit_watchers
        assert not client._channel.executor.accounts.watchers
    assert "word" not in str(caught.value)


async def test_a_pusher_that_cannot_be_entered_is_closed(tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    outbox = SqlOutbox(f"sqlite+aiosqlite:///{tmp_path}/a%20file/spool.db")
    async with PrintOSClient("http://127.0.0.1:1", auth=None) as client:
        pusher = client.status_pusher(outbox=outbox)
        with pytest.raises(OutboxError):
            await pusher.__aenter__()
        assert not client._channel.executor.circuit_watchers
        assert not client._channel.executor.accounts.watchers
        with pytest.raises(PusherClosedError):
            await pusher.__aenter__()


async def test_the_account_tells_base_urls_and_callers_apart() -> None:
    accounts = []
    for url in ("https://one.example", "https://two.example/base"):
        for auth in (None, HmacAuth("a", "s"), HmacAuth("b", "s"), SessionTokenAuth("a", "p")):
            async with PrintOSClient(url, auth=auth) as client:
                accounts.append(client.account)
    assert len(set(accounts)) == 8
    async with PrintOSClient("https://one.example", auth=HmacAuth("a", "another")) as client:
        assert client.account == accounts[1]

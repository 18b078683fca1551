"""A key is rotated or the host changes while statuses wait: with a named account and without, to a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from attrs import frozen

from printos_async import (
    ConfigurationError,
    DeviceCredentials,
    HmacAuth,
    MemoryOutbox,
    PrintOSClient,
    SessionTokenAuth,
    SqlOutbox,
)
from printos_async.sandbox import Sandbox
from tests.conftest import KEY, SECRET, status
from tests.delivery.outbox.seen import applied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DEVICES = [f"dev-{number}" for number in range(10)]
OLD_KEY, OLD_SECRET = "oldkey", "old-secret-5f1e"


@frozen
class Before:
    """What a site had before the change."""

    change: str
    url: str
    key: str

    def client(self, account: str | None) -> PrintOSClient:
        return PrintOSClient(self.url, auth=HmacAuth(self.key, OLD_SECRET), account=account)


@pytest.fixture(params=["key", "host"])
async def before(request: pytest.FixtureRequest, sandbox: Sandbox) -> AsyncIterator[Before]:
    if request.param == "key":
        yield Before("key", sandbox.url, OLD_KEY)
        return
    async with Sandbox(hmac_keys={KEY: OLD_SECRET}) as old_sandbox:
        yield Before("host", old_sandbox.url, KEY)
        assert old_sandbox.request_count == 0


@pytest.mark.parametrize("account", ["site-7", None], ids=["named", "unnamed"])
async def test_what_waits_is_delivered_after_a_change(
    sandbox: Sandbox,
    before: Before,
    database_url: str,
    caplog: pytest.LogCaptureFixture,
    account: str | None,
) -> None:
    old = before.client(account)
    async with old, old.spooler(SqlOutbox(database_url)) as spooler:
        for pages in (1, 2):
            for device in DEVICES:
                await spooler.put(device, status(pages))
    caplog.clear()

    new = PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), account=account)
    assert (new.account == old.account) == (account is not None)
    async with new, new.status_pusher(outbox=SqlOutbox(database_url)) as pusher:
        if account is None:
            where = "this host" if before.change == "key" else "another host"
            [warning] = [record.getMessage() for record in caplog.records]
            assert warning == (
                f"10 devices wait under another account of {where}; see `printos outbox accounts`"
            )
            assert await adopted(new, database_url, before.key) == 10
        await sandbox.wait_for(lambda: sandbox.applied_count == 10)
        stats = await pusher.drain()
    assert (stats.sent, stats.failed, stats.pending) == (10, 0, 0)
    assert [applied(sandbox, device) for device in DEVICES] == [[2]] * 10


async def adopted(client: PrintOSClient, database_url: str, key: str) -> int:
    """Adopt what waits under the other account; check what is shown of its key."""
    outbox = SqlOutbox(database_url)
    async with client.spooler(outbox):
        [other] = [tenant for tenant in await outbox.tenants() if not tenant.is_own]
        assert other.label == f"{other.host} key {key[:4]}…"
        assert key not in repr(other)
        return await outbox.adopt(other.label)


async def test_a_name_needs_no_credentials_and_is_independent_of_them() -> None:
    named = [
        PrintOSClient(url, auth=auth, account="site-7").account
        for url in ("https://one.example", "https://two.example/path")
        for auth in (None, HmacAuth(KEY, SECRET))
    ]
    assert len({*named, PrintOSClient(auth=None, account="site-8").account}) == 2
    assert named[0] == "bd6a8bb8cb11d3cc2078f65618d67847"
    assert PrintOSClient(auth=None).account not in named


def test_the_environment_names_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PRINTOS_KEY": KEY, "PRINTOS_SECRET": SECRET, "PRINTOS_ACCOUNT": "site-7"}.items():
        monkeypatch.setenv(name, value)
    named = PrintOSClient.from_env().account
    assert named == PrintOSClient(auth=None, account="site-7").account
    monkeypatch.setenv("PRINTOS_ACCOUNT", "")
    assert PrintOSClient.from_env().account == PrintOSClient(auth=HmacAuth(KEY, SECRET)).account


@pytest.mark.parametrize(
    "account",
    ["", " site", "site\n7", "x" * 201, "\ud800", 7],
    ids=["empty", "space", "line end", "long", "surrogate", "number"],
)
def test_a_name_that_cannot_be_shown_is_refused(account: object) -> None:
    with pytest.raises(ConfigurationError, match=r"account must (be|have)"):
        PrintOSClient(auth=None, account=account)  # type: ignore[arg-type]


async def test_an_outbox_that_knows_no_labels_goes_on_working(
    sandbox: Sandbox, client: PrintOSClient
) -> None:
    class Plain:
        """As one of another package: it has what the protocol had before tenants were listed."""

        is_shared = True
        lease_s = 30.0
        on_replaced = None

        def __init__(self) -> None:
            self.opened_for = ""

        async def open(self, account: str) -> None:
            self.opened_for = account

        async def put(self, drafts: object, *, owner: int | None = None) -> list[object]:
            raise NotImplementedError

        async def claim(self, owner: int, limit: int) -> list[object]:
            raise NotImplementedError

        async def aclose(self) -> None:
            pass

    outbox = Plain()
    async with client.spooler(outbox):  # type: ignore[arg-type]
        assert outbox.opened_for == client.account


@pytest.mark.parametrize(
    ("default", "label"),
    [
        (HmacAuth("site-key-1", "hidden"), "DeviceCredentials, key site…"),
        (SessionTokenAuth("printer-1", "hidden"), "DeviceCredentials, login prin…"),
        (None, "DeviceCredentials"),
    ],
    ids=["key", "login", "none"],
)
async def test_the_label_of_device_credentials_names_their_default(
    sandbox: Sandbox, default: HmacAuth | SessionTokenAuth | None, label: str
) -> None:
    outbox = MemoryOutbox()
    client = PrintOSClient(sandbox.url, auth=DeviceCredentials({}, default=default))
    async with client, client.spooler(outbox):
        [tenant] = await outbox.tenants()
    assert tenant.label == f"{tenant.host} {label}"

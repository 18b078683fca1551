"""An outbox object serves one pusher or spooler at a time: the first is not disturbed by a second one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from printos_async import ConfigurationError, MemoryOutbox, OutboxError, SqlOutbox
from tests.conftest import status

from .seen import pages

if TYPE_CHECKING:
    from pathlib import Path

    from printos_async import PrintOSClient, Spooler, StatusPusher
    from printos_async.outbox import Outbox
    from printos_async.sandbox import Sandbox

USERS = ["pusher", "spooler"]


def user_of(outbox: Outbox, client: PrintOSClient, kind: str) -> StatusPusher | Spooler:
    return client.status_pusher(outbox=outbox) if kind == "pusher" else client.spooler(outbox)


@pytest.fixture(params=["memory", "sqlite"])
def outbox(request: pytest.FixtureRequest, tmp_path: Path) -> Outbox:
    if request.param == "memory":
        return MemoryOutbox()
    return SqlOutbox(f"sqlite+aiosqlite:///{tmp_path}/spool.db")


@pytest.mark.parametrize("first", USERS)
@pytest.mark.parametrize("second", USERS)
async def test_a_second_user_is_refused_and_the_first_goes_on(
    sandbox: Sandbox, client: PrintOSClient, outbox: Outbox, first: str, second: str
) -> None:
    async with user_of(outbox, client, first) as user:
        refused = user_of(outbox, client, second)
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="another pusher or spooler"):
                await refused.put("dev-1", status(1))
        await refused.aclose()
        await user.put("dev-1", status(2))
    async with user_of(outbox, client, second) as next_user:
        await next_user.put("dev-1", status(3))
    async with client.status_pusher(outbox=outbox):
        await sandbox.wait_for(lambda: pages(sandbox, "dev-1") == 3)


class FailingOnce(MemoryOutbox):
    """Its first opening or closing fails."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.method: str | None = method

    async def open(self, *tenant: Any, **details: Any) -> None:
        self.fail("open")
        await super().open(*tenant, **details)

    async def aclose(self) -> None:
        await super().aclose()
        self.fail("aclose")

    def fail(self, method: str) -> None:
        if self.method == method:
            self.method = None
            raise OutboxError("out of order, for once")


@pytest.mark.parametrize("kind", USERS)
@pytest.mark.parametrize("method", ["open", "aclose"])
async def test_an_outbox_that_fails_to_open_or_close_is_free(
    client: PrintOSClient, kind: str, method: str
) -> None:
    outbox = FailingOnce(method)
    user = user_of(outbox, client, kind)
    with pytest.raises(OutboxError, match="for once"):
        async with user:
            pass
    async with user_of(outbox, client, kind) as next_user:
        await next_user.put("dev-1", status(1))


class WithoutWorkers(SqlOutbox):
    """Nobody can join it."""

    async def join(self) -> int:
        raise OutboxError("out of order")


async def test_a_closed_pusher_is_not_told_that_the_file_was_replaced(
    client: PrintOSClient, tmp_path: Path
) -> None:
    outbox = SqlOutbox(f"sqlite+aiosqlite:///{tmp_path}/spool.db")
    async with client.status_pusher(outbox=outbox):
        assert outbox.on_replaced is not None
    assert outbox.on_replaced is None


async def test_a_pusher_that_cannot_join_is_not_told_that_the_file_was_replaced(
    client: PrintOSClient, tmp_path: Path
) -> None:
    outbox = WithoutWorkers(f"sqlite+aiosqlite:///{tmp_path}/spool.db")
    with pytest.raises(OutboxError, match="out of order"):
        async with client.status_pusher(outbox=outbox):
            pass
    assert outbox.on_replaced is None

"""Every operation through PgBouncer, which lends a session for a connection's or for a transaction's length."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from printos_async import SqlOutbox
from printos_async.outbox import Draft, Finish, Release
from tests.pgbouncer import bounced, program

from .stores import draft

if TYPE_CHECKING:
    from tests.postgres import PostgresServer

pytestmark = pytest.mark.skipif(program() is None, reason="PgBouncer is not installed")
OUTBOXES = 4


@pytest.mark.parametrize(
    ("mode", "size", "parameters"),
    [
        pytest.param("session", 3 * OUTBOXES, "", id="session"),
        pytest.param("transaction", 2, "", id="transaction"),
        pytest.param("transaction", 2, "?prepared_statement_cache_size=0", id="transaction-unprepared"),
    ],
)
async def test_all_operations_work(
    postgres_server: PostgresServer, postgres_url: str, mode: str, size: int, parameters: str
) -> None:
    context = postgres_server._cluster.context
    with bounced(postgres_url, mode=mode, size=size, context=context) as url:
        await asyncio.gather(*(use_all(url + parameters, f"account-{index}") for index in range(OUTBOXES)))


async def use_all(url: str, account: str) -> None:
    outbox = SqlOutbox(url)
    await outbox.open(account)
    owner = await outbox.join()
    for turn in range(5):
        names = [f"dev-{turn}-{index}" for index in range(3)]
        await asyncio.gather(outbox.put([draft(name) for name in names], owner=owner), outbox.stats())
        kept, alive = await asyncio.gather(outbox.put([draft(name) for name in names]), outbox.renew(owner))
        assert alive
        seqs = [one.seq for one in kept]
        newer = await outbox.newer(owner, 10)
        assert sorted(claim.device_id for claim in newer) == names
        failed = Finish(names[1], seqs[1], error="refused")
        await outbox.finish(owner, [Finish(names[0], seqs[0]), failed])
        assert [letter.device_id for letter in await outbox.failed()] == [names[1]]
        await outbox.release(owner, [Release(names[2])])
        assert {one.device_id for one in await outbox.progress(names)} == {names[1], names[2]}
        assert await outbox.requeue([names[1]]) == 1
        claims = await outbox.claim(owner, 10)
        assert sorted(claim.device_id for claim in claims) == names[1:]
        errors = [Finish(claim.device_id, claim.seq, error="refused") for claim in claims]
        await outbox.finish(owner, errors)
        assert await outbox.requeue() == 2
        await outbox.finish(
            owner,
            [Finish(claim.device_id, claim.seq, error="refused") for claim in await outbox.claim(owner, 10)],
        )
        assert await outbox.purge(failed=True) == 2
    assert (await outbox.stats()).devices == 0
    assert await outbox.put([Draft("last", b"{}")], owner=owner)
    await outbox.leave(owner)
    assert (await outbox.stats()).workers == 0
    assert len(await outbox.devices(silent_for_s=0.001)) == 6
    assert await outbox.purge_deliveries(older_than_s=0.001) == 5
    await outbox.aclose()
    heir = SqlOutbox(url)
    await heir.open(f"heir of {account}")
    assert await heir.adopt(account) == 1
    assert [
        (tenant.waiting, tenant.is_own) for tenant in await heir.tenants() if account in tenant.account
    ] == [
        (0, False),
        (1, True),
    ]
    await heir.aclose()

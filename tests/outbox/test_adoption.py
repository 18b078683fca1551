"""Adoption in a database that others use meanwhile, or that fails in the middle."""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING

import pytest

from printos_async import OutboxError
from printos_async.outbox import Draft, Finish

from .stores import draft

if TYPE_CHECKING:
    from printos_async import SqlOutbox

    from .stores import SqlStore

OLD, NEW = "0" * 32, "1" * 32
PUTS = 20
STOP = {
    "sqlite": (
        """CREATE TRIGGER stop BEFORE DELETE ON printos_outbox WHEN OLD.device_id = 'dev-7'
        BEGIN SELECT RAISE(ABORT, 'stopped'); END""",
    ),
    "postgresql": (
        "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'stopped'; END $$",
        """CREATE TRIGGER stop BEFORE DELETE ON printos_outbox FOR EACH ROW
        WHEN (OLD.device_id = 'dev-7') EXECUTE FUNCTION stop()""",
    ),
}
GO_ON = {"sqlite": "DROP TRIGGER stop", "postgresql": "DROP TRIGGER stop ON printos_outbox"}


class Traffic:
    """Statuses that are put under two accounts, numbered in their order, and what a worker of one has sent."""

    def __init__(self) -> None:
        self.newest: dict[str, int] = {}
        self.sent: dict[str, set[int]] = {}
        self.is_over = False
        self._choose = random.Random(7)
        self._count = 0
        self._order = asyncio.Lock()

    async def put(self, outbox: SqlOutbox, devices: int) -> None:
        for _ in range(PUTS):
            async with self._order:
                self._count += 1
                names = self._choose.sample(range(40), devices)
                body = json.dumps({"count": self._count}).encode()
                await outbox.put([Draft(f"dev-{name}", body) for name in names])
                self.newest |= {f"dev-{name}": self._count for name in names}

    async def work(self, outbox: SqlOutbox) -> None:
        owner = await outbox.join()
        seqs: dict[str, int] = {}
        while not self.is_over:
            claims = [*await outbox.claim(owner, 10), *await outbox.newer(owner, 10)]
            while claims:
                for claim in claims:
                    assert claim.seq > seqs.get(claim.device_id, 0)
                    seqs[claim.device_id] = claim.seq
                    self.sent.setdefault(claim.device_id, set()).add(json.loads(claim.body)["count"])
                claims = await outbox.finish(owner, [Finish(each.device_id, each.seq) for each in claims])
        await outbox.leave(owner)

    async def adopt(self, outbox: SqlOutbox) -> None:
        while not self.is_over:
            await outbox.adopt(OLD)


async def test_nothing_is_lost_while_both_put_and_a_worker_sends(database: SqlStore) -> None:
    old, new, other = [await database.open(account) for account in (OLD, NEW, NEW)]
    traffic = Traffic()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(traffic.work(new))
        for outbox in (new, other):
            group.create_task(traffic.adopt(outbox))
        await asyncio.gather(traffic.put(old, 10), traffic.put(new, 3))
        while any(tenant.waiting for tenant in await other.tenants()):
            pass
        traffic.is_over = True
    assert {name for name, newest in traffic.newest.items() if newest not in traffic.sent[name]} == set()
    assert (await old.stats()).devices == (await new.stats()).devices == 0


async def test_a_portion_that_fails_stays_with_the_other_tenant(database: SqlStore) -> None:
    kind = database.url.partition("+")[0]
    old, new = await database.open(OLD), await database.open(NEW)
    await old.put([draft(f"dev-{number}") for number in range(10)])
    for statement in STOP[kind]:
        await database.execute(statement)
    with pytest.raises(OutboxError):
        await new.adopt(OLD)
    assert [tenant.waiting for tenant in await new.tenants()] == [10, 0]
    await database.execute(GO_ON[kind])
    assert await new.adopt(OLD) == 10
    assert [tenant.waiting for tenant in await new.tenants()] == [0, 10]


async def test_more_rows_than_one_portion_are_adopted(database: SqlStore) -> None:
    old, new = await database.open(OLD), await database.open(NEW)
    await old.put([draft(f"dev-{number}") for number in range(2_500)])
    assert await new.adopt(OLD) == 2_500
    assert [tenant.waiting for tenant in await new.tenants()] == [0, 2_500]

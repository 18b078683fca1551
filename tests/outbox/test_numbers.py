"""Numbers never go back, although the row of a device goes when its status was delivered."""

from __future__ import annotations

import asyncio
from itertools import count, pairwise
from typing import TYPE_CHECKING

import asyncpg
from attrs import define

from printos_async.outbox import Draft, Finish

from .stores import draft, sql_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from printos_async.outbox import Claim, Outbox

    from .stores import SqlStore

DEVICES = ("a", "b", "c")
PUTTERS, FINISHERS, PUTS = 5, 2, 60


@define
class Put:
    device_id: str
    body: bytes
    seq: int
    begun: int
    ended: int


class Fleet:
    """Putters and finishers, each with an outbox of its own, on few devices."""

    def __init__(self) -> None:
        self.puts: list[Put] = []
        self.claims: list[Claim] = []
        self._moments = count()
        self._is_over = False

    async def put_all(self, outbox: Outbox, putter: int) -> None:
        for number in range(PUTS):
            drafts = [Draft(name, b'{"%d":%d}' % (putter, number)) for name in DEVICES[number % 3 :]]
            begun = next(self._moments)
            kept = await outbox.put(drafts)
            ended = next(self._moments)
            self.puts += [
                Put(one.device_id, one.body, entry.seq, begun, ended)
                for one, entry in zip(drafts, kept, strict=True)
            ]

    async def finish_all(self, outbox: Outbox) -> None:
        owner = await outbox.join()
        is_last = False
        while True:
            claims = await outbox.claim(owner, 10)
            if not claims and is_last:
                return
            is_last = self._is_over and not claims
            while claims:
                self.claims += claims
                claims = await outbox.finish(owner, [Finish(claim.device_id, claim.seq) for claim in claims])

    async def run(self, outboxes: Sequence[Outbox]) -> None:
        async with asyncio.TaskGroup() as group:
            for outbox in outboxes[:FINISHERS]:
                group.create_task(self.finish_all(outbox))
            await asyncio.gather(
                *(self.put_all(outbox, putter) for putter, outbox in enumerate(outboxes[FINISHERS:]))
            )
            self._is_over = True


async def test_numbers_increase_while_devices_come_and_go(database: SqlStore) -> None:
    fleet = Fleet()
    await fleet.run([await database.open() for _ in range(FINISHERS + PUTTERS)])
    for name in DEVICES:
        puts = sorted((put for put in fleet.puts if put.device_id == name), key=lambda put: put.seq)
        assert len({put.seq for put in puts}) == len(puts)
        # Of two of which one ended before the other began, the later one has the higher number.
        assert all(
            higher.ended > lower.begun for index, lower in enumerate(puts) for higher in puts[index + 1 :]
        )
        claims = [claim for claim in fleet.claims if claim.device_id == name]
        assert all(earlier.seq < later.seq for earlier, later in pairwise(claims))
        assert (claims[-1].seq, claims[-1].body) == (puts[-1].seq, puts[-1].body)
    assert await database.execute("SELECT device_id FROM printos_outbox") == []


async def test_a_put_that_has_begun_before_a_device_is_forgotten_does_not_number_it_anew(
    postgres_url: str,
) -> None:
    async with sql_store(postgres_url) as store:
        outbox, other = await store.open(), await store.open()
        owner = await other.join()
        await other.put([draft("a")])
        [first] = await other.put([draft("b")], owner=owner)
        connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
        try:
            holding = connection.transaction()
            await holding.start()
            await connection.execute("SELECT 1 FROM printos_outbox WHERE device_id = 'a' FOR UPDATE")
            putting = asyncio.create_task(outbox.put([draft("a"), draft("b")]))
            await waiting(connection, 1)
            finishing = asyncio.create_task(other.finish(owner, [Finish("b", first.seq)]))
            await waiting(connection, 2, unless=finishing)
            await holding.rollback()
        finally:
            await connection.close()
        assert (await putting)[1].seq > first.seq
        assert [claim.device_id for claim in await finishing] == ["b"]


async def waiting(
    connection: asyncpg.Connection, number: int, *, unless: asyncio.Task[object] | None = None
) -> None:
    """Return when so many statements wait for a lock, or the task has ended."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'printos-async'"
        " AND wait_event_type = 'Lock'"
    )
    while await connection.fetchval(query) < number:
        if unless is not None and unless.done():
            return

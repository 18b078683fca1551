"""Databases that earlier releases have made go on working, with what is in them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from printos_async import OutboxError
from printos_async.outbox import Finish
from printos_async.outbox.sql.batches import crc
from printos_async.outbox.sql.tables import MIGRATIONS, prepare

from .stores import ACCOUNT, draft

if TYPE_CHECKING:
    from .stores import SqlStore

# As the first release made them; ``{text}`` and ``{double}`` are the types of the dialect.
VERSION_1 = """
CREATE TABLE printos_meta (version INTEGER NOT NULL, floor BIGINT NOT NULL);
CREATE TABLE printos_outbox (
    account {text} NOT NULL, device_id {text} NOT NULL, seq BIGINT NOT NULL, body TEXT NOT NULL,
    crc BIGINT NOT NULL, put_at {double} NOT NULL, due_at {double} NOT NULL, attempts INTEGER NOT NULL,
    owner BIGINT, doubt_since {double}, done_seq BIGINT NOT NULL, done_at {double},
    done_attempts INTEGER NOT NULL, error TEXT, PRIMARY KEY (account, device_id));
CREATE INDEX printos_outbox_claimable ON printos_outbox (account, due_at)
    WHERE owner IS NULL AND seq > done_seq;
CREATE INDEX printos_outbox_failed ON printos_outbox (account, device_id) WHERE error IS NOT NULL;
CREATE INDEX printos_outbox_idle ON printos_outbox (account, due_at)
    WHERE owner IS NULL AND seq = done_seq AND error IS NULL AND doubt_since IS NULL;
CREATE TABLE printos_worker (
    id BIGINT NOT NULL PRIMARY KEY, account {text} NOT NULL, lease_until {double} NOT NULL);
INSERT INTO printos_meta VALUES (1, 7)
"""
# Added by the second release.
VERSION_2 = """
ALTER TABLE printos_outbox ADD COLUMN unseen_by BIGINT;
ALTER TABLE printos_outbox ADD COLUMN waiting_since {double};
ALTER TABLE printos_worker ADD COLUMN renewed_at {double};
ALTER TABLE printos_meta ADD COLUMN clock_boot TEXT;
ALTER TABLE printos_meta ADD COLUMN clock_offset_s {double};
CREATE INDEX printos_outbox_unseen ON printos_outbox (account, unseen_by, due_at) WHERE unseen_by IS NOT NULL;
UPDATE printos_meta SET version = 2
"""
ROW = """
INSERT INTO printos_outbox
    (account, device_id, seq, body, crc, put_at, due_at, attempts, owner, doubt_since,
     done_seq, done_at, done_attempts, error)
    VALUES (:account, :device_id, 9, :body, :crc, 1000.0, 1000.0, 2, NULL, NULL, 8, NULL, 0, NULL)
"""
SQLITE = {"text": "TEXT", "double": "DOUBLE"}
POSTGRESQL = {"text": 'TEXT COLLATE "C"', "double": "DOUBLE PRECISION"}


async def make(database: SqlStore, *versions: str) -> None:
    types = SQLITE if database.url.startswith("sqlite") else POSTGRESQL
    for statement in ";".join(versions).format(**types).split(";"):
        await database.execute(statement)


async def insert(database: SqlStore, account: str) -> None:
    body = draft("a", "DS_OFF").body
    await database.execute(ROW, account=account, device_id="a", body=body.decode(), crc=crc("a", body))


async def test_tables_of_the_first_release_are_migrated_and_keep_their_rows(database: SqlStore) -> None:
    await make(database, VERSION_1)
    old = draft("a", "DS_OFF")
    await insert(database, ACCOUNT)

    outbox = await database.open()
    assert (await outbox.stats()).waiting == 1
    assert (await outbox.stats()).oldest_waiting_s > 1e6  # type: ignore[operator]
    owner = await outbox.join()
    [claim] = await outbox.claim(owner, 10)
    assert (claim.device_id, claim.seq, claim.body, claim.attempts) == ("a", 9, old.body, 2)
    await outbox.put([draft("a")])
    assert [newer.seq for newer in await outbox.newer(owner, 10)] == [10]
    await outbox.finish(owner, [Finish("a", 10)])
    assert (await outbox.stats()).devices == 0
    assert [device.device_id for device in await outbox.devices()] == ["a"]


async def test_a_delivery_that_is_still_known_is_migrated(database: SqlStore) -> None:
    await make(database, VERSION_1, VERSION_2)
    await insert(database, ACCOUNT)
    await database.execute("UPDATE printos_outbox SET done_at = 2000.0")
    [device] = await (await database.open()).devices()
    assert (device.device_id, device.error) == ("a", None)
    assert device.delivered_age_s is not None
    assert device.waiting_s is not None
    assert device.waiting_s - device.delivered_age_s == pytest.approx(1000.0)


async def test_tables_of_the_second_release_are_migrated_once_by_several(database: SqlStore) -> None:
    await make(database, VERSION_1, VERSION_2)
    for account in (ACCOUNT, "account-2"):
        await insert(database, account)
    await database.execute("INSERT INTO printos_worker VALUES (9, 'account-3', 9e9, 1000.0)")

    outboxes = await asyncio.gather(
        *(database.open(label="site-7", host="printos.example") for _ in range(4))
    )
    assert await database.execute("SELECT version FROM printos_meta") == [(4,)]
    unknown, worker, own = await outboxes[0].tenants()
    assert (unknown.account, unknown.label, unknown.host, unknown.waiting) == ("account-2", "", "", 1)
    assert (worker.account, worker.waiting, worker.workers) == ("account-3", 0, 1)
    assert (own.label, own.host, own.waiting, own.is_own) == ("site-7", "printos.example", 1, True)
    claims = await outboxes[1].claim(await outboxes[1].join(), 10)
    assert [(claim.device_id, claim.seq) for claim in claims] == [("a", 9)]
    assert await outboxes[2].adopt("account-2") == 1


async def test_an_earlier_release_goes_on_until_it_opens_the_tables_again(database: SqlStore) -> None:
    await make(database, VERSION_1, VERSION_2)
    await insert(database, ACCOUNT)
    await database.execute("INSERT INTO printos_worker VALUES (9, :account, 9e9, 1000.0)", account=ACCOUNT)
    new = await database.open("account-2")
    # As its statements do, which name no column that was added.
    await database.execute("UPDATE printos_outbox SET owner = 9 WHERE account = :account", account=ACCOUNT)
    with pytest.raises(OutboxError, match="1 worker of the other account runs: stop it first"):
        await new.adopt(ACCOUNT)
    engine = create_async_engine(database.url, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            with pytest.raises(OutboxError, match="upgrade printos-async"):
                await connection.run_sync(lambda opened: prepare(opened, MIGRATIONS[:1]))
    finally:
        await engine.dispose()
    await database.execute(
        "DELETE FROM printos_outbox WHERE account = :account AND owner = 9", account=ACCOUNT
    )
    assert (await new.tenants())[0].waiting == 0

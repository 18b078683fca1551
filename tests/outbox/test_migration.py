"""Databases that earlier releases have made go on working, with what is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from printos_async.outbox import Finish
from printos_async.outbox.sql.batches import crc

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
ROW = """
INSERT INTO printos_outbox VALUES
    (:account, :device_id, 9, :body, :crc, 1000.0, 1000.0, 2, NULL, NULL, 8, NULL, 0, NULL)
"""
SQLITE = {"text": "TEXT", "double": "DOUBLE"}
POSTGRESQL = {"text": 'TEXT COLLATE "C"', "double": "DOUBLE PRECISION"}


async def test_tables_of_the_first_release_are_migrated_and_keep_their_rows(database: SqlStore) -> None:
    types = SQLITE if database.url.startswith("sqlite") else POSTGRESQL
    for statement in VERSION_1.format(**types).split(";"):
        await database.execute(statement)
    old = draft("a", "DS_OFF")
    values = {"device_id": "a", "body": old.body.decode(), "crc": crc("a", old.body)}
    await database.execute(ROW, account=ACCOUNT, **values)

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

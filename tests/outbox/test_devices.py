"""When devices were delivered last, what waits and what failed: the same in all outboxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from printos_async.outbox import DeviceDelivery, Finish

from .stores import ACCOUNT, draft, sql_store

if TYPE_CHECKING:
    from pathlib import Path

    from .stores import AdministeredOutbox, SqlStore, Store


STOP = {
    "sqlite": (
        """CREATE TRIGGER stop BEFORE INSERT ON printos_delivery
        BEGIN SELECT RAISE(ABORT, 'stopped'); END""",
    ),
    "postgresql": (
        "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'stopped'; END $$",
        "CREATE TRIGGER stop BEFORE INSERT ON printos_delivery FOR EACH ROW EXECUTE FUNCTION stop()",
    ),
}
GO_ON = {"sqlite": "DROP TRIGGER stop", "postgresql": "DROP TRIGGER stop ON printos_delivery"}


def rounded(
    devices: list[DeviceDelivery],
) -> list[tuple[str, int | None, int | None, int | None, str | None]]:
    """Return devices with their ages in whole tens of seconds, for a test takes less."""

    def tens(age_s: float | None) -> int | None:
        return None if age_s is None else int(age_s // 10) * 10

    return [
        (one.device_id, tens(one.delivered_age_s), tens(one.waiting_s), tens(one.failed_age_s), one.error)
        for one in devices
    ]


async def deliver(outbox: AdministeredOutbox, *names: str, error: str | None = None) -> None:
    owner = await outbox.join()
    kept = await outbox.put([draft(name) for name in names], owner=owner)
    await outbox.finish(
        owner, [Finish(name, one.seq, error=error) for name, one in zip(names, kept, strict=True)]
    )
    await outbox.leave(owner)


async def test_devices_are_listed_with_their_last_delivery_what_waits_and_what_failed(
    outbox: AdministeredOutbox, store: Store
) -> None:
    await deliver(outbox, "delivered", "waits", "failed")
    await store.pass_time(100)
    await deliver(outbox, "failed", "never", error="404")
    await outbox.put([draft("waits"), draft("new")])
    await store.pass_time(50)
    await outbox.put([draft("waits"), draft("never")])
    await store.pass_time(20)
    assert rounded(await outbox.devices()) == [
        ("delivered", 170, None, None, None),
        ("failed", 170, None, 70, "404"),
        ("never", None, 20, 70, "404"),
        ("new", None, 70, None, None),
        ("waits", 170, 70, None, None),
    ]
    await deliver(outbox, "failed", "new")
    assert rounded(await outbox.devices())[1::2] == [
        ("failed", 0, None, None, None),
        ("new", 0, None, None, None),
    ]


async def test_silent_devices_are_those_without_a_delivery_for_so_long(
    outbox: AdministeredOutbox, store: Store
) -> None:
    await deliver(outbox, "old", "again")
    await outbox.put([draft("stuck")])
    await store.pass_time(100)
    await deliver(outbox, "again", "new")
    await deliver(outbox, "dead", error="422")
    await outbox.put([draft("fresh"), draft("old")])
    names = [one.device_id for one in await outbox.devices(silent_for_s=60)]
    assert names == ["dead", "old", "stuck"]
    assert [one.device_id for one in await outbox.devices(silent_for_s=3600)] == ["dead"]


async def test_devices_come_page_by_page(outbox: AdministeredOutbox) -> None:
    await deliver(outbox, *(f"d{number}" for number in range(0, 9, 2)))
    await outbox.put([draft(f"d{number}") for number in range(1, 9, 3)])
    found: list[str] = []
    while page := await outbox.devices(limit=3, after=found[-1] if found else ""):
        assert len(page) <= 3
        found += [one.device_id for one in page]
    assert found == ["d0", "d1", "d2", "d4", "d6", "d7", "d8"]


async def test_a_delivered_device_that_is_kept_was_delivered_once(
    outbox: AdministeredOutbox, store: Store
) -> None:
    owner = await outbox.join()
    await outbox.put([draft("a")], owner=owner)
    await outbox.finish(owner, [Finish("a", 1, keep=True)])
    assert rounded(await outbox.devices()) == [("a", 0, None, None, None)]
    await store.pass_time(20)
    await outbox.finish(owner, [Finish("a", 1)])
    assert rounded(await outbox.devices()) == [("a", 20, None, None, None)]


async def test_deliveries_of_devices_that_are_gone_can_be_purged(
    outbox: AdministeredOutbox, store: Store
) -> None:
    await deliver(outbox, "gone", "waits")
    assert [one.device_id for one in await outbox.devices()] == ["gone", "waits"]
    await store.pass_time(100)
    await deliver(outbox, "here")
    await outbox.put([draft("waits")])
    assert await outbox.purge() == 0
    assert await outbox.purge_deliveries(older_than_s=60) == 1
    assert rounded(await outbox.devices()) == [("here", 0, None, None, None), ("waits", 100, 0, None, None)]
    assert await outbox.purge_deliveries() == 1
    assert [one.device_id for one in await outbox.devices()] == ["waits"]


async def test_adoption_takes_the_later_delivery(store: Store) -> None:
    old = await store.open("account-2")
    await deliver(old, "both", "old")
    await store.pass_time(100)
    own = await store.open()
    await deliver(own, "own")
    other = await store.open("account-3")
    await deliver(other, "both", "own")
    await store.pass_time(10)
    own = await store.open()
    assert await own.adopt("account-3") == 0
    assert await own.adopt("account-2") == 0
    assert rounded(await own.devices()) == [
        ("both", 10, None, None, None),
        ("old", 110, None, None, None),
        ("own", 10, None, None, None),
    ]
    assert await (await store.open("account-2")).devices() == []


async def test_what_another_process_delivers_is_there_after_its_worker_has_left(database: SqlStore) -> None:
    first, second = await database.open(), await database.open()
    await deliver(first, *(f"dev-{number:04}" for number in range(2_500)))
    await deliver(first, "last")
    assert [one.device_id for one in await second.devices(after="dev-2498")] == ["dev-2499", "last"]


async def test_a_write_that_fails_hinders_no_completion_and_is_made_up_for(database: SqlStore) -> None:
    kind = database.url.partition("+")[0]
    outbox = await database.open()
    for statement in STOP[kind]:
        await database.execute(statement)
    await deliver(outbox, "a", "b")
    assert (await outbox.stats()).devices == 0
    assert await outbox.devices() == []
    await database.execute(GO_ON[kind])
    assert rounded(await outbox.devices()) == [("a", 0, None, None, None), ("b", 0, None, None, None)]


@pytest.mark.parametrize("value", ["'soon'", "x'00'", "1e300"])
async def test_a_damaged_time_is_unknown_until_the_next_delivery(tmp_path: Path, value: str) -> None:
    async with sql_store(f"sqlite+aiosqlite:///{tmp_path / 'spool.db'}") as database:
        outbox = await database.open()
        await deliver(outbox, "good")
        for name in ("'a'", "x'ff'"):
            await database.execute(f"INSERT INTO printos_delivery VALUES ('{ACCOUNT}', {name}, {value})")
        await outbox.put([draft("a")])
        assert rounded(await outbox.devices()) == [("a", None, 0, None, None), ("good", 0, None, None, None)]
        await deliver(outbox, "a")
        assert rounded(await outbox.devices())[0] == ("a", 0, None, None, None)
        assert await outbox.purge_deliveries() == 2

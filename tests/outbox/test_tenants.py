"""Tenants of an outbox: their list, the warning about what waits under another one, and adoption."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from printos_async import ConfigurationError, OutboxError
from printos_async.outbox import Finish, Release, TenantStats
from printos_async.outbox.tenants import find_tenant

from .stores import LEASE_S, MemoryStore, draft, sql_store

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from printos_async.outbox import Claim, DeadLetter

    from .stores import AdministeredOutbox, SqlStore, Store

OLD, NEW = "0123456789abcdef" * 2, "fedcba9876543210" * 2


def tenant(account: str, label: str, *, is_own: bool = False) -> TenantStats:
    return TenantStats(account=account, label=label, host="", waiting=0, failed=0, workers=0, is_own=is_own)


async def put_under(store: Store, account: str, *names: str, word: str = "DS_ON") -> None:
    outbox = await store.open(account)
    await outbox.put([draft(name, word) for name in names])


async def give_up_under(store: Store, account: str, name: str, word: str = "DS_ERROR") -> None:
    outbox = await store.open(account)
    owner = await outbox.join()
    [kept] = await outbox.put([draft(name, word)], owner=owner)
    await outbox.finish(owner, [Finish(name, kept.seq, attempts=3, error="404")])
    await outbox.leave(owner)


async def deliver_under(store: Store, account: str, names: Iterable[str], **fields: float) -> None:
    outbox = await store.open(account)
    owner = await outbox.join()
    for kept, name in zip(await outbox.put([draft(each) for each in names], owner=owner), names, strict=True):
        await outbox.finish(owner, [Finish(name, kept.seq, **fields)])  # type: ignore[arg-type]
    await outbox.leave(owner)


async def claimed(outbox: AdministeredOutbox) -> dict[str, Claim]:
    owner = await outbox.join()
    return {claim.device_id: claim for claim in await outbox.claim(owner, 1000)}


async def test_tenants_are_listed_with_what_is_there_of_them(store: Store) -> None:
    old = await store.open(OLD, label="printos.example key k123…", host="printos.example")
    owner = await old.join()
    await old.put([draft("a"), draft("b"), draft("c")], owner=owner)
    await old.finish(owner, [Finish("a", 1, error="404")])
    new = await store.open(NEW, label="site-7", host="stage.example")
    first, second = await new.tenants()
    assert (first.account, first.label, first.host) == (OLD, "printos.example key k123…", "printos.example")
    assert (first.waiting, first.failed, first.workers, first.is_own) == (2, 1, 1, False)
    assert (second.account, second.label, second.host) == (NEW, "site-7", "stage.example")
    assert (second.waiting, second.failed, second.workers, second.is_own) == (0, 0, 0, True)


async def test_an_opening_without_a_label_keeps_the_one_that_is_known(store: Store) -> None:
    await store.open(NEW, label="site-7", host="one.example")
    [tenant] = await (await store.open(NEW)).tenants()
    assert (tenant.label, tenant.host) == ("site-7", "one.example")
    [tenant] = await (await store.open(NEW, label="site-7", host="two.example")).tenants()
    assert (tenant.label, tenant.host) == ("site-7", "two.example")


async def test_what_waits_is_adopted_once(store: Store) -> None:
    old = await store.open(OLD, label="old site")
    await old.put([draft(f"dev-{number}", "DS_OFF") for number in range(5)])
    await store.pass_time(100.0)
    new = await store.open(NEW, label="new site")
    assert await new.adopt("old site") == 5
    assert await new.adopt("old site") == 0
    claims = await claimed(new)
    assert sorted(claims) == [f"dev-{number}" for number in range(5)]
    assert claims["dev-0"].body == draft("dev-0", "DS_OFF").body
    assert claims["dev-0"].waited_s == pytest.approx(100.0, abs=20.0)
    assert [tenant.waiting for tenant in await new.tenants()] == [5, 0]


@pytest.mark.parametrize("wanted", [OLD, OLD[:5], "old site"], ids=["fingerprint", "beginning", "label"])
def test_a_tenant_is_found(wanted: str) -> None:
    assert find_tenant([tenant(NEW, "new site", is_own=True), tenant(OLD, "old site")], wanted).account == OLD


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ("", "no account"),
        ("nobody", "no account"),
        ("twice", f"name one by its fingerprint: {OLD}, {'0' * 32}"),
        ("0", "2 accounts"),
        ("new site", "is the account for which"),
    ],
    ids=["empty", "unknown", "label of two", "beginning of two", "own"],
)
def test_a_tenant_has_to_be_named(wanted: str, complaint: str) -> None:
    tenants = [tenant(OLD, "twice"), tenant("0" * 32, "twice"), tenant(NEW, "new site", is_own=True)]
    with pytest.raises(ConfigurationError, match=complaint):
        find_tenant([*tenants, tenant("5" * 32, "")], wanted)


async def test_only_another_tenant_can_be_adopted(store: Store) -> None:
    new = await store.open(NEW)
    for wanted in (NEW, OLD):
        with pytest.raises(ConfigurationError):
            await new.adopt(wanted)


async def test_numbers_continue_above_those_of_both(store: Store) -> None:
    for _ in range(5):
        await deliver_under(store, NEW, ["a", "b"])
    await put_under(store, OLD, "a", "b")
    await put_under(store, NEW, "b", word="DS_OFF")
    before = {one.device_id: one.seq for one in await (await store.open(OLD)).progress(["a"])}
    new = await store.open(NEW)
    [ours] = await new.progress(["b"])
    assert await new.adopt(OLD) == 2
    assert (await claimed(new))["a"].seq > 5
    assert (await new.progress(["b"]))[0].seq == ours.seq
    [kept] = await (await store.open(OLD)).put([draft("a")])
    assert kept.seq > before["a"]


async def test_of_two_statuses_of_a_device_the_last_one_stays(store: Store) -> None:
    await put_under(store, OLD, "ours", word="DS_OFF")
    await put_under(store, NEW, "theirs", word="DS_OFF")
    await store.pass_time(50.0)
    await put_under(store, NEW, "ours")
    await put_under(store, OLD, "theirs")
    await store.pass_time(50.0)
    new = await store.open(NEW)
    before = {one.device_id: one.seq for one in await new.progress(["ours", "theirs"])}
    assert await new.adopt(OLD) == 2
    assert (await new.stats()).oldest_waiting_s == pytest.approx(100.0, abs=20.0)
    claims = await claimed(new)
    assert [claims[name].body for name in ("ours", "theirs")] == [draft("").body] * 2
    assert (claims["ours"].seq, claims["theirs"].seq) == (before["ours"], before["theirs"] + 1)


async def test_an_older_status_is_dropped_where_a_newer_one_is_known_to_be_delivered(store: Store) -> None:
    await put_under(store, OLD, "a")
    await store.pass_time(1.0)
    await deliver_under(store, NEW, ["a"], hold_s=60.0)
    new = await store.open(NEW)
    assert await new.adopt(OLD) == 1
    assert (await new.stats()).waiting == 0


async def test_dead_letters_are_adopted_unless_the_device_has_something_newer(store: Store) -> None:
    await give_up_under(store, OLD, "alone")
    await give_up_under(store, OLD, "older")
    await give_up_under(store, NEW, "newer", "DS_OFF")
    await store.pass_time(10.0)
    await give_up_under(store, NEW, "older", "DS_OFF")
    await give_up_under(store, OLD, "newer")
    new = await store.open(NEW)
    assert await new.adopt(OLD) == 3
    letters = {letter.device_id: letter for letter in await new.failed()}
    assert {name: letter.body for name, letter in letters.items()} == {
        "alone": draft("", "DS_ERROR").body,
        "newer": draft("", "DS_ERROR").body,
        "older": draft("", "DS_OFF").body,
    }
    assert (letters["alone"].attempts, letters["alone"].error) == (3, "404")
    assert letters["alone"].failed_age_s == pytest.approx(10.0, abs=5.0)
    assert await new.requeue() == 3
    assert sorted(await claimed(new)) == ["alone", "newer", "older"]


async def test_a_dead_letter_waits_for_an_older_status_that_will_be_sent(store: Store) -> None:
    await put_under(store, NEW, "a")
    await store.pass_time(1.0)
    await give_up_under(store, OLD, "a")
    new = await store.open(NEW)
    assert await new.adopt(OLD) == 0
    assert [(tenant.waiting, tenant.failed) for tenant in await new.tenants()] == [(0, 1), (1, 0)]
    owner = await new.join()
    [claim] = await new.claim(owner, 10)
    assert await new.adopt(OLD) == 0
    await new.finish(owner, [Finish("a", claim.seq)])
    assert await new.adopt(OLD) == 1
    assert [letter.device_id for letter in await new.failed()] == ["a"]


async def test_a_waiting_status_takes_the_place_of_an_older_dead_letter(store: Store) -> None:
    await give_up_under(store, NEW, "a")
    await store.pass_time(1.0)
    await put_under(store, OLD, "a")
    new = await store.open(NEW)
    assert await new.adopt(OLD) == 1
    assert await new.failed() == []
    assert list(await claimed(new)) == ["a"]


@pytest.mark.parametrize("both", [False, True])
async def test_holds_and_uncertain_writes_are_kept_the_longer_ones(store: Store, *, both: bool) -> None:
    old = await store.open(OLD)
    owner = await old.join()
    await old.put([draft("held"), draft("unsure")], owner=owner)
    await old.release(owner, [Release("held", hold_s=60.0), Release("unsure", uncertain_in_s=5.0)])
    await old.leave(owner)
    if both:
        await put_under(store, NEW, "held", "unsure")
    new = await store.open(NEW)
    await new.adopt(OLD)
    assert await claimed(new) == {}
    await store.pass_time(30.0)
    [claim] = (await claimed(new)).values()
    assert claim.device_id == "unsure"
    assert claim.uncertain_age_s == pytest.approx(25.0, abs=5.0)
    await store.pass_time(31.0)
    assert "held" in await claimed(new)


async def test_a_hold_after_a_delivery_is_adopted(store: Store) -> None:
    await deliver_under(store, OLD, ["a"], hold_s=60.0)
    new = await store.open(NEW)
    assert await new.adopt(OLD) == 0
    await new.put([draft("a")])
    assert await claimed(new) == {}
    await store.pass_time(61.0)
    assert list(await claimed(new)) == ["a"]


async def test_rows_of_workers_that_run_are_refused_and_those_of_dead_ones_uncertain(store: Store) -> None:
    old = await store.open(OLD)
    owners = [await old.join(), await old.join()]
    await old.put([draft("a")], owner=owners[0])
    await old.put([draft("b")])
    new = await store.open(NEW)
    with pytest.raises(OutboxError, match="2 workers of the other account run: stop them"):
        await new.adopt(OLD)
    await store.pass_time(LEASE_S + 5.0)
    assert await new.adopt(OLD) == 2
    claims = await claimed(new)
    assert claims["a"].uncertain_age_s == pytest.approx(5.0, abs=3.0)
    assert claims["b"].uncertain_age_s is None


async def test_a_running_worker_is_told_of_what_it_gets(store: Store) -> None:
    new = await store.open(NEW)
    owner = await new.join()
    await new.put([draft("a", "DS_OFF"), draft("b", "DS_OFF")], owner=owner)
    await store.pass_time(1.0)
    await put_under(store, OLD, "a", "c")
    new = await store.open(NEW)
    await new.adopt(OLD)
    [newer] = await new.newer(owner, 10)
    assert (newer.device_id, newer.body) == ("a", draft("").body)
    assert [claim.device_id for claim in await new.claim(owner, 10)] == ["c"]
    assert await new.finish(owner, [Finish("a", newer.seq), Finish("b", 1)]) == []


async def test_a_warning_says_what_waits_under_another_account(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    old = await store.open(OLD, label="key k123…", host="printos.example")
    await old.put([draft(f"dev-{number}") for number in range(1204)])
    await store.open(NEW, label="key k999…", host="printos.example")
    await store.open("3" * 32, label="site-7", host="other.example")
    await store.open("4" * 32)
    assert [record.getMessage() for record in caplog.records] == [
        "1,204 devices wait under another account of this host; see `printos outbox accounts`",
        "1,204 devices wait under another account of another host; see `printos outbox accounts`",
        "1,204 devices wait under another account; see `printos outbox accounts`",
    ]
    assert {record.name for record in caplog.records} == {"printos_async.outbox"}


async def test_nothing_is_said_where_nothing_waits_or_another_host_has_a_worker(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    await store.open("3" * 32, label="idle", host="printos.example")
    old = await store.open(OLD, label="key k123…", host="printos.example")
    await old.join()
    await old.put([draft("a")])
    await store.open(OLD, label="key k123…", host="printos.example")
    await store.open(NEW, label="key k999…", host="stage.example")
    assert caplog.records == []
    await store.pass_time(LEASE_S + 1.0)
    await store.open(NEW, label="key k999…", host="stage.example")
    assert caplog.records[0].getMessage().startswith("1 device waits under another account of another host")


async def test_labels_of_wrong_types_in_a_file_do_no_harm(tmp_path: Path) -> None:
    async with sql_store(f"sqlite+aiosqlite:///{tmp_path / 'spool.db'}") as database:
        await put_under(database, OLD, "a")
        await database.execute("UPDATE printos_tenant SET label = x'ff00', host = 7")
        new = await database.open(NEW)
        [_, old] = await new.tenants()
        assert (old.account, old.label, old.host) == (OLD, "\ufffd\x00", "7")
        assert await new.adopt(OLD) == 1


async def test_all_stores_merge_alike(database: SqlStore) -> None:
    memory = MemoryStore()
    assert await merged_at_random(memory) == await merged_at_random(database)


async def merged_at_random(store: Store) -> tuple[dict[str, Claim], dict[str, DeadLetter], int]:
    """Return what is there after the same random histories of 120 devices under two tenants were merged."""
    choose = random.Random(11)
    for _ in range(4):
        for account in (OLD, NEW):
            outbox = await store.open(account)
            owner = await outbox.join()
            names = [f"dev-{number}" for number in range(120) if choose.random() < 0.4]
            kept = await outbox.put(
                [draft(name, choose.choice(["DS_ON", "DS_OFF"])) for name in names], owner=owner
            )
            finished, released = [], []
            for name, one in zip(names, kept, strict=True):
                error = choose.choice([None, "404", "503"])
                hold_s = choose.choice([0.0, 0.0, 1000.0])
                if choose.random() < 0.4:
                    finished.append(Finish(name, one.seq, hold_s=hold_s, error=error))
                else:
                    unsure = choose.choice([None, 3.0])
                    released.append(Release(name, hold_s=hold_s, attempts=2, uncertain_in_s=unsure))
            await outbox.finish(owner, finished)
            await outbox.release(owner, released)
            await outbox.leave(owner)
            await store.pass_time(100.0)
    outbox = await store.open(NEW)
    before = (await outbox.stats()).devices
    count = await outbox.adopt(OLD)
    assert (await outbox.stats()).devices >= before
    letters = {
        one.device_id: evolve(one, seq=0, failed_age_s=round(one.failed_age_s, -2))
        for one in await outbox.failed(limit=999)
    }
    now = await claimed(outbox)
    await store.pass_time(1000.0)
    later = await claimed(outbox)
    claims = {name: _rounded(claim) for name, claim in (now | later).items()}
    return claims, letters, count


def _rounded(claim: Claim) -> Claim:
    age_s = claim.uncertain_age_s
    uncertain_age_s = None if age_s is None else round(age_s, -2)
    return evolve(claim, seq=0, waited_s=round(claim.waited_s, -2), uncertain_age_s=uncertain_age_s)

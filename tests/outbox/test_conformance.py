"""Conformance suite of all outboxes: in memory, in a SQLite file and in a PostgreSQL database."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from printos_async import ConfigurationError, OutboxError
from printos_async.outbox import Claim, Finish, Progress, Release

from .stores import LEASE_S, draft

if TYPE_CHECKING:
    from .stores import AdministeredOutbox, Store


def said(claims: list[Claim]) -> list[tuple[str, int, bytes]]:
    return [(claim.device_id, claim.seq, claim.body) for claim in claims]


async def finish_all(outbox: AdministeredOutbox, owner: int, **fields: object) -> None:
    for claim in await outbox.claim(owner, 1000):
        await outbox.finish(owner, [Finish(claim.device_id, claim.seq, **fields)])  # type: ignore[arg-type]


async def test_statuses_of_a_device_are_numbered(outbox: AdministeredOutbox) -> None:
    assert [kept.seq for kept in await outbox.put([draft("a"), draft("b")])] == [1, 1]
    assert [kept.seq for kept in await outbox.put([draft("a"), draft("b"), draft("a")])] == [2, 2, 3]
    assert await outbox.put([]) == []


async def test_the_newest_status_takes_the_place_of_a_waiting_one(outbox: AdministeredOutbox) -> None:
    await outbox.put([draft("a", "DS_ON"), draft("a", "DS_OFF")])
    await outbox.put([draft("a", "DS_ERROR")])
    owner = await outbox.join()
    assert said(await outbox.claim(owner, 10)) == [("a", 3, b'{"status":"DS_ERROR"}')]


async def test_the_oldest_is_claimed_first_and_a_newer_status_keeps_its_place(
    outbox: AdministeredOutbox, store: Store
) -> None:
    for name in "cab":
        await outbox.put([draft(name)])
        await store.pass_time(1.0)
    await outbox.put([draft("c", "DS_OFF")])
    owner = await outbox.join()
    assert [claim.device_id for claim in await outbox.claim(owner, 2)] == ["c", "a"]
    assert [claim.device_id for claim in await outbox.claim(owner, 2)] == ["b"]
    assert await outbox.claim(owner, 2) == []


async def test_a_device_that_was_delivered_long_ago_does_not_overtake(
    outbox: AdministeredOutbox, store: Store
) -> None:
    owner = await outbox.join()
    await outbox.put([draft("old")], owner=owner)
    await outbox.finish(owner, [Finish("old", 1)])
    await store.pass_time(10.0)
    await outbox.put([draft("new")])
    await store.pass_time(1.0)
    await outbox.put([draft("old")])
    assert [claim.device_id for claim in await outbox.claim(owner, 2)] == ["new", "old"]


async def test_a_claim_tells_how_long_the_status_has_waited(outbox: AdministeredOutbox, store: Store) -> None:
    await outbox.put([draft("a")])
    await store.pass_time(7.0)
    [claim] = await outbox.claim(await outbox.join(), 1)
    assert 7.0 <= claim.waited_s < 60.0
    assert claim.attempts == 0
    assert claim.uncertain_age_s is None


async def test_a_put_for_a_worker_takes_a_free_device(outbox: AdministeredOutbox) -> None:
    owner = await outbox.join()
    [first] = await outbox.put([draft("a")], owner=owner)
    [second] = await outbox.put([draft("a")], owner=owner)
    assert first.claimed
    assert second.claimed
    assert await outbox.claim(owner, 10) == []


async def test_a_put_does_not_take_what_another_worker_owns(outbox: AdministeredOutbox) -> None:
    first, second = await outbox.join(), await outbox.join()
    await outbox.put([draft("a")], owner=first)
    [kept] = await outbox.put([draft("a")], owner=second)
    assert not kept.claimed
    assert said(await outbox.newer(first, 10)) == [("a", 2, draft("a").body)]


async def test_a_put_without_a_worker_claims_nothing(outbox: AdministeredOutbox) -> None:
    [kept] = await outbox.put([draft("a")])
    assert not kept.claimed
    assert kept.uncertain_age_s is None


@pytest.mark.parametrize("ending", ["leave", "lease"])
async def test_a_worker_that_has_ended_takes_nothing(
    outbox: AdministeredOutbox, store: Store, ending: str
) -> None:
    owner = await outbox.join()
    if ending == "leave":
        await outbox.leave(owner)
    else:
        await store.pass_time(LEASE_S + 1)
    [kept] = await outbox.put([draft("a")], owner=owner)
    assert not kept.claimed
    assert await outbox.claim(owner, 10) == []
    assert not await outbox.renew(owner)
    assert [claim.device_id for claim in await outbox.claim(await outbox.join(), 10)] == ["a"]


async def test_finishing_gives_the_device_up(outbox: AdministeredOutbox) -> None:
    owner, other = await outbox.join(), await outbox.join()
    await outbox.put([draft("a")], owner=owner)
    assert await outbox.finish(owner, [Finish("a", 1, attempts=2)]) == []
    assert await outbox.progress(["a"]) == []
    [kept] = await outbox.put([draft("a")], owner=other)
    assert kept.claimed


async def test_a_delivered_device_is_forgotten_unless_something_is_to_be_kept(
    outbox: AdministeredOutbox,
) -> None:
    owner = await outbox.join()
    names = ["gone", "held", "dead", "kept", "newer"]
    await outbox.put([draft(name) for name in names], owner=owner)
    await outbox.put([draft("newer", "DS_OFF")])
    finished = [
        Finish("gone", 1),
        Finish("held", 1, hold_s=60.0),
        Finish("dead", 1, error="404"),
        Finish("kept", 1, keep=True),
        Finish("newer", 1),
    ]
    assert said(await outbox.finish(owner, finished)) == [("newer", 2, b'{"status":"DS_OFF"}')]
    assert {one.device_id for one in await outbox.progress(names)} == {"held", "dead", "kept", "newer"}
    assert (await outbox.stats()).devices == 4
    assert await outbox.finish(owner, [Finish("kept", 1), Finish("newer", 2)]) == []
    assert {one.device_id for one in await outbox.progress(names)} == {"held", "dead"}


async def test_numbers_never_go_back_though_a_device_was_forgotten(outbox: AdministeredOutbox) -> None:
    owner = await outbox.join()
    newest = 0
    for _ in range(3):
        first, second = await outbox.put([draft("a"), draft("a")], owner=owner)
        assert newest < first.seq < second.seq
        assert await outbox.progress(["a"]) == [Progress("a", second.seq, first.seq - 1, 0, None)]
        await outbox.finish(owner, [Finish("a", second.seq)])
        newest = second.seq
    [other] = await outbox.put([draft("b")], owner=owner)
    await outbox.finish(owner, [Finish("b", other.seq, error="404")])
    assert await outbox.purge(failed=True) == 1
    [again] = await outbox.put([draft("b")])
    assert again.seq > other.seq


async def test_what_is_told_of_a_forgotten_device_again_changes_nothing(outbox: AdministeredOutbox) -> None:
    owner = await outbox.join()
    [kept] = await outbox.put([draft("a")], owner=owner)
    done = [Finish("a", kept.seq)]
    assert await outbox.finish(owner, done) == []
    assert await outbox.finish(owner, done) == []
    [kept] = await outbox.put([draft("a", "DS_OFF")], owner=owner)
    assert said(await outbox.finish(owner, done)) == [("a", kept.seq, b'{"status":"DS_OFF"}')]
    await outbox.release(owner, [Release("a")])
    assert await outbox.finish(owner, done) == []
    assert said(await outbox.claim(owner, 10)) == [("a", kept.seq, b'{"status":"DS_OFF"}')]


async def test_renewing_forgets_devices_whose_hold_has_passed(
    outbox: AdministeredOutbox, store: Store
) -> None:
    owner = await outbox.join()
    names = ["short", "long", "dead", "waiting", "released", "kept"]
    await outbox.put([draft(name) for name in names], owner=owner)
    await outbox.finish(
        owner,
        [
            Finish("short", 1, hold_s=5.0),
            Finish("long", 1, hold_s=60.0),
            Finish("dead", 1, hold_s=5.0, error="404"),
            Finish("waiting", 1, hold_s=5.0),
            Finish("released", 1, hold_s=60.0, keep=True),
            Finish("kept", 1, keep=True),
        ],
    )
    await outbox.release(owner, [Release("released")])
    await outbox.put([draft("waiting")])
    await store.pass_time(6.0)
    assert (await outbox.stats()).devices == 6
    assert await outbox.renew(owner)
    assert {one.device_id for one in await outbox.progress(names)} == {"long", "dead", "waiting", "kept"}
    assert (await outbox.put([draft("short")]))[0].seq > 1


async def test_an_uncertain_write_outlives_what_was_delivered_before_it(
    outbox: AdministeredOutbox, store: Store
) -> None:
    dead = await outbox.join()
    await outbox.put([draft("a")], owner=dead)
    await outbox.finish(dead, [Finish("a", 1, keep=True)])
    await store.pass_time(LEASE_S + 5.0)
    alive = await outbox.join()
    for _ in range(2):
        assert await outbox.renew(alive)
    [kept] = await outbox.put([draft("a")], owner=alive)
    assert kept.uncertain_age_s is not None
    await outbox.finish(alive, [Finish("a", kept.seq)])
    assert (await outbox.put([draft("a")], owner=alive))[0].uncertain_age_s is None


async def test_finishing_gives_the_newer_status_and_keeps_the_device(outbox: AdministeredOutbox) -> None:
    owner, other = await outbox.join(), await outbox.join()
    await outbox.put([draft("a"), draft("b")], owner=owner)
    await outbox.put([draft("a", "DS_OFF")])
    newer = await outbox.finish(owner, [Finish("a", 1, attempts=3, error="no"), Finish("b", 1)])
    assert said(newer) == [("a", 2, b'{"status":"DS_OFF"}')]
    assert newer[0].attempts == 0
    assert not (await outbox.put([draft("a")], owner=other))[0].claimed
    assert await outbox.progress(["a"]) == [Progress("a", 3, 1, 3, "no")]


async def test_finishing_twice_gives_the_newer_status_twice(outbox: AdministeredOutbox) -> None:
    owner = await outbox.join()
    await outbox.put([draft("a")], owner=owner)
    await outbox.put([draft("a")])
    first = await outbox.finish(owner, [Finish("a", 1)])
    assert said(await outbox.finish(owner, [Finish("a", 1)])) == said(first) != []
    assert await outbox.finish(owner, [Finish("a", 2)]) == []
    assert await outbox.finish(owner, [Finish("a", 2)]) == []


async def test_a_hold_keeps_a_device_from_being_claimed(outbox: AdministeredOutbox, store: Store) -> None:
    owner = await outbox.join()
    await outbox.put([draft("a")], owner=owner)
    await outbox.finish(owner, [Finish("a", 1, hold_s=60.0)])
    [kept] = await outbox.put([draft("a")], owner=owner)
    assert not kept.claimed
    await store.pass_time(55.0)
    assert await outbox.renew(owner) is False
    owner = await outbox.join()
    assert await outbox.claim(owner, 10) == []
    await store.pass_time(6.0)
    assert said(await outbox.claim(owner, 10)) == [("a", 2, draft("a").body)]


async def test_a_released_device_is_claimed_again_with_its_attempts(
    outbox: AdministeredOutbox, store: Store
) -> None:
    owner = await outbox.join()
    await outbox.put([draft("a")], owner=owner)
    await outbox.release(owner, [Release("a", hold_s=10.0, attempts=4)])
    assert await outbox.claim(owner, 10) == []
    await store.pass_time(11.0)
    [claim] = await outbox.claim(owner, 10)
    assert (claim.seq, claim.attempts, claim.uncertain_age_s) == (1, 4, None)
    [kept] = await outbox.put([draft("a")])
    assert (await outbox.newer(owner, 10))[0].attempts == 0
    assert kept.seq == 2


async def test_a_status_that_its_worker_has_not_seen_is_released_without_attempts(
    outbox: AdministeredOutbox,
) -> None:
    owner = await outbox.join()
    await outbox.put([draft("a"), draft("b")], owner=owner)
    await outbox.put([draft("a")])
    await outbox.release(owner, [Release("a", attempts=4), Release("b", attempts=3)])
    claims = await outbox.claim(owner, 10)
    assert {claim.device_id: (claim.seq, claim.attempts) for claim in claims} == {"a": (2, 0), "b": (1, 3)}


async def test_a_device_with_an_uncertain_write_waits_until_its_last_request_has_ended(
    outbox: AdministeredOutbox, store: Store
) -> None:
    owner = await outbox.join()
    await outbox.put([draft("a")], owner=owner)
    await outbox.release(owner, [Release("a", hold_s=1.0, uncertain_in_s=10.0)])
    await store.pass_time(5.0)
    assert await outbox.claim(owner, 10) == []
    assert not (await outbox.put([draft("a")], owner=owner))[0].claimed
    await store.pass_time(8.0)
    [kept] = await outbox.put([draft("a")], owner=owner)
    assert kept.claimed
    assert kept.uncertain_age_s is not None
    assert 3.0 <= kept.uncertain_age_s < 20.0
    await outbox.finish(owner, [Finish("a", 3)])
    assert (await outbox.put([draft("a")], owner=owner))[0].uncertain_age_s is None


async def test_an_uncertain_write_stays_until_something_was_delivered(
    outbox: AdministeredOutbox, store: Store
) -> None:
    first = await outbox.join()
    await outbox.put([draft("a")], owner=first)
    await outbox.leave(first)
    await store.pass_time(3.0)
    second = await outbox.join()
    [claim] = await outbox.claim(second, 1)
    assert claim.uncertain_age_s is not None
    await outbox.release(second, [Release("a")])
    [claim] = await outbox.claim(second, 1)
    assert claim.uncertain_age_s is not None
    assert 3.0 <= claim.uncertain_age_s < 20.0


async def test_the_writes_of_a_worker_without_a_lease_are_taken_over_as_uncertain(
    outbox: AdministeredOutbox, store: Store
) -> None:
    dead = await outbox.join()
    await outbox.put([draft("a"), draft("b")], owner=dead)
    await store.pass_time(LEASE_S + 5.0)
    alive = await outbox.join()
    assert await outbox.claim(alive, 10) == []
    assert await outbox.renew(alive)
    claims = await outbox.claim(alive, 10)
    assert sorted(claim.device_id for claim in claims) == ["a", "b"]
    assert all(claim.uncertain_age_s is not None and 5.0 <= claim.uncertain_age_s < 30.0 for claim in claims)
    assert not await outbox.renew(dead)


async def test_a_renewed_lease_keeps_the_devices(outbox: AdministeredOutbox, store: Store) -> None:
    owner, other = await outbox.join(), await outbox.join()
    await outbox.put([draft("a")], owner=owner)
    for _ in range(3):
        await store.pass_time(LEASE_S - 5.0)
        assert await outbox.renew(owner)
    late = await outbox.join()
    assert await outbox.renew(late)
    assert await outbox.claim(late, 10) == []
    assert not await outbox.renew(other)
    assert await outbox.finish(owner, [Finish("a", 1, keep=True)]) == []
    assert (await outbox.progress(["a"]))[0].done_seq == 1


async def test_a_worker_that_lost_its_lease_finishes_and_releases_nothing(
    outbox: AdministeredOutbox, store: Store
) -> None:
    paused = await outbox.join()
    await outbox.put([draft("a"), draft("b")], owner=paused)
    await store.pass_time(LEASE_S + 1.0)
    other = await outbox.join()
    await outbox.renew(other)
    await outbox.claim(other, 10)
    assert await outbox.finish(paused, [Finish("a", 1, error="late")]) == []
    await outbox.release(paused, [Release("b", hold_s=100.0)])
    assert await outbox.newer(paused, 10) == []
    assert [one.done_seq for one in await outbox.progress(["a", "b"])] == [0, 0]
    assert await outbox.newer(other, 10) == []


async def test_leaving_frees_everything_with_its_writes_uncertain(outbox: AdministeredOutbox) -> None:
    first, second = await outbox.join(), await outbox.join()
    await outbox.put([draft("a")], owner=first)
    await outbox.leave(first)
    await outbox.leave(first)
    [claim] = await outbox.claim(second, 10)
    assert claim.uncertain_age_s is not None


@pytest.mark.parametrize("kept", [False, True], ids=["waiting", "kept"])
async def test_a_worker_is_told_once_of_what_others_put_for_its_devices(
    outbox: AdministeredOutbox,
    kept: bool,  # noqa: FBT001
) -> None:
    owner, other = await outbox.join(), await outbox.join()
    await outbox.put([draft(name) for name in "abcd"], owner=owner)
    if kept:
        await outbox.finish(owner, [Finish(name, 1, keep=True) for name in "abcd"])
    await outbox.put([draft("b", "DS_OFF")])
    await outbox.put([draft("c", "DS_OFF")], owner=other)
    await outbox.put([draft("d", "DS_OFF")], owner=owner)
    assert await outbox.newer(other, 10) == []
    told = sorted(said(await outbox.newer(owner, 10)))
    assert told == [("b", 2, b'{"status":"DS_OFF"}'), ("c", 2, b'{"status":"DS_OFF"}')]
    assert await outbox.newer(owner, 10) == []
    await outbox.put([draft("b", "DS_ERROR")])
    assert said(await outbox.newer(owner, 10)) == [("b", 3, b'{"status":"DS_ERROR"}')]


async def test_newer_statuses_come_in_portions_the_oldest_first(
    outbox: AdministeredOutbox, store: Store
) -> None:
    owner = await outbox.join()
    await outbox.put([draft(name) for name in "abc"], owner=owner)
    await outbox.finish(owner, [Finish(name, 1, keep=True) for name in "abc"])
    for name in "cab":
        await store.pass_time(1.0)
        await outbox.put([draft(name)])
    assert [claim.device_id for claim in await outbox.newer(owner, 2)] == ["c", "a"]
    assert [claim.device_id for claim in await outbox.newer(owner, 2)] == ["b"]


async def test_a_newer_status_of_a_device_that_is_held_is_told_when_its_time_has_come(
    outbox: AdministeredOutbox, store: Store
) -> None:
    owner = await outbox.join()
    await outbox.put([draft("a")], owner=owner)
    await outbox.finish(owner, [Finish("a", 1, hold_s=10.0, keep=True)])
    await outbox.put([draft("a")])
    assert await outbox.newer(owner, 10) == []
    await store.pass_time(11.0)
    assert [claim.seq for claim in await outbox.newer(owner, 10)] == [2]


@pytest.mark.parametrize("ending", ["finish", "put", "release", "leave"])
async def test_a_worker_is_not_told_of_what_it_knows_or_does_not_own_any_more(
    outbox: AdministeredOutbox, ending: str
) -> None:
    owner = await outbox.join()
    await outbox.put([draft("a")], owner=owner)
    await outbox.put([draft("a", "DS_OFF")])
    if ending == "finish":
        assert said(await outbox.finish(owner, [Finish("a", 1)])) == [("a", 2, b'{"status":"DS_OFF"}')]
    elif ending == "put":
        await outbox.put([draft("a")], owner=owner)
    elif ending == "release":
        await outbox.release(owner, [Release("a")])
    else:
        await outbox.leave(owner)
    assert await outbox.newer(owner, 10) == []


async def test_the_oldest_waiting_counts_from_its_first_status(
    outbox: AdministeredOutbox, store: Store
) -> None:
    owner = await outbox.join()
    await outbox.put([draft("a")])
    for _ in range(3):
        await store.pass_time(100.0)
        await outbox.put([draft("a")])
        await outbox.renew(owner)
    assert 300.0 <= (await outbox.stats()).oldest_waiting_s < 360.0  # type: ignore[operator]
    other = await outbox.join()
    [claim] = await outbox.claim(other, 10)
    assert claim.waited_s < 60.0
    await store.pass_time(10.0)
    await outbox.put([draft("a")])
    await store.pass_time(1.0)
    await outbox.finish(other, [Finish("a", claim.seq)])
    assert 1.0 <= (await outbox.stats()).oldest_waiting_s < 10.0  # type: ignore[operator]
    await outbox.finish(other, [Finish("a", claim.seq + 1, error="404")])
    assert (await outbox.stats()).oldest_waiting_s is None
    await store.pass_time(100.0)
    await outbox.put([draft("a")])
    assert (await outbox.stats()).oldest_waiting_s < 60.0  # type: ignore[operator]


async def test_progress_tells_for_how_long_a_waiting_device_is_held(outbox: AdministeredOutbox) -> None:
    owner = await outbox.join()
    await outbox.put([draft(name) for name in ("held", "owned", "free")], owner=owner)
    await outbox.finish(owner, [Finish("held", 1, hold_s=600.0), Finish("free", 1)])
    await outbox.put([draft(name) for name in ("held", "owned", "free")])
    held = {one.device_id: one.hold_s for one in await outbox.progress(["held", "owned", "free"])}
    assert 500.0 < held.pop("held") <= 600.0
    assert held == {"owned": 0.0, "free": 0.0}


async def test_a_status_that_was_given_up_is_a_dead_letter(outbox: AdministeredOutbox, store: Store) -> None:
    owner = await outbox.join()
    await outbox.put([draft("a"), draft("b"), draft("c")], owner=owner)
    await outbox.finish(
        owner, [Finish("b", 1, attempts=5, error="404"), Finish("a", 1, error="500"), Finish("c", 1)]
    )
    await store.pass_time(4.0)
    first, second = await outbox.failed()
    assert (first.device_id, first.seq, first.attempts, first.error) == ("a", 1, 0, "500")
    assert (second.device_id, second.body, second.attempts, second.error) == ("b", draft("b").body, 5, "404")
    assert 4.0 <= first.failed_age_s < 60.0
    assert await outbox.failed(limit=1) == [first] or (await outbox.failed(limit=1))[0].device_id == "a"
    assert [letter.device_id for letter in await outbox.failed(after="a")] == ["b"]
    assert await outbox.claim(owner, 10) == []


async def test_a_dead_letter_is_gone_when_a_newer_status_comes(outbox: AdministeredOutbox) -> None:
    owner = await outbox.join()
    await outbox.put([draft("a")], owner=owner)
    await outbox.finish(owner, [Finish("a", 1, error="404")])
    await outbox.put([draft("a", "DS_OFF")])
    assert await outbox.failed() == []
    assert await outbox.requeue() == 0
    assert said(await outbox.claim(owner, 10)) == [("a", 2, b'{"status":"DS_OFF"}')]
    await outbox.finish(owner, [Finish("a", 2)])
    assert await outbox.failed() == []
    assert await outbox.progress(["a"]) == []


async def test_requeued_dead_letters_are_sent_again(outbox: AdministeredOutbox, store: Store) -> None:
    owner = await outbox.join()
    await outbox.put([draft(name) for name in "abc"], owner=owner)
    await outbox.finish(owner, [Finish(name, 1, attempts=3, error="500") for name in "abc"])
    await store.pass_time(10.0)
    assert await outbox.requeue(["a", "a", "x"]) == 1
    [claim] = await outbox.claim(owner, 10)
    assert (claim.device_id, claim.seq, claim.body, claim.attempts) == ("a", 2, draft("a").body, 0)
    assert claim.waited_s < 5.0
    assert await outbox.requeue([]) == 0
    assert await outbox.requeue() == 2
    assert await outbox.requeue() == 0
    assert [
        claim.device_id for claim in sorted(await outbox.claim(owner, 10), key=lambda c: c.device_id)
    ] == ["b", "c"]
    assert await outbox.failed() == []


async def test_a_requeued_dead_letter_of_a_device_that_is_still_owned_goes_to_its_owner(
    outbox: AdministeredOutbox,
) -> None:
    owner, other = await outbox.join(), await outbox.join()
    await outbox.put([draft("a")], owner=owner)
    await outbox.finish(owner, [Finish("a", 1, error="500", keep=True)])
    assert await outbox.requeue() == 1
    assert await outbox.claim(other, 10) == []
    assert said(await outbox.newer(owner, 10)) == [("a", 2, draft("a").body)]


async def test_purging_forgets_what_is_done_and_nothing_that_waits(
    outbox: AdministeredOutbox, store: Store
) -> None:
    owner = await outbox.join()
    await outbox.put([draft(name) for name in ("done", "dead", "again")], owner=owner)
    await outbox.finish(
        owner, [Finish("done", 1, hold_s=60.0), Finish("dead", 1, error="no"), Finish("again", 1)]
    )
    await outbox.put([draft("again"), draft("waiting")])
    await store.pass_time(10.0)
    assert await outbox.purge(older_than_s=60.0) == 0
    assert await outbox.purge(older_than_s=5.0) == 1
    assert {one.device_id for one in await outbox.progress(["done", "dead", "again", "waiting"])} == {
        "dead",
        "again",
        "waiting",
    }
    assert await outbox.purge(failed=True, older_than_s=60.0) == 0
    assert await outbox.purge(failed=True) == 1
    assert (await outbox.stats()).devices == 2
    assert sorted(claim.device_id for claim in await outbox.claim(owner, 10)) == ["again", "waiting"]
    assert (await outbox.put([draft("done")]))[0].seq > 1


async def test_progress_leaves_out_what_is_not_known(outbox: AdministeredOutbox) -> None:
    await outbox.put([draft("a"), draft("a")])
    assert await outbox.progress(["a", "a", "x"]) == [Progress("a", 2, 0, 0, None)]
    assert await outbox.progress([]) == []


async def test_stats_count_rows(outbox: AdministeredOutbox, store: Store) -> None:
    empty = await outbox.stats()
    assert (empty.devices, empty.waiting, empty.workers, empty.oldest_waiting_s) == (0, 0, 0, None)
    owner = await outbox.join()
    await outbox.put([draft("waiting")])
    await store.pass_time(3.0)
    await outbox.put([draft(name) for name in ("owned", "held", "done", "dead")], owner=owner)
    await outbox.finish(
        owner, [Finish("held", 1, hold_s=60.0), Finish("done", 1), Finish("dead", 1, error="no")]
    )
    stats = await outbox.stats()
    assert (stats.devices, stats.waiting, stats.claimed, stats.failed, stats.workers) == (4, 2, 1, 1, 1)
    assert stats.oldest_waiting_s is not None
    assert 3.0 <= stats.oldest_waiting_s < 60.0


async def test_accounts_see_nothing_of_each_other(store: Store) -> None:
    first = await store.open("account-1")
    owner = await first.join()
    await first.put([draft("a"), draft("dead")], owner=owner)
    await first.finish(owner, [Finish("dead", 1, error="no")])
    second = await store.open("account-2")
    other = await second.join()
    assert (await second.put([draft("a", "DS_OFF")]))[0].seq == 1
    assert said(await second.claim(other, 10)) == [("a", 1, b'{"status":"DS_OFF"}')]
    assert await second.claim(owner, 10) == []
    assert await second.finish(owner, [Finish("a", 1)]) == []
    assert not await second.renew(owner)
    assert await second.failed() == []
    assert await second.requeue() == 0
    assert await second.purge(failed=True) == 0
    assert await second.newer(owner, 10) == []
    await store.pass_time(LEASE_S + 1.0)
    alive = await second.join()
    assert await second.renew(alive)
    stats = await second.stats()
    assert (stats.devices, stats.failed, stats.workers) == (1, 0, 1)


async def test_it_is_open_for_one_account_at_a_time(store: Store) -> None:
    outbox = await store.open("account-1")
    await outbox.open("account-1")
    with pytest.raises(ConfigurationError, match="another account"):
        await outbox.open("account-2")
    await outbox.aclose()
    await outbox.aclose()
    with pytest.raises(OutboxError, match="not open"):
        await outbox.put([draft("a")])


async def test_what_was_kept_is_there_after_closing(store: Store) -> None:
    outbox = await store.open()
    await outbox.put([draft("a")])
    await outbox.aclose()
    again = await store.open()
    assert said(await again.claim(await again.join(), 10)) == [("a", 1, draft("a").body)]


async def test_concurrent_putters_keep_their_order(outbox: AdministeredOutbox) -> None:
    async def put_many(name: str) -> list[int]:
        return [(await outbox.put([draft(name, f"DS_{index}")]))[0].seq for index in range(20)]

    numbers = await asyncio.gather(*(put_many(f"dev-{index}") for index in range(20)))
    assert numbers == [list(range(1, 21))] * 20
    claims = await outbox.claim(await outbox.join(), 100)
    assert {claim.body for claim in claims} == {b'{"status":"DS_19"}'}


async def test_concurrent_calls_are_kept_in_the_order_of_coming(outbox: AdministeredOutbox) -> None:
    kept = await asyncio.gather(*(outbox.put([draft("a", f"DS_{index}")]) for index in range(200)))
    assert [one.seq for [one] in kept] == list(range(1, 201))
    [claim] = await outbox.claim(await outbox.join(), 1)
    assert claim.body == b'{"status":"DS_199"}'


async def test_thousands_of_statuses_in_one_call(outbox: AdministeredOutbox) -> None:
    kept = await outbox.put([draft(f"dev-{index % 1700}") for index in range(2500)])
    assert [one.seq for one in kept] == [1] * 1700 + [2] * 800
    owner = await outbox.join()
    claims = [claim for _ in range(4) for claim in await outbox.claim(owner, 500)]
    assert len({claim.device_id for claim in claims}) == 1700
    assert await outbox.finish(owner, [Finish(claim.device_id, claim.seq) for claim in claims]) == []
    assert (await outbox.stats()).waiting == 0


async def test_a_cancelled_put_leaves_the_outbox_usable(outbox: AdministeredOutbox) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(outbox.put([draft(f"dev-{index}")])) for index in range(50)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
    assert all(task.cancelled() or task.result()[0].seq == 1 for task in tasks)
    assert not any(task.cancelled() for task in tasks[1::2])
    kept = await outbox.progress([f"dev-{index}" for index in range(1, 50, 2)])
    assert len(kept) == 25
    assert (await outbox.put([draft("dev-1")]))[0].seq == 2


async def test_any_text_and_any_json_come_back_as_they_were(outbox: AdministeredOutbox) -> None:
    names = ["dev 1", "dév-Ω-😀", "a'b\"c;--", "%s :x $1", "null", "[]", "\u2028"]
    bodies = [b'{"a":"\\u0000\\ud83d"}', b"{}", b'{"a": 1e400}', b'"\'"', b"null", b'{"a":":b"}', b"[1, 2]"]
    await outbox.put([type(draft("a"))(name, body) for name, body in zip(names, bodies, strict=True)])
    claims = await outbox.claim(await outbox.join(), 100)
    assert {claim.device_id: claim.body for claim in claims} == dict(zip(names, bodies, strict=True))

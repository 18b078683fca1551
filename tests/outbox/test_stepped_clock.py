"""The time of a SQLite outbox where somebody sets the machine's wall clock, and where the machine is restarted."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import AsyncExitStack, closing
from typing import TYPE_CHECKING

import pytest
from attrs import define

from printos_async import SqlOutbox
from printos_async._common.clock import MachineClock, machine_clock, steady_s
from printos_async.outbox import Finish, Release
from printos_async.outbox.sqlite.time import FileTime

from .stores import ACCOUNT, LEASE_S, draft

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HOUR_S = 3600.0
STEPS = pytest.mark.parametrize("step_s", [-HOUR_S, HOUR_S], ids=["back", "forward"])


@define
class Machine:
    """A machine whose clocks the test moves."""

    path: Path
    wall_s: float = 1_800_000_000.0
    since_boot_s: float = 500.0
    boot_id: str | None = "first"

    def pass_time(self, seconds: float) -> None:
        self.wall_s += seconds
        self.since_boot_s += seconds

    def restart(self, *, off_s: float, step_s: float = 0.0) -> None:
        self.wall_s += off_s + step_s
        self.since_boot_s = 5.0
        self.boot_id = f"after {self.boot_id}"

    def outbox(self) -> SqlOutbox:
        outbox = SqlOutbox(f"sqlite+aiosqlite:///{self.path}", lease_s=LEASE_S)
        outbox._clock = MachineClock(
            wall_s=lambda: self.wall_s, since_boot_s=lambda: self.since_boot_s, boot_id=self.boot_id
        )
        return outbox


class Opened:
    """Outboxes of one machine; each is as one in a process of its own."""

    def __init__(self, machine: Machine, stack: AsyncExitStack) -> None:
        self.machine = machine
        self._stack = stack

    async def outbox(self) -> SqlOutbox:
        outbox = self.machine.outbox()
        self._stack.push_async_callback(outbox.aclose)
        await outbox.open(ACCOUNT)
        return outbox


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "spool.db")


@pytest.fixture
async def opened(machine: Machine) -> AsyncIterator[Opened]:
    async with AsyncExitStack() as stack:
        yield Opened(machine, stack)


async def claimed(outbox: SqlOutbox, owner: int) -> list[str]:
    return [claim.device_id for claim in await outbox.claim(owner, 10)]


@STEPS
async def test_what_waits_is_claimed_at_once_although_the_clock_was_set(
    machine: Machine, opened: Opened, step_s: float
) -> None:
    spooler, worker = await opened.outbox(), await opened.outbox()
    owner = await worker.join()
    await spooler.put([draft("before")])
    machine.wall_s += step_s
    late = await opened.outbox()
    await late.put([draft("before", "DS_OFF"), draft("after")])
    assert sorted(await claimed(worker, owner)) == ["after", "before"]


@STEPS
async def test_a_lease_runs_as_long_as_ever_although_the_clock_was_set(
    machine: Machine, opened: Opened, step_s: float
) -> None:
    first, second = await opened.outbox(), await opened.outbox()
    alive, other = await first.join(), await second.join()
    await first.put([draft("a")], owner=alive)
    machine.wall_s += step_s
    machine.pass_time(LEASE_S - 1.0)
    assert await second.renew(other)
    assert await claimed(second, other) == []
    assert await first.renew(alive)
    machine.pass_time(LEASE_S - 1.0)
    assert await second.renew(other)
    machine.pass_time(2.0)
    assert not await first.renew(alive)
    assert await second.renew(other)
    [claim] = await second.claim(other, 10)
    assert claim.uncertain_age_s is not None
    assert 0.0 <= claim.uncertain_age_s <= 2.0


@STEPS
async def test_an_uncertain_write_stays_so_for_its_time_although_the_clock_was_set(
    machine: Machine, opened: Opened, step_s: float
) -> None:
    outbox = await opened.outbox()
    owner = await outbox.join()
    await outbox.put([draft("a")], owner=owner)
    await outbox.release(owner, [Release("a", uncertain_in_s=10.0)])
    machine.wall_s += step_s
    assert await claimed(outbox, owner) == []
    machine.pass_time(11.0)
    [claim] = await outbox.claim(owner, 1)
    assert claim.uncertain_age_s == pytest.approx(1.0)


@STEPS
async def test_after_a_restart_everything_goes_out_and_what_was_in_flight_is_uncertain(
    machine: Machine, opened: Opened, step_s: float
) -> None:
    outbox = await opened.outbox()
    dead = await outbox.join()
    await outbox.put([draft("waits")])
    machine.pass_time(HOUR_S / 2)  # long after the last put
    assert not await outbox.renew(dead)
    dead = await outbox.join()
    await outbox.put([draft("flies"), draft("backs off"), draft("uncertain")], owner=dead)
    await outbox.release(dead, [Release("backs off", hold_s=2.0), Release("uncertain", uncertain_in_s=1.0)])
    machine.restart(off_s=10.0, step_s=step_s)

    outbox = await opened.outbox()
    alive = await outbox.join()
    assert await outbox.renew(alive)
    machine.pass_time(2.0)
    claims = {claim.device_id: claim for claim in await outbox.claim(alive, 10)}
    assert sorted(claims) == ["backs off", "flies", "uncertain", "waits"]
    ages = {name: claim.uncertain_age_s for name, claim in claims.items()}
    # From the restart on: nobody knows how long the machine was off.
    assert ages == {
        "waits": None,
        "backs off": None,
        "flies": pytest.approx(2.0),
        "uncertain": pytest.approx(2.0),
    }
    assert all(claim.waited_s >= 0.0 for claim in claims.values())


async def test_a_hold_ends_while_the_machine_is_off(machine: Machine, opened: Opened) -> None:
    outbox = await opened.outbox()
    owner = await outbox.join()
    await outbox.put([draft("a")], owner=owner)
    await outbox.release(owner, [Release("a", hold_s=600.0)])
    await outbox.leave(owner)
    machine.restart(off_s=601.0)
    outbox = await opened.outbox()
    assert await claimed(outbox, await outbox.join()) == ["a"]


async def test_time_does_not_go_back_beyond_the_last_renewal(machine: Machine, opened: Opened) -> None:
    outbox = await opened.outbox()
    owner = await outbox.join()
    await outbox.put([draft("a")], owner=owner)
    for _ in range(100):  # an outage in which nothing is put or delivered
        machine.pass_time(LEASE_S / 4)
        assert await outbox.renew(owner)
    await outbox.release(owner, [Release("a", hold_s=60.0)])
    machine.restart(off_s=10.0, step_s=-HOUR_S)
    outbox = await opened.outbox()
    machine.pass_time(60.5)
    assert await claimed(outbox, await outbox.join()) == ["a"]


async def test_all_that_open_at_once_after_a_restart_have_the_same_time(
    machine: Machine, opened: Opened
) -> None:
    await (await opened.outbox()).put([draft("a")])
    machine.restart(off_s=10.0)
    outboxes = await asyncio.gather(*(opened.outbox() for _ in range(5)))
    machine.wall_s += HOUR_S
    outboxes.append(await opened.outbox())
    owners = [await outbox.join() for outbox in outboxes]
    with closing(sqlite3.connect(machine.path)) as connection:
        found = connection.execute("SELECT DISTINCT lease_until FROM printos_worker").fetchall()
    assert len(owners) == 6
    assert len(found) == 1


async def test_without_a_clock_of_the_boot_the_time_is_the_wall_clocks(
    machine: Machine, opened: Opened
) -> None:
    machine.boot_id = None
    outbox = await opened.outbox()
    owner = await outbox.join()
    await outbox.put([draft("a")])
    machine.wall_s -= HOUR_S
    assert await claimed(outbox, owner) == []
    machine.wall_s += HOUR_S
    assert await claimed(outbox, owner) == ["a"]
    machine.wall_s += LEASE_S + 1.0
    assert not await outbox.renew(owner)


@pytest.mark.parametrize("offset", ["NULL", "'bad'", "9e300", "x'00'"])
async def test_a_file_with_a_damaged_offset_gets_another_one(
    machine: Machine, opened: Opened, offset: str
) -> None:
    await (await opened.outbox()).put([draft("a")])
    with closing(sqlite3.connect(machine.path)) as connection, connection:
        connection.execute(f"UPDATE printos_meta SET clock_offset_s = {offset}")
    machine.wall_s -= HOUR_S
    outbox = await opened.outbox()
    assert await claimed(outbox, await outbox.join()) == ["a"]


async def test_a_file_that_takes_the_place_of_another_one_has_a_time_of_its_own(
    machine: Machine, opened: Opened
) -> None:
    outbox = await opened.outbox()
    await outbox.put([draft("a")])
    for left in machine.path.parent.glob("spool.db*"):
        left.unlink()
    machine.wall_s -= HOUR_S
    other = await opened.outbox()
    await other.put([draft("b")])
    await outbox.put([draft("c")])
    assert sorted(await claimed(outbox, await outbox.join())) == ["b", "c"]


VERSION_1 = """
    CREATE TABLE printos_outbox (
        account TEXT NOT NULL, device_id TEXT NOT NULL, seq BIGINT NOT NULL, body TEXT NOT NULL, crc BIGINT NOT NULL,
        put_at DOUBLE NOT NULL, due_at DOUBLE NOT NULL, attempts INTEGER NOT NULL, owner BIGINT, doubt_since DOUBLE,
        done_seq BIGINT NOT NULL, done_at DOUBLE, done_attempts INTEGER NOT NULL, error TEXT,
        PRIMARY KEY (account, device_id)
    );
    CREATE INDEX printos_outbox_claimable ON printos_outbox (account, due_at) WHERE owner IS NULL AND seq > done_seq;
    CREATE INDEX printos_outbox_idle ON printos_outbox (account, due_at)
        WHERE owner IS NULL AND seq = done_seq AND error IS NULL AND doubt_since IS NULL;
    CREATE INDEX printos_outbox_failed ON printos_outbox (account, device_id) WHERE error IS NOT NULL;
    CREATE TABLE printos_worker (
        id BIGINT NOT NULL, account TEXT NOT NULL, lease_until DOUBLE NOT NULL, PRIMARY KEY (id)
    );
    CREATE TABLE printos_meta (version INTEGER NOT NULL, floor BIGINT NOT NULL);
    INSERT INTO printos_meta VALUES (1, 7);
"""
VERSION_1_ROW = "INSERT INTO printos_outbox VALUES (?, 'a', 3, '{}', ?, ?, ?, 0, ?, NULL, 0, NULL, 0, NULL)"


@pytest.mark.parametrize("ahead_s", [0.0, HOUR_S])
async def test_a_file_of_the_first_version_is_taken_over_with_its_leases_and_whatever_its_clock_was(
    machine: Machine, opened: Opened, ahead_s: float
) -> None:
    now_s = machine.wall_s + ahead_s
    with closing(sqlite3.connect(machine.path)) as connection, connection:
        connection.executescript(VERSION_1)
        for owner in (None, 9):
            account = ACCOUNT if owner is None else "account-2"
            connection.execute(VERSION_1_ROW, (account, 2_145_767_123, now_s, now_s, owner))
        connection.execute("INSERT INTO printos_worker VALUES (9, 'account-2', ?)", (now_s + LEASE_S,))
    outbox, other = await opened.outbox(), machine.outbox()
    assert [set_aside.name for set_aside in machine.path.parent.glob("*.damaged-*")] == []
    owner = await outbox.join()
    await outbox.put([draft("b")], owner=owner)
    assert (await outbox.stats()).waiting == 2
    await outbox.put([draft("a")])
    assert await claimed(outbox, owner) == ["a"]
    await outbox.finish(owner, [Finish("b", 8)])
    await other.open("account-2")
    assert await other.renew(9)
    await other.aclose()


def test_a_statement_has_one_time_and_the_next_one_another() -> None:
    ticks = iter(range(1000))
    time = FileTime(MachineClock(wall_s=lambda: next(ticks), since_boot_s=lambda: 0.0, boot_id=None))
    with closing(sqlite3.connect(":memory:")) as connection:
        time.register(connection)
        connection.execute("CREATE TABLE t (a DOUBLE, b DOUBLE)")
        connection.executemany("INSERT INTO t VALUES (?, 0)", [(-index,) for index in range(50)])
        for expected in range(3):
            time.begin_statement()
            found = connection.execute(
                "UPDATE t SET a = printos_time(), b = CASE WHEN b >= 0 THEN printos_time() END"
                " WHERE a <= printos_time() RETURNING a, b, printos_time()"
            ).fetchall()
            assert found == [(expected,) * 3] * 50


def test_the_machines_own_clocks_can_be_read() -> None:
    clock = machine_clock()
    before_s = steady_s()
    assert clock.since_boot_s() <= steady_s()
    assert steady_s() >= before_s
    assert clock.wall_s() > 1.7e9
    assert clock.boot_id is None or clock.boot_id == machine_clock().boot_id != ""

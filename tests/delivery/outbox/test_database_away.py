"""A database that stops, is silent, or whose answers get lost: nothing that was accepted is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import make_url

from printos_async import HmacAuth, OutboxError, PrintOSClient, SqlOutbox
from tests.conftest import KEY, QUICK_RETRY, SECRET, status

from .conftest import Workplace
from .proxy import proxied
from .seen import adds_up, applied, pages

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from printos_async.outbox import Claim
    from printos_async.sandbox import Sandbox
    from tests.postgres import PostgresServer


async def test_put_fails_while_the_database_is_away_and_everything_goes_on_when_it_is_back(
    sandbox: Sandbox, postgres_workplace: Workplace, postgres_server: PostgresServer
) -> None:
    async with postgres_workplace.pusher(min_interval_s=1.0) as pusher:
        await pusher.push("dev-1", status(1))
        await pusher.put("dev-1", status(2))  # it has to wait for its time
        await asyncio.to_thread(postgres_server.stop)
        with pytest.raises(OutboxError) as caught:
            await pusher.put("dev-2", status(1))
        assert postgres_server.password not in str(caught.value)
        assert pusher.stats().accepted == 2
        await asyncio.to_thread(postgres_server.start)
        await pusher.put("dev-3", status(1))
        stats = await pusher.drain()
    assert (stats.accepted, stats.sent, stats.pending) == (3, 3, 0)
    assert (pages(sandbox, "dev-1"), pages(sandbox, "dev-2"), pages(sandbox, "dev-3")) == (2, -1, 1)


class AwayOutbox(SqlOutbox):
    """Fails to claim and to renew the lease while it is away."""

    is_away = False

    async def claim(self, *limits: Any) -> list[Claim]:
        if self.is_away:
            raise OutboxError("connection refused")
        return await super().claim(*limits)

    async def renew(self, owner: int) -> bool:
        if self.is_away:
            raise OutboxError("connection refused")
        return await super().renew(owner)


async def test_the_log_says_that_the_outbox_is_away_and_once_when_it_is_back(
    sandbox: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def messages() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "printos_async.outbox"]

    outbox = AwayOutbox(f"sqlite+aiosqlite:///{tmp_path / 'spool.db'}", lease_s=1.0)
    claims = "statuses cannot be claimed: connection refused; trying again"
    renewals = "the lease on the outbox cannot be renewed: connection refused; trying again"
    async with client_of(sandbox, lease_s=1.0) as client, client.status_pusher(outbox=outbox) as pusher:
        await pusher.push("dev-1", status(1))
        outbox.is_away = True
        await until(lambda: {claims, renewals} <= set(messages()))
        outbox.is_away = False
        await until(lambda: "the outbox answers again" in messages())
        await pusher.push("dev-1", status(2))
    assert set(messages()) == {claims, renewals, "the outbox answers again"}
    assert messages().count("the outbox answers again") == 1


async def until(condition: Callable[[], bool]) -> None:
    """Return once a condition holds that nothing announces; it must within ten seconds."""
    for _ in range(200):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it does not come true")


async def test_the_health_says_that_the_database_is_away_and_when_it_is_back(
    postgres_workplace: Workplace, postgres_server: PostgresServer
) -> None:
    async with postgres_workplace.pusher() as pusher:
        await pusher.push("dev-1", status(1))
        assert pusher.health().is_ready
        await asyncio.to_thread(postgres_server.stop)
        await until(lambda: "outbox_unavailable" in pusher.health().reasons)
        assert postgres_server.password not in pusher.health().reasons["outbox_unavailable"]
        await asyncio.to_thread(postgres_server.start)
        await until(lambda: pusher.health().is_ready)


def client_of(sandbox: Sandbox, *, lease_s: float) -> PrintOSClient:
    """A client whose requests end within half of a lease."""
    return PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET), retry=QUICK_RETRY, timeout_s=lease_s / 2)


async def test_a_database_that_is_away_for_longer_than_the_lease_loses_nothing(
    sandbox: Sandbox, postgres_server: PostgresServer, postgres_url: str
) -> None:
    await sandbox.block("dev-1")
    async with (
        client_of(sandbox, lease_s=1.0) as client,
        Workplace(client, postgres_url).pusher(lease_s=1.0, ambiguity_s=0.1) as pusher,
    ):
        for index in range(5):
            await pusher.put(f"dev-{index}", status(index))
        await asyncio.to_thread(postgres_server.stop)
        await asyncio.sleep(1.5)  # that is how long it is away
        await asyncio.to_thread(postgres_server.start)
        await sandbox.release()
        stats = await pusher.drain()
    assert adds_up(stats)
    assert (stats.pending, stats.failed) == (0, 0)
    assert [pages(sandbox, f"dev-{index}") for index in range(5)] == list(range(5))


async def test_a_claim_whose_answer_was_lost_is_sent_all_the_same(
    sandbox: Sandbox, client: PrintOSClient, postgres_url: str
) -> None:
    async with proxied(postgres_url) as (proxy, url):  # noqa: SIM117
        async with (
            client.spooler(Workplace(client, postgres_url).outbox()) as spooler,
            Workplace(client, url).pusher(),
        ):
            proxy.lose(b"dev-1")
            await spooler.put("dev-1", status(1))
            while not proxy.lost:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            proxy.lose(None)
            await sandbox.wait_for(lambda: pages(sandbox, "dev-1") == 1)


async def test_a_put_whose_answers_were_lost_hides_no_status_that_was_accepted_before(
    sandbox: Sandbox, client: PrintOSClient, postgres_url: str
) -> None:
    async with proxied(postgres_url) as (proxy, url):  # noqa: SIM117
        async with (
            client.spooler(Workplace(client, postgres_url).outbox()) as spooler,
            Workplace(client, url).pusher() as pusher,
        ):
            await pusher.push("dev-0", status(1))
            proxy.lose(b"dev-1")
            await spooler.put("dev-1", status(1))
            with pytest.raises(OutboxError):
                await pusher.put("dev-1", status(2))
            proxy.lose(None)
            await sandbox.wait_for(lambda: pages(sandbox, "dev-1") >= 1)


async def test_a_claim_whose_answer_comes_late_brings_no_status_that_was_replaced_meanwhile(
    sandbox: Sandbox, client: PrintOSClient, postgres_url: str
) -> None:
    async with proxied(postgres_url) as (proxy, url):
        place = Workplace(client, postgres_url)
        async with (
            client.spooler(place.outbox()) as spooler,
            Workplace(client, url).pusher() as pusher,
        ):
            await pusher.push("dev-0", status(1))
            proxy.delay(b"dev-1")
            await spooler.put("dev-1", status(1))
            await proxy.held.wait()
            assert (await pusher.push("dev-1", status(2))).outcome == "sent"
            while (await place.stats()).waiting:  # noqa: ASYNC110
                await asyncio.sleep(0)
            proxy.flow()
            await spooler.put("dev-2", status(1))  # the next claim comes after the late one
            await sandbox.wait_for(lambda: pages(sandbox, "dev-2") == 1)
            await pusher.drain()
    assert applied(sandbox, "dev-1") == [2]


async def test_a_put_whose_answer_comes_late_is_not_sent_again(
    sandbox: Sandbox, client: PrintOSClient, postgres_url: str
) -> None:
    async with proxied(postgres_url) as (proxy, url):
        place = Workplace(client, postgres_url)
        async with Workplace(client, url).pusher() as pusher:
            await sandbox.block("dev-1")
            await pusher.put("dev-1", status(1))
            proxy.delay(b"dev-1")
            late = asyncio.create_task(pusher.push("dev-1", status(2)))
            await proxy.held.wait()
            await sandbox.release("dev-1")
            await sandbox.wait_for(
                lambda: pages(sandbox, "dev-1") == 2
            )  # by what the end of the first one told
            while (await place.stats()).waiting:  # noqa: ASYNC110
                await asyncio.sleep(0)
            proxy.flow()
            assert (await late).outcome == "sent"
            stats = await pusher.drain()
    assert applied(sandbox, "dev-1") == [1, 2]
    assert adds_up(stats)


async def test_an_opening_whose_connection_is_lost_is_tried_again_and_fails_with_an_outbox_error(
    sandbox: Sandbox, client: PrintOSClient, postgres_url: str
) -> None:
    await Workplace(client, postgres_url).stats()
    async with proxied(postgres_url) as (proxy, url):
        proxy.lose(b"printos_meta")  # what it finds when it looks for its tables, within a transaction
        pusher = Workplace(client, url).pusher()
        with pytest.raises(OutboxError):
            await pusher.put("dev-1", status(1))
        assert proxy.lost > 1
        proxy.lose(None)
        await pusher.put("dev-1", status(2))
        await sandbox.wait_for(lambda: pages(sandbox, "dev-1") == 2)
        await pusher.aclose()


# A put ends within it, and the devices are at their newest within two leases.
PUT_ENDS_S, LEASE_S = 15.0, 4.0


async def test_a_worker_and_a_spooler_outlive_the_silence_of_their_connections(
    sandbox: Sandbox, postgres_url: str
) -> None:
    async with proxied(postgres_url) as (proxy, url), client_of(sandbox, lease_s=LEASE_S) as client:
        place = Workplace(client, url)
        async with (
            client.spooler(place.outbox(lease_s=LEASE_S)) as spooler,
            place.pusher(lease_s=LEASE_S, consistency="strict", ambiguity_s=0.1) as pusher,
        ):
            await pusher.push("dev-0", status(0))
            for index in range(1, 10):
                await spooler.put(f"dev-{index}", status(1))
            proxy.forget()
            async with asyncio.timeout(2 * LEASE_S):
                for index in range(10):
                    async with asyncio.timeout(PUT_ENDS_S):
                        await spooler.put(f"dev-{index}", status(2))
                await sandbox.wait_for(
                    lambda: all(pages(sandbox, f"dev-{index}") == 2 for index in range(10))
                )
            proxy.flow()
            await proxy.forgotten_end()
            await pusher.push("dev-0", status(3))
            stats = await pusher.drain()
    assert adds_up(stats)
    for index in range(10):
        assert applied(sandbox, f"dev-{index}") == sorted(applied(sandbox, f"dev-{index}"))


async def test_a_worker_and_a_spooler_go_on_when_a_read_only_database_may_be_written_to_again(
    sandbox: Sandbox, postgres_url: str, postgres_server: PostgresServer
) -> None:
    database = make_url(postgres_url).database
    client = client_of(sandbox, lease_s=LEASE_S)
    place = Workplace(client, postgres_url)
    async with (
        client,
        client.spooler(place.outbox(lease_s=LEASE_S)) as spooler,
        place.pusher(lease_s=LEASE_S, consistency="strict", ambiguity_s=0.1) as pusher,
    ):
        await pusher.push("dev-0", status(1))
        await postgres_server.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
        await postgres_server.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
        )
        async with asyncio.timeout(PUT_ENDS_S):
            with pytest.raises(OutboxError, match="25006"):
                await spooler.put("dev-1", status(1))
        await postgres_server.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only")
        async with asyncio.timeout(2 * LEASE_S):
            for index in range(10):
                await spooler.put(f"dev-{index}", status(2))
            await sandbox.wait_for(lambda: all(pages(sandbox, f"dev-{index}") == 2 for index in range(10)))
        assert adds_up(await pusher.drain())


async def test_closing_ends_in_time_with_a_database_that_is_silent(
    sandbox: Sandbox, client: PrintOSClient, postgres_url: str
) -> None:
    async with proxied(postgres_url) as (proxy, url):
        tasks = asyncio.all_tasks()
        pusher = Workplace(client, url).pusher()
        await pusher.push("dev-0", status(1))
        await sandbox.block()
        await pusher.put("dev-1", status(1))
        proxy.stall()
        putting = asyncio.create_task(pusher.put("dev-2", status(1)))
        await proxy.held.wait()
        async with asyncio.timeout(8.0):  # far less than the lease, and than nothing at all
            await pusher.drain(timeout_s=0.1)
            await pusher.aclose()
        with pytest.raises(OutboxError):
            await putting
        assert adds_up(pusher.stats())
        await sandbox.release()
        proxy.flow()
        left = asyncio.all_tasks() - tasks
        assert not [task for task in left if not any(name in repr(task) for name in ("uvicorn", "Proxy"))]

"""How long draining takes: no longer than something can be sent, and as long as ``async with`` was told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from printos_async import ConfigurationError, HmacAuth, SqlOutbox
from tests.outbox.conftest import url_of

from .clock import fake_loop, run
from .host import SILENT, Host, Reply, Seen, client_of, client_over, status

if TYPE_CHECKING:
    from pathlib import Path

    from printos_async import Spooler
    from printos_async._transport import RawResponse


def test_draining_does_not_wait_for_an_interval_that_ends_too_late() -> None:
    async def program() -> None:
        host = Host(latency_s=1.0)
        async with client_of(host) as client:
            pusher = client.status_pusher(min_interval_s=60.0)
            await pusher.push("dev-1", status(1))
            await pusher.put("dev-1", status(2))
            await pusher.put("dev-2", status(1))
            started_s = fake_loop().time()
            stats = await pusher.drain(timeout_s=30.0)
            assert fake_loop().time() - started_s < 1.5  # dev-2 was sent
            assert (stats.sent, stats.pending) == (2, 1)
            stats = await pusher.drain(timeout_s=90.0)
            assert fake_loop().time() - started_s == pytest.approx(59.0, abs=2.0)
            assert (stats.sent, stats.pending) == (3, 0)
            await pusher.aclose()

    run(program())


def test_draining_waits_for_a_deadline_that_comes_before_the_interval_ends() -> None:
    async def program() -> None:
        async with client_of(Host()) as client:
            pusher = client.status_pusher(min_interval_s=60.0, deadline_s=10.0)
            await pusher.push("dev-1", status(1))
            await pusher.put("dev-1", status(2))
            assert (await pusher.drain(timeout_s=30.0)).failed == 1
            await pusher.aclose()

    run(program())


def test_draining_does_not_wait_for_a_hold_that_ends_too_late() -> None:
    async def program() -> None:
        host = Host(reply=lambda _: Reply(status=None))
        async with client_of(host) as client:
            pusher = client.status_pusher(consistency="strict", ambiguity_s=600.0)
            await pusher.put("dev-1", status(1))
            started_s = fake_loop().time()
            assert (await pusher.drain(timeout_s=30.0)).pending == 1
            assert fake_loop().time() - started_s < 1.0
            await pusher.aclose()

    run(program())


@pytest.mark.parametrize("drain_timeout_s", [2.0, 300.0, None])
def test_leaving_drains_for_as_long_as_was_said(drain_timeout_s: float | None) -> None:
    async def program() -> None:
        host = Host(latency_s=400.0 if drain_timeout_s is None else 1e6)
        async with client_of(host, timeout_s=1e7) as client:
            async with client.status_pusher(drain_timeout_s=drain_timeout_s) as pusher:
                await pusher.put("dev-1", status(1))
                started_s = fake_loop().time()
            assert fake_loop().time() - started_s == pytest.approx(drain_timeout_s or 400.0, abs=0.1)

    run(program())


@pytest.mark.parametrize("wrong", [-1, float("nan"), "30"])
def test_a_drain_timeout_has_to_be_a_number_of_seconds(wrong: object) -> None:
    async def program() -> None:
        async with client_of(Host(reply=lambda _: SILENT)) as client:
            with pytest.raises(ConfigurationError, match="drain_timeout_s"):
                client.status_pusher(drain_timeout_s=wrong)  # type: ignore[arg-type]

    run(program())


@pytest.fixture(params=["sqlite", "postgresql"])
def outbox_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request.param, request, tmp_path)


@pytest.fixture
def outbox(outbox_url: str) -> SqlOutbox:
    return SqlOutbox(outbox_url)


@pytest.mark.parametrize("keep", [False, True], ids=["free", "kept"])
async def test_draining_leaves_to_an_outbox_what_is_held_for_longer(outbox: SqlOutbox, keep: bool) -> None:  # noqa: FBT001
    async with client_over(Host(), auth=HmacAuth("k", "s")) as client:
        pusher = client.status_pusher(outbox=outbox, min_interval_s=600.0, skip_unchanged=keep)
        await pusher.push("dev-1", status(1))
        await pusher.put("dev-1", status(2))
        async with asyncio.timeout(10.0):
            stats = await pusher.drain(timeout_s=300.0)
        assert (stats.sent, stats.pending) == (1, 1)
        await pusher.aclose()
        await outbox.open(client.account)
        assert (await outbox.stats()).waiting == 1
        await outbox.aclose()


class BusyHost(Host):
    """Answers a request when something else has put a newer status of its device."""

    def __init__(self, spooler: Spooler) -> None:
        super().__init__()
        self.spooler = spooler

    async def _answer(self, loop: Any, seen: Seen, *details: Any) -> RawResponse:
        await self.spooler.put(seen.device_id, status(seen.pages + 1))
        return await super()._answer(loop, seen, *details)


async def test_draining_ends_although_others_put_more_than_is_sent(outbox_url: str) -> None:
    auth = HmacAuth("k", "s")
    host = Host()
    async with client_over(host, auth=auth) as other, other.spooler(SqlOutbox(outbox_url)) as spooler:
        async with (
            client_over(BusyHost(spooler), auth=auth) as client,
            client.status_pusher(outbox=SqlOutbox(outbox_url)) as pusher,
        ):
            for device in range(3):
                await pusher.put(f"dev-{device}", status(1))
            async with asyncio.timeout(20.0):
                assert (await pusher.drain()).pending == 0
                # The pusher is not closed yet: it has given the devices back, and another one sends what it has left.
                async with other.status_pusher(outbox=SqlOutbox(outbox_url)) as sending:
                    while sending.stats().sent < 3:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
        assert set(host.newest) == {f"dev-{device}" for device in range(3)}

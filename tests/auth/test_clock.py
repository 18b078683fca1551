"""A clock that is off: its offset is learned from one refusal, and said once."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from printos_async import (
    AccountHeld,
    AuthenticationError,
    ClockSkewDetected,
    DeviceCredentials,
    HmacAuth,
    PermissionDeniedError,
    RetryPolicy,
)
from tests.delivery.clock import run
from tests.transport.scripted import ScriptedServer

from .host import EPOCH_S, ON, Answer, CheckingHost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from printos_async import Event

HOUR_S, DAY_S = 3_600.0, 86_400.0
NO_RETRY = RetryPolicy(max_attempts=1)


class Clocks:
    """Two wall clocks over the event loop's: this machine's is off by ``off_s``."""

    def __init__(self, off_s: float) -> None:
        self.off_s = off_s
        self.server_off_s = 0.0

    def server(self) -> float:
        return EPOCH_S + asyncio.get_running_loop().time() + self.server_off_s

    def machine(self) -> float:
        return self.server() - self.server_off_s + self.off_s


class DelayingHost(CheckingHost):
    """Takes a while to hear and a while to be heard."""

    way_s = (0.0, 0.0)

    async def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        await asyncio.sleep(self.way_s[0])
        answer = await super().answer(method, target, headers, body)
        await asyncio.sleep(self.way_s[1])
        return answer


def setting(off_s: float, **settings: Any) -> tuple[Clocks, DelayingHost, HmacAuth]:
    clocks = Clocks(off_s)
    host = DelayingHost(keys={"site": "s"}, clock=clocks.server, **settings)
    return clocks, host, HmacAuth("site", "s", clock=clocks.machine)


def skews(events: list[Event]) -> list[tuple[str, int, bool]]:
    return [
        (event.account, round(event.ahead_s), event.is_corrected)
        for event in events
        if isinstance(event, ClockSkewDetected)
    ]


@pytest.mark.parametrize("off_s", [HOUR_S, -HOUR_S, 23.5 * HOUR_S])
@pytest.mark.parametrize("refusal", [401, 403])
def test_an_hour_off_costs_one_refusal(off_s: float, refusal: int, caplog: pytest.LogCaptureFixture) -> None:
    async def program() -> None:
        _, host, auth = setting(off_s, refusal=refusal)
        events: list[Event] = []
        async with host.client(auth, retry=NO_RETRY, hooks=[events.append]) as client:
            for _ in range(5):
                await client.update_device_status("dev-1", ON)
        assert (host.requests["dev-1"], host.applied["dev-1"]) == (6, 5)
        assert skews(events) == [("key site…", round(-off_s), True)]

    with caplog.at_level(logging.WARNING):
        run(program())
    assert len([record for record in caplog.records if "clock" in record.getMessage()]) == 1


def test_all_that_were_in_flight_are_signed_again() -> None:
    async def program() -> None:
        _, host, auth = setting(HOUR_S)
        host.way_s = (0.01, 0.01)
        events: list[Event] = []
        async with (
            host.client(auth, hooks=[events.append]) as client,
            client.status_pusher() as pusher,
        ):
            for n in range(40):
                await pusher.put(f"dev-{n}", ON)
            await pusher.drain(timeout_s=10.0)
        assert (host.requests.total(), host.applied.total()) == (80, 40)
        assert len(skews(events)) == 1
        assert [event for event in events if isinstance(event, AccountHeld)] == []

    run(program())


def test_a_date_that_a_cache_has_kept_says_nothing() -> None:
    async def program() -> None:
        _, host, auth = setting(HOUR_S, extra_headers={"age": "3600"})
        events: list[Event] = []
        async with host.client(auth, hooks=[events.append]) as client:
            with pytest.raises(AuthenticationError, match="clock"):
                await client.update_device_status("dev-1", ON)
        assert host.requests["dev-1"] == 1
        assert skews(events) == []

    run(program())


@pytest.mark.parametrize("body", [b"", b'{"smsError": {"message": "Unauthorized"}}'])
def test_without_a_date_the_error_names_the_clock(body: bytes) -> None:
    class Dateless(CheckingHost):
        async def answer(self, *_: Any) -> Answer:
            return Answer(401, body)

    async def program() -> None:
        async with Dateless().client(HmacAuth("site", "s")) as client:
            with pytest.raises(AuthenticationError, match="clock"):
                await client.update_device_status("dev-1", ON)

    run(program())


def test_a_right_clock_is_not_named_when_the_secret_is_wrong() -> None:
    async def program() -> None:
        _, host, _ = setting(0.0)
        events: list[Event] = []
        auth = HmacAuth("site", "wrong", clock=host.clock or float)
        async with host.client(auth, hooks=[events.append]) as client:
            with pytest.raises(AuthenticationError):
                await client.update_device_status("dev-1", ON)
        assert host.requests["dev-1"] == 1
        assert skews(events) == []

    run(program())


def test_more_than_a_day_off_is_only_said() -> None:
    async def program() -> None:
        clocks, host, auth = setting(-30 * DAY_S)
        events: list[Event] = []
        async with host.client(auth, hooks=[events.append]) as client:
            for _ in range(3):
                with pytest.raises(AuthenticationError):
                    await client.update_device_status("dev-1", ON)
            assert host.requests["dev-1"] == 3
            assert skews(events) == [("key site…", round(30 * DAY_S), False)]
            clocks.off_s = 0.0
            await client.update_device_status("dev-1", ON)
        assert len(skews(events)) == 1

    run(program())


def test_a_clock_that_is_mended_later_is_learned_again() -> None:
    async def program() -> None:
        clocks, host, auth = setting(-HOUR_S)
        events: list[Event] = []
        async with host.client(auth, retry=NO_RETRY, hooks=[events.append]) as client:
            await client.update_device_status("dev-1", ON)
            for off_s in (0.0, HOUR_S, 0.0):
                clocks.off_s = off_s
                await client.update_device_status("dev-1", ON)
                await client.update_device_status("dev-1", ON)
        assert host.applied["dev-1"] == 7
        assert host.requests["dev-1"] == 11
        assert [ahead_s for _, ahead_s, _ in skews(events)] == [3600, 0, -3600, 0]

    run(program())


@pytest.mark.parametrize("way_s", [(0.0, 8.0), (8.0, 0.0), (4.0, 4.0), (0.0, 0.0)])
def test_the_server_wrote_its_date_in_the_middle(way_s: tuple[float, float]) -> None:
    async def program() -> None:
        _, host, auth = setting(HOUR_S)
        host.way_s = way_s
        events: list[Event] = []
        async with host.client(auth, timeout_s=30.0, hooks=[events.append]) as client:
            await client.update_device_status("dev-1", ON)
        [event] = [event for event in events if isinstance(event, ClockSkewDetected)]
        # By no more than half of the way, and half of the second to which a Date is cut.
        assert abs(event.ahead_s + HOUR_S) <= sum(way_s) / 2 + 0.51

    run(program())


def test_a_server_whose_date_jumps_gets_one_more_request_for_each_call() -> None:
    async def program() -> None:
        clocks, host, auth = setting(0.0)
        host.keys.clear()  # whatever the clock, it refuses

        class Jumping(DelayingHost):
            async def answer(self, *args: Any) -> Answer:
                clocks.server_off_s += 1_000.0
                return await super().answer(*args)

        jumping = Jumping(clock=clocks.server)
        async with jumping.client(auth) as client:
            for _ in range(20):
                with pytest.raises(AuthenticationError):
                    await client.update_device_status("dev-1", ON)
        assert jumping.requests["dev-1"] == 40

    run(program())


def test_a_403_that_stays_is_a_403() -> None:
    async def program() -> None:
        _, host, auth = setting(HOUR_S, refusal=403)
        host.keys["site"] = "another"
        async with host.client(auth) as client:
            for _ in range(3):
                with pytest.raises(PermissionDeniedError):
                    await client.update_device_status("dev-1", ON)
        assert host.requests["dev-1"] == 4  # with the right time it is no matter of the clock any more

    run(program())


def test_each_account_learns_for_itself() -> None:
    async def program() -> None:
        clocks = Clocks(HOUR_S)
        host = CheckingHost(keys={"a": "s", "b": "s"}, clock=clocks.server)
        auths = {
            "dev-a": HmacAuth("a", "s", clock=clocks.machine),
            "dev-b": HmacAuth("b", "s", clock=clocks.server),
        }
        events: list[Event] = []
        async with host.client(DeviceCredentials(auths), retry=NO_RETRY, hooks=[events.append]) as client:
            for _ in range(2):
                report = await client.push_statuses({"dev-a": ON, "dev-b": ON})
                assert report.sent == 2
        assert host.requests == {"dev-a": 3, "dev-b": 2}
        assert skews(events) == [("device dev-a", -3600, True)]

    run(program())


@pytest.mark.parametrize("kind", ["bytes", "stream"])
async def test_another_httpx_client_learns_the_clock(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    clocks = Clocks(HOUR_S)
    host = CheckingHost(keys={"site": "s"}, clock=clocks.server)

    async def stream() -> AsyncIterator[bytes]:
        yield b"{}"

    auth = HmacAuth("site", "s", clock=clocks.machine)
    seen: list[int] = []
    async with ScriptedServer(host.handle) as server, httpx.AsyncClient(auth=auth) as http:
        for _ in range(3):
            content, headers = (b"{}", {}) if kind == "bytes" else (stream(), {"content-length": "2"})
            url = f"{server.origin}/devices/dev-1/status"
            seen.append((await http.put(url, content=content, headers=headers)).status_code)
    # A stream cannot be sent again, but the next request is signed with the right time.
    assert seen == ([401, 200, 200] if kind == "stream" else [200, 200, 200])
    assert len([record for record in caplog.records if "clock" in record.getMessage()]) == 1


def test_another_synchronous_httpx_client_learns_the_clock() -> None:
    times: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        times.append(request.headers["x-hp-hmac-date"])
        status = 200 if times[-1].startswith("2024-01-15T13:3") else 401
        return httpx.Response(status, headers={"date": "Mon, 15 Jan 2024 13:34:56 GMT"})

    auth = HmacAuth("site", "s", clock=lambda: EPOCH_S)  # 12:34:56
    with httpx.Client(transport=httpx.MockTransport(handle), auth=auth) as http:
        assert http.get("https://printos.test/devices").status_code == 200
    assert len(times) == 2

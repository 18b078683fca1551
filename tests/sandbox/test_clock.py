"""The server's clock, and the ``Date`` of its answers."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest

from printos_async.sandbox import Sandbox

from .conftest import connected

NOW_S = 1_700_000_000.0
NOW = "Tue, 14 Nov 2023 22:13:20 GMT"


def signed_at(now_s: float) -> dict[str, str]:
    date = datetime.fromtimestamp(now_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    signature = hmac.new(b"secret", f"GET /devices{date}".encode(), hashlib.sha256).hexdigest()
    return {
        "x-hp-hmac-authentication": f"key:{signature}",
        "x-hp-hmac-date": date,
        "x-hp-hmac-algorithm": "SHA256",
    }


async def test_every_answer_has_the_date_of_the_servers_clock_once() -> None:
    async with Sandbox(clock=lambda: NOW_S) as sandbox, connected(sandbox) as client:
        sandbox.inject("server_error")
        answers = [await client.get("/devices"), await client.get("/devices"), await client.get("/nowhere")]

    assert [answer.status_code for answer in answers] == [503, 200, 404]
    assert [answer.headers.get_list("date") for answer in answers] == [[NOW]] * 3


async def test_answer_that_is_cut_off_has_a_date_too() -> None:
    async with Sandbox(clock=lambda: NOW_S) as sandbox:
        sandbox.inject("truncated")
        reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
        writer.write(b"GET /devices HTTP/1.1\r\nhost: sandbox\r\n\r\n")
        answer = await reader.read()
        writer.close()

    assert f"\r\ndate: {NOW}\r\n".encode() in answer


async def test_date_is_the_real_time_by_default() -> None:
    async with Sandbox() as sandbox, connected(sandbox) as client:
        before_s = int(time.time())
        date = (await client.get("/devices")).headers["date"]

    assert before_s <= parsedate_to_datetime(date).timestamp() <= time.time()


@pytest.mark.parametrize("offset_s", [3600.0, -3600.0])
async def test_clock_that_is_off_refuses_signatures_of_the_right_time(offset_s: float) -> None:
    sandbox = Sandbox(hmac_keys={"key": "secret"}, clock=lambda: NOW_S, clock_offset_s=offset_s)
    async with sandbox, connected(sandbox) as client:
        refused = await client.get("/devices", headers=signed_at(NOW_S))
        server_s = parsedate_to_datetime(refused.headers["date"]).timestamp()
        accepted = await client.get("/devices", headers=signed_at(server_s))

    assert (refused.status_code, accepted.status_code) == (401, 200)
    assert (server_s, sandbox.refusals) == (NOW_S + offset_s, {"clock_skew": 1})


async def test_clock_is_set_while_it_runs() -> None:
    sandbox = Sandbox(hmac_keys={"key": "secret"}, clock=lambda: NOW_S)
    async with sandbox, connected(sandbox) as client:
        statuses, dates = [], []
        for sandbox.clock_offset_s in (0, 3600, 0):
            answer = await client.get("/devices", headers=signed_at(NOW_S))
            statuses.append(answer.status_code)
            dates.append(parsedate_to_datetime(answer.headers["date"]).timestamp() - NOW_S)

    assert (statuses, dates) == ([200, 401, 200], [0, 3600, 0])


async def test_date_can_be_left_out() -> None:
    async with Sandbox(date_header=False) as sandbox, connected(sandbox) as client:
        without = await client.get("/devices")
        sandbox.date_header = True
        with_date = await client.get("/devices")

    assert ("date" in without.headers, "date" in with_date.headers) == (False, True)


async def test_clock_that_jumps_leaves_tokens_as_they_are() -> None:
    sandbox = Sandbox(logins={"shop": "pass"}, token_lifetime_s=60)
    async with sandbox, connected(sandbox) as client:
        credentials = {"login": "shop", "password": "pass"}
        answer = await client.post("/api/aaa/v1/devices/login", json=credentials)
        sandbox.clock_offset_s = 3600
        token = {"Indigo-SmS-Auth-Token": answer.json()["authToken"]}
        assert (await client.get("/devices", headers=token)).status_code == 200

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import httpx
import pytest

from printos_async.cli.terminal.signals import StopSignals

if TYPE_CHECKING:
    from printos_async.sandbox import Sandbox

    from .conftest import Cli

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


def line(device_id: str, pages_total: int) -> bytes:
    record = {"deviceId": device_id, "status": "DS_ON", "metrics": {"pagesTotal": pages_total}}
    return json.dumps(record).encode() + b"\n"


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::", 0))
        except OSError:
            return False
    return True


async def test_the_first_signal_is_named_and_shown() -> None:
    signals = StopSignals()
    assert (signals.stopped_by, signals.progress_suffix) == (None, "")
    signals.received = signal.SIGTERM
    assert (signals.stopped_by, signals.progress_suffix) == ("SIGTERM", " · stopping")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_ends_reading_and_what_is_in_flight_arrives(
    cli: Cli, sandbox: Sandbox, number: signal.Signals, code: int
) -> None:
    await sandbox.block()
    process = await cli.start("push", "-", "--json")
    await process.write(line("dev-1", 1) + line("dev-2", 2))
    await sandbox.wait_for(lambda: sandbox.in_flight == 2)
    process.send_signal(number)
    await sandbox.release()
    ended = await process.wait_without_closing_input()
    assert ended.code == code
    assert (ended.json["sent"], ended.json["unsent"], ended.json["stoppedBy"]) == (2, 0, number.name)
    assert "stopped by" in ended.err
    assert sandbox.applied_count == 2


async def test_a_second_signal_gives_up_and_keeps_what_was_not_sent(cli: Cli, sandbox: Sandbox) -> None:
    await sandbox.block()
    failures = cli.folder / "failures.jsonl"
    process = await cli.start("push", "-", "--json", "--failures", failures, "--max-in-flight", "1")
    await process.write(line("dev-1", 1))
    await sandbox.wait_for(lambda: sandbox.in_flight == 1)
    await process.write(line("dev-2", 2) + line("dev-1", 3))
    # The third line is taken after the second, and a bad line shows that both were.
    await process.write(b"bad\n")
    assert "line 4" in await process.complaint()
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    ended = await process.wait_without_closing_input()
    assert ended.code in {130, 143}  # whichever of the two signals the system delivered first
    assert (ended.json["sent"], ended.json["unsent"]) == (0, 3)
    assert f"printos: 3 statuses not sent; printos push {failures} sends again what it keeps" in ended.err
    kept = [json.loads(text) for text in failures.read_text().splitlines() if text.strip()]
    assert {item["deviceId"]: item["metrics"]["pagesTotal"] for item in kept} == {"dev-1": 3, "dev-2": 2}
    await sandbox.release()


async def test_the_sandbox_runs_until_it_is_told_to_stop(cli: Cli) -> None:
    process = await cli.start(
        "sandbox", "--port", "0", "--key", "k 1", "--secret-env", "MINE", MINE="very-secret"
    )
    first = await process.read_line()
    process.send_signal(signal.SIGTERM)
    ended = await process.wait()
    assert first.startswith("PrintOS sandbox at http://127.0.0.1:")
    assert ended.code == 0
    assert first.endswith("In another terminal set PRINTOS_SECRET to the value that MINE has here, then:\n")
    assert "export PRINTOS_KEY='k 1'\n  printos " in ended.out
    assert "very-secret" not in first + ended.out + ended.err


async def test_the_sandbox_requires_the_credentials_of_a_file_each_for_its_device(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def file(name: str, first: str, second: str) -> str:
        lines = [
            {"deviceId": "dev-1", "login": first, "password": f"s3cret-{first}"},
            {"deviceId": "dev-2", "login": second, "password": f"s3cret-{second}"},
            {"deviceId": "*", "key": "site", "secret": "s3cret-site"},
        ]
        path = cli.file(name, "".join(json.dumps(line) + "\n" for line in lines))
        path.chmod(0o600)
        return str(path)

    right, swapped = file("right", "login-1", "login-2"), file("swapped", "login-2", "login-1")
    server = await cli.start("sandbox", "--port", "0", "--credentials", right)
    url = (await server.read_line()).removeprefix("PrintOS sandbox at ").partition(";")[0]
    statuses = cli.file(
        "statuses.jsonl", "".join(f'{{"deviceId":"dev-{n}","status":"DS_ON"}}\n' for n in (1, 2))
    )
    pushed = await cli.run("push", statuses, "--base-url", url, "--credentials", right, "--json")
    listed = await cli.run("devices", "list", "--base-url", url, "--credentials", right, "--json")
    refused = await cli.run("push", statuses, "--base-url", url, "--credentials", swapped, "--json")
    server.send_signal(signal.SIGTERM)
    ended = await server.wait()

    assert (pushed.code, pushed.json["sent"], listed.code) == (0, 2, 0)
    assert (refused.code, refused.json["sent"], refused.json["failed"]) == (1, 0, 2)
    assert "403" in refused.err
    assert (ended.code, f"export PRINTOS_CREDENTIALS={right}" in ended.out) == (0, True)
    assert "s3cret" not in ended.out + ended.err


@pytest.mark.parametrize(
    "content",
    [None, "s3cret", "deviceId,key,secret\ndev-1,k,s3cret-1\ndev-2,k,s3cret-2\n"],
    ids=["missing", "nonsense", "two_secrets"],
)
async def test_the_sandbox_refuses_credentials_that_it_cannot_use(cli: Cli, content: str | None) -> None:
    path = "missing" if content is None else cli.file("credentials", content)
    ended = await cli.run("sandbox", "--port", "0", "--credentials", path)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("printos: cannot ")
    assert "s3cret" not in ended.err


async def test_the_sandboxs_clock_may_be_off_and_its_tokens_end(cli: Cli) -> None:
    options = ("--clock-offset", "3600", "--login", "me", "--token-lifetime", "0.001")
    server = await cli.start("sandbox", "--port", "0", "--json", *options, PRINTOS_PASSWORD="pass")
    url = json.loads(await server.read_line())["url"]
    login = {"login": "me", "password": "pass"}
    async with httpx.AsyncClient(base_url=url) as client:
        token = (await client.post("/api/aaa/v1/devices/login", json=login)).json()["authToken"]
        while (
            answer := await client.get("/devices", headers={"Indigo-SmS-Auth-Token": token})
        ).is_success:  # for a millisecond
            pass
    server.send_signal(signal.SIGTERM)

    assert (await server.wait()).code == 0
    assert (answer.status_code, "expired" in answer.text) == (401, True)
    assert parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time() > 3000


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_a_sandbox_at_every_address_is_reached_over_loopback(
    cli: Cli, sandbox: Sandbox, host: str
) -> None:
    if host == "::" and not has_ipv6():
        pytest.skip("no IPv6")
    process = await cli.start("sandbox", "--port", "0", "--host", host)
    lines = [await process.read_line() for _ in range(3)]
    url = lines[-1].strip().removeprefix("export PRINTOS_BASE_URL=")
    listed = await cli.run("devices", "list", "--base-url", url)
    process.send_signal(signal.SIGTERM)
    await process.wait()
    assert url.startswith("http://127.0.0.1:")
    assert (listed.code, listed.err) == (0, "")


@pytest.mark.parametrize(("host", "count"), [("0.0.0.0", 1), ("127.0.0.1", 0), ("localhost", 0)])
async def test_a_sandbox_that_other_machines_reach_is_warned_of(cli: Cli, host: str, count: int) -> None:
    process = await cli.start("sandbox", "--port", "0", "--host", host, "--json")
    url = json.loads(await process.read_line())["url"]
    process.send_signal(signal.SIGTERM)
    ended = await process.wait()
    *warnings, stopped = ended.err.splitlines()
    assert (ended.code, len(warnings)) == (0, count)
    assert "stopped after" in stopped
    for warning in warnings:
        assert warning.startswith(
            f"printos: warning: {url} can be reached from other machines, without encryption"
        )


async def test_a_client_can_be_pointed_at_the_sandbox_that_was_started(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await cli.start("sandbox", "--port", "0", "--key", "k", "--json", PRINTOS_SECRET="very-secret")
    url = json.loads(await server.read_line())["url"]
    monkeypatch.setenv("PRINTOS_SECRET", "very-secret")
    ended = await cli.run("devices", "provision", "--model", "M", "--base-url", url, "--key", "k")
    assert (ended.code, ended.err) == (0, "")
    monkeypatch.setenv("PRINTOS_SECRET", "another")
    refused = await cli.run("devices", "list", "--base-url", url, "--key", "k")
    assert refused.code == 1
    assert "401" in refused.err
    server.send_signal(signal.SIGINT)
    assert (await server.wait()).code == 0

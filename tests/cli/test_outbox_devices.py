"""``printos outbox devices``, and how it forgets devices that are gone."""

from __future__ import annotations

import json
import shlex
import signal
from typing import TYPE_CHECKING, Any

import pytest

from printos_async import HmacAuth, PrintOSClient
from printos_async.outbox import Draft, Finish, SqlOutbox

from .conftest import KEY, SECRET

if TYPE_CHECKING:
    from printos_async.sandbox import Sandbox

    from .conftest import Cli


@pytest.fixture
def url(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"sqlite+aiosqlite:///{cli.folder / 'spool.db'}"
    monkeypatch.setenv("PRINTOS_OUTBOX", url)
    return url


async def complete(url: str, sandbox: Sandbox, *finished: Finish) -> None:
    """Put a status of each device, and complete it."""
    outbox = SqlOutbox(url)
    try:
        async with PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET)) as client:
            await outbox.open(client.account)
        owner = await outbox.join()
        await outbox.put([Draft(one.device_id, b'{"status":"DS_ON"}') for one in finished], owner=owner)
        await outbox.finish(owner, finished)
        await outbox.leave(owner)
    finally:
        await outbox.aclose()


def known(device: dict[str, Any]) -> list[str]:
    """Return which ages of a device are known."""
    return [name for name in ("deliveredAgeS", "waitingS", "failedAgeS") if device[name] is not None]


async def test_what_a_worker_has_delivered_is_reported_and_forgotten(
    cli: Cli, sandbox: Sandbox, url: str
) -> None:
    lines = "".join(json.dumps({"deviceId": f"dev-{n}", "status": "DS_ON"}) + "\n" for n in (1, 2, 9))
    await cli.run("push", cli.file("s.jsonl", lines), "--spool")
    worker = await cli.start("worker", "--json")
    await sandbox.wait_for(lambda: sandbox.request_count == 3)
    worker.send_signal(signal.SIGTERM)
    ended = await worker.wait()
    assert (ended.json["sent"], ended.json["failed"]) == (2, 1)
    await cli.run("push", cli.file("s.jsonl", lines.replace("dev-2", "dev-3")), "--spool")

    ended = await (await cli.start("outbox", "devices", "--json")).wait()
    assert (ended.code, ended.err, ended.json["nextAfter"]) == (0, "", None)
    assert {device["deviceId"]: known(device) for device in ended.json["devices"]} == {
        "dev-1": ["deliveredAgeS", "waitingS"],
        "dev-2": ["deliveredAgeS"],
        "dev-3": ["waitingS"],
        "dev-9": ["waitingS", "failedAgeS"],
    }
    errors = {device["deviceId"]: device["error"] for device in ended.json["devices"]}
    assert "404" in errors.pop("dev-9")
    assert set(errors.values()) == {None}

    silent = await cli.run("outbox", "devices", "--silent-for", 3600, "--json")
    assert [device["deviceId"] for device in silent.json["devices"]] == ["dev-9"]
    assert (await cli.run("outbox", "purge", "--devices", "--older-than", 3600)).out == "0 purged\n"
    assert (await cli.run("outbox", "purge", "--devices", "--json")).json == {"purged": 1}
    left = await cli.run("outbox", "devices", "--json")
    assert [device["deviceId"] for device in left.json["devices"]] == ["dev-1", "dev-3", "dev-9"]


async def test_the_table_comes_page_by_page(cli: Cli, sandbox: Sandbox, url: str) -> None:
    await complete(url, sandbox, Finish("dev-1", 1), Finish("dev-2", 1, error="422"), Finish("dev-3", 1))
    ended = await cli.run("outbox", "devices", "--limit", 2)
    header, first, second = [row.split("\t") for row in ended.out.splitlines()]
    assert header == ["device", "delivered s ago", "waiting for s", "failed s ago", "error"]
    assert (first[0], first[1].isdigit(), first[2:]) == ("dev-1", True, ["", "", ""])
    assert (second[:3], second[3].isdigit(), second[4]) == (["dev-2", "never", ""], True, "422")
    assert ended.err == "printos: there may be more; continue with --after dev-2\n"
    ended = await cli.run("outbox", "devices", "--limit", 2, "--after", "dev-2")
    assert [row.split("\t")[0] for row in ended.out.splitlines()] == ["device", "dev-3"]
    assert ended.err == ""


async def test_the_next_page_can_be_asked_for_as_it_is_written(cli: Cli, sandbox: Sandbox, url: str) -> None:
    names = ["it's", "press 7; rm *"]
    await complete(url, sandbox, *(Finish(name, 1, error="422") for name in names))
    for command in ("devices", "failed"):
        ended = await cli.run("outbox", command, "--limit", 1)
        *_, option, after = shlex.split(ended.err.partition("; ")[2])
        assert (option, after) == ("--after", names[0])
        ended = await cli.run("outbox", command, option, after, "--json")
        assert [device["deviceId"] for device in ended.json[command]] == names[1:]


@pytest.mark.parametrize(
    "options",
    [
        ("devices", "--silent-for", "-1"),
        ("devices", "--silent-for", "nan"),
        ("purge", "--failed", "--devices"),
        ("devices", "--limit", "0"),
        ("devices", "--limit", "99999999999999999999"),
        ("failed", "--limit", "1000001"),
        ("devices", "--after", "\udcff"),  # as Python has a byte that is not UTF-8
        ("failed", "--after", "\udcff"),
    ],
)
async def test_options_that_make_no_sense_are_refused(
    cli: Cli, sandbox: Sandbox, url: str, options: tuple[str, ...]
) -> None:
    ended = await cli.run("outbox", *options)
    assert (ended.code, ended.out) == (2, "")
    assert options[1] in ended.err

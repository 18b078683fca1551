"""``printos outbox accounts`` and ``adopt``, and the name of an account."""

from __future__ import annotations

import json
import os
import pty
import sys
from typing import TYPE_CHECKING

import pytest

from printos_async import HmacAuth, PrintOSClient, SqlOutbox

from .conftest import KEY, SECRET

if TYPE_CHECKING:
    from printos_async.sandbox import Sandbox

    from .conftest import Cli, Ended

OLD_KEY, OLD_SECRET = "oldkey", "old-secret-5f1e"
DEVICES = [f"dev-{number}" for number in (1, 2, 3)]


@pytest.fixture
def url(cli: Cli) -> str:
    return f"sqlite+aiosqlite:///{cli.folder / 'spool.db'}"


async def spool_as_old(cli: Cli, url: str, monkeypatch: pytest.MonkeyPatch, *options: object) -> None:
    """Put a status of each device with the key that is about to be replaced."""
    lines = "".join(json.dumps({"deviceId": device, "status": "DS_ON"}) + "\n" for device in DEVICES)
    with monkeypatch.context() as old:
        old.setenv("PRINTOS_KEY", OLD_KEY)
        old.setenv("PRINTOS_SECRET", OLD_SECRET)
        ended = await cli.run("push", cli.file("s.jsonl", lines), "--outbox", url, *options)
    assert (ended.code, ended.err) == (0, "")


async def run_outbox(cli: Cli, url: str, *args: object) -> Ended:
    return await cli.run("outbox", *args, "--outbox", url)


async def test_accounts_are_listed(
    cli: Cli, sandbox: Sandbox, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await spool_as_old(cli, url, monkeypatch)
    ended = await run_outbox(cli, url, "accounts", "--json", "--account", "site-7")
    assert (ended.code, ended.err) == (0, "")
    host = f"127.0.0.1:{sandbox.port}"
    old, own = ended.json["accounts"]
    assert len(old.pop("account")) == len(own.pop("account")) == 32
    assert old == {
        "label": f"{host} key oldk…",
        "host": host,
        "waiting": 3,
        "failed": 0,
        "workers": 0,
        "isOwn": False,
    }
    assert own == {"label": "site-7", "host": host, "waiting": 0, "failed": 0, "workers": 0, "isOwn": True}
    table = await run_outbox(cli, url, "accounts", "--account", "site-7")
    header, *rows = [row.split("\t") for row in table.out.splitlines()]
    assert header == ["", "account", "label", "host", "waiting", "failed", "workers"]
    assert [row[:1] + row[2:] for row in rows] == [
        ["", f"{host} key oldk…", host, "3", "0", "0"],
        ["*", "site-7", host, "0", "0", "0"],
    ]
    for text in (ended.out, table.out):
        assert not any(secret in text for secret in (OLD_KEY, OLD_SECRET, KEY, SECRET))


async def test_a_warning_leads_to_the_accounts_and_what_waits_is_adopted(
    cli: Cli, sandbox: Sandbox, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await spool_as_old(cli, url, monkeypatch)
    warning = "printos: 3 devices wait under another account of this host; see `printos outbox accounts`\n"
    assert (await run_outbox(cli, url, "stats")).err == warning
    spooled = await cli.run("push", cli.file("none.jsonl", ""), "--outbox", url)
    assert spooled.err.count("3 devices wait under another account of this host") == 1
    adopted = await run_outbox(cli, url, "adopt", f"127.0.0.1:{sandbox.port} key oldk…", "--yes")
    assert (adopted.code, adopted.out, adopted.err) == (0, "3 adopted\n", "")
    again = await run_outbox(cli, url, "adopt", f"127.0.0.1:{sandbox.port} key oldk…", "--yes", "--json")
    assert again.json == {"adopted": 0}
    stats = await run_outbox(cli, url, "stats", "--json")
    assert (stats.json["waiting"], stats.err) == (3, "")


@pytest.mark.parametrize("account", ["site-7", None], ids=["named", "unnamed"])
async def test_a_worker_delivers_what_waits_after_a_key_was_rotated(
    cli: Cli, sandbox: Sandbox, url: str, monkeypatch: pytest.MonkeyPatch, account: str | None
) -> None:
    if account is not None:
        monkeypatch.setenv("PRINTOS_ACCOUNT", account)
    await spool_as_old(cli, url, monkeypatch)
    worker = await cli.start("worker", "--outbox", url, "--json")
    if account is None:
        assert "3 devices wait under another account of this host" in await worker.complaint()
        accounts = (await run_outbox(cli, url, "accounts", "--json")).json["accounts"]
        [old] = [each["account"] for each in accounts if not each["isOwn"]]
        assert (await run_outbox(cli, url, "adopt", old[:8], "--yes")).code == 0
    await sandbox.wait_for(lambda: sandbox.applied_count == 3, timeout_s=20.0)
    worker.process.terminate()
    ended = await worker.wait_without_closing_input()
    assert (ended.code, ended.json["sent"], ended.json["failed"], ended.err) == (0, 3, 0, "")


async def test_an_account_with_running_workers_is_not_adopted(
    cli: Cli, sandbox: Sandbox, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await spool_as_old(cli, url, monkeypatch)
    outbox = SqlOutbox(url)
    try:
        await outbox.open(PrintOSClient(sandbox.url, auth=HmacAuth(OLD_KEY, OLD_SECRET)).account)
        await outbox.join()
        refused = await run_outbox(cli, url, "adopt", f"127.0.0.1:{sandbox.port} key oldk…", "--yes")
    finally:
        await outbox.aclose()
    assert (refused.code, refused.out) == (1, "")
    assert "1 worker of the other account runs: stop it first" in refused.err


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("nobody", "--yes"), "no account 'nobody'"),
        (("site-7", "--yes", "--account", "site-7"), "is the account for which the outbox is open"),
        (("site-7", "--account", "site 8\n"), "account must be printable"),
    ],
    ids=["unknown", "own", "unprintable"],
)
async def test_an_account_that_cannot_be_adopted_is_one_line(
    cli: Cli, sandbox: Sandbox, url: str, args: tuple[str, ...], complaint: str
) -> None:
    assert (await cli.run("push", cli.file("s.jsonl", ""), "--outbox", url)).code == 0
    ended = await run_outbox(cli, url, "adopt", *args)
    assert (ended.code, ended.out) == (2, "")
    assert complaint in ended.err
    assert len(ended.err.splitlines()) == 1


async def test_without_a_terminal_the_answer_has_to_be_an_option(
    cli: Cli, sandbox: Sandbox, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await spool_as_old(cli, url, monkeypatch)
    process = await cli.start("outbox", "adopt", f"127.0.0.1:{sandbox.port} key oldk…", "--outbox", url)
    ended = await process.wait(b"y\n")
    assert (ended.code, ended.out) == (2, "")
    assert "add --yes" in ended.err


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
@pytest.mark.parametrize("answer", ["n", "y"])
async def test_on_a_terminal_the_command_asks(
    cli: Cli, sandbox: Sandbox, url: str, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    await spool_as_old(cli, url, monkeypatch)
    controller, terminal = pty.openpty()
    try:
        with os.fdopen(terminal) as stdin, monkeypatch.context() as on_terminal:
            on_terminal.setattr(sys, "stdin", stdin)
            os.write(controller, f"{answer}\n".encode())
            ended = await run_outbox(cli, url, "adopt", f"127.0.0.1:{sandbox.port} key oldk…")
    finally:
        os.close(controller)
    assert ended.code == (0 if answer == "y" else 1)
    assert f"Hand 3 waiting and 0 failed of 127.0.0.1:{sandbox.port} key oldk… (" in ended.err
    assert (await run_outbox(cli, url, "stats", "--json")).json["waiting"] == (3 if answer == "y" else 0)

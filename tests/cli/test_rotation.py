"""Credentials that are refused, and mended while the command runs."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from printos_async import AccountHeld, AccountResumed
from printos_async.cli.terminal.outages import OutageLines
from printos_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .conftest import Cli

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and rights")

SECRETS = {f"key-{number}": f"canary-secret-{number}" for number in (1, 2, 3)}
LOGINS = {"login-4": "canary-password-4"}
WRONG = "canary-wrong"


def line(device_id: str, pages_total: int = 1) -> bytes:
    record = {"deviceId": device_id, "status": "DS_ON", "metrics": {"pagesTotal": pages_total}}
    return json.dumps(record).encode() + b"\n"


def credentials(*wrong: str) -> str:
    """Return the lines of a credentials file, with a wrong secret for some devices."""
    lines = [
        {
            "deviceId": f"dev-{name[-1]}",
            "key": name,
            "secret": WRONG if f"dev-{name[-1]}" in wrong else secret,
        }
        for name, secret in SECRETS.items()
    ]
    lines += [
        {"deviceId": "dev-4", "login": name, "password": WRONG if "dev-4" in wrong else password}
        for name, password in LOGINS.items()
    ]
    return "".join(json.dumps(each) + "\n" for each in lines)


def private(cli: Cli, name: str, content: str) -> Path:
    file = cli.file(name, content)
    file.chmod(0o600)
    return file


def replace(file: Path, content: str) -> None:
    fresh = file.with_suffix(".new")
    fresh.write_text(content)
    fresh.chmod(0o600)
    fresh.replace(file)


def pages(sandbox: Sandbox) -> list[int | None]:
    statuses = [sandbox.devices[f"dev-{number}"].status for number in (1, 2, 3, 4)]
    return [None if status is None else status["metrics"]["pagesTotal"] for status in statuses]


def refusals(sandbox: Sandbox) -> int:
    return sandbox.request_counts["PUT", "/devices/{deviceId}/status", 401]


def has_no_secret(*texts: str) -> bool:
    return not any("canary" in text for text in texts)


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sandbox]:
    """A server with four devices, each of which has credentials of its own."""
    async with Sandbox(hmac_keys=SECRETS, logins=LOGINS) as sandbox:
        for number in (1, 2, 3, 4):
            sandbox.add_device(f"dev-{number}")
        monkeypatch.setenv("PRINTOS_BASE_URL", sandbox.url)
        yield sandbox


async def test_a_bulk_push_signs_each_status_with_its_devices_credentials(cli: Cli, site: Sandbox) -> None:
    file = private(cli, "credentials", credentials("dev-3"))
    statuses = cli.file("s.jsonl", b"".join(line(f"dev-{number}", number) for number in range(1, 6)))
    ended = await cli.run("push", statuses, "--credentials", file, "--json")
    assert (ended.code, ended.json["sent"], ended.json["heldAccounts"]) == (1, 3, 0)
    assert ended.json["errors"] == {"AuthenticationError": 1, "MissingCredentialsError": 1}
    assert (
        "dev-5: PUT /devices/dev-5/status: there are no credentials for this device, and no default"
        in ended.err
    )
    assert pages(site) == [1, 2, None, 4]
    assert site.logins_count == 1
    assert has_no_secret(ended.out, ended.err)


async def test_a_mended_credentials_file_is_read_at_the_next_probe(cli: Cli, site: Sandbox) -> None:
    file = private(cli, "credentials", credentials("dev-2", "dev-4"))
    process = await cli.start("push", "--follow", "-", "--json", "--credentials", file)
    await process.write(b"".join(line(f"dev-{number}", 1) for number in (1, 2, 3, 4)))
    said = await process.complaint("held: ")
    assert "(401 AuthenticationError), and 1 more; their statuses wait" in said
    await site.wait_for(lambda: pages(site) == [1, None, 1, None])
    await process.write(line("dev-2", 2) + line("dev-4", 2))
    replace(file, credentials())
    await site.wait_for(lambda: pages(site) == [1, 2, 1, 2])
    ended = await process.wait(b"")
    assert (ended.code, ended.json["failed"], ended.json["heldAccounts"]) == (0, 0, 0)
    assert (ended.json["sent"], ended.json["superseded"]) == (4, 2)
    assert "resumed: device dev-" in ended.err
    assert len([write for write in site.applied if write.device_id in {"dev-2", "dev-4"}]) == 2
    assert has_no_secret(ended.out, ended.err, *process.complaints)


async def test_sighup_reads_the_credentials_at_once(cli: Cli, site: Sandbox) -> None:
    file = private(cli, "credentials", credentials("dev-2"))
    process = await cli.start("push", "--follow", "-", "--json", "--credentials", file)
    await process.write(line("dev-2", 1))
    said = await process.complaint("held: ")
    assert "held: device dev-2 (401 AuthenticationError); its statuses wait" in said
    before = refusals(site)
    file.write_text(credentials())  # in place
    process.send_signal(signal.SIGHUP)
    await process.complaint("SIGHUP: the credentials are read again")
    await site.wait_for(lambda: pages(site)[1] == 1)
    ended = await process.wait(b"")
    assert (ended.code, ended.json["sent"], ended.json["failed"]) == (0, 1, 0)
    assert refusals(site) <= before + 1  # a probe may have been on its way
    assert has_no_secret(ended.out, ended.err, *process.complaints)


@pytest.mark.parametrize(
    ("options", "right"),
    [
        (("--key", "key-1", "--secret-file"), SECRETS["key-1"]),
        (("--login", "login-4", "--password-file"), LOGINS["login-4"]),
    ],
    ids=["secret", "password"],
)
async def test_a_worker_takes_a_mended_secret_without_a_restart(
    cli: Cli, site: Sandbox, options: tuple[str, ...], right: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRINTOS_OUTBOX", f"sqlite+aiosqlite:///{cli.folder / 'spool.db'}")
    file = private(cli, "secret", WRONG + "\n")
    put = await cli.run("push", cli.file("s.jsonl", line("dev-1") + line("dev-2")), "--spool", *options, file)
    assert put.code == 0
    process = await cli.start("worker", "--json", "--state-every", "0.1", *options, file)
    assert "(401 AuthenticationError); its statuses wait" in await process.complaint("held: ")
    assert "1 account held" in await process.complaint(" pending")
    replace(file, right + "\n")
    process.send_signal(signal.SIGHUP)
    await site.wait_for(lambda: pages(site)[:2] == [1, 1])
    await process.complaint("resumed: ")
    process.send_signal(signal.SIGTERM)
    ended = await process.wait()
    assert (ended.code, ended.json["sent"], ended.json["failed"], ended.json["heldAccounts"]) == (0, 2, 0, 0)
    assert has_no_secret(ended.out, ended.err, *process.complaints)


async def test_what_waits_for_a_held_account_is_said_at_the_end(
    cli: Cli, site: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRINTOS_OUTBOX", f"sqlite+aiosqlite:///{cli.folder / 'spool.db'}")
    file = private(cli, "secret", WRONG)
    options = ("--key", "key-1", "--secret-file", file)
    await cli.run("push", cli.file("s.jsonl", line("dev-1")), "--spool", *options)
    process = await cli.start("worker", "--json", "--drain-timeout", "0.1", *options)
    await process.complaint("held: key key-…")
    process.send_signal(signal.SIGTERM)
    ended = await process.wait()
    assert ended.code == 1
    assert (ended.json["failed"], ended.json["unfinished"], ended.json["heldAccounts"]) == (0, 1, 1)
    assert (
        "1 account is held: its requests do not get through; correct the cause (see the message 'held:', and "
        "printos check), and what waits is sent once a request gets through\n"
    ) in ended.err


async def test_the_end_of_a_pipe_waits_for_held_accounts_as_long_as_it_may(cli: Cli, site: Sandbox) -> None:
    failures = cli.folder / "failures"
    options = ("--credentials", private(cli, "credentials", credentials("dev-2")), "--failures", failures)
    process = await cli.start("push", "--follow", "-", "--json", "--drain-timeout", "0.1", *options)
    await process.write(line("dev-1") + line("dev-2"))
    await process.complaint("held: device dev-2")
    await site.wait_for(lambda: pages(site)[0] == 1)
    ended = await process.wait(b"")
    assert (ended.code, ended.json["sent"], ended.json["failed"], ended.json["unsent"]) == (1, 1, 0, 1)
    assert ended.json["heldAccounts"] == 1
    assert (
        "1 account is held: its requests do not get through; correct the cause (see the message 'held:', and "
        "printos check), and push again what was not"
    ) in ended.err
    assert json.loads(failures.read_text())["deviceId"] == "dev-2"


async def test_a_file_that_cannot_be_used_leaves_the_credentials_and_is_said_once(
    cli: Cli, site: Sandbox
) -> None:
    file = private(cli, "credentials", credentials("dev-2"))
    process = await cli.start("push", "--follow", "-", "--json", "--credentials", file)
    await process.write(line("dev-1", 1) + line("dev-2", 1))
    await process.complaint("held: device dev-2")
    replace(file, credentials()[:-10])
    for _ in range(2):
        process.send_signal(signal.SIGHUP)
        await process.complaint("SIGHUP")
        requests = site.request_count
        await site.wait_for(lambda before=requests: site.request_count > before)  # type: ignore[misc]
    await process.write(line("dev-1", 2))
    await site.wait_for(lambda: pages(site)[0] == 2)
    file.unlink()
    process.send_signal(signal.SIGHUP)
    await process.complaint(f"cannot read {file}: No such file or directory; what was read before is used on")
    replace(file, credentials())
    process.send_signal(signal.SIGHUP)
    await site.wait_for(lambda: pages(site)[1] == 1)
    ended = await process.wait(b"")
    assert (ended.code, ended.json["sent"], ended.json["failed"]) == (0, 3, 0)
    bad = [text for text in process.complaints if "cannot use" in text]
    assert bad == [
        f"printos: cannot use {file}: line 4 is not valid JSON at character 55; what was read before is used on\n"
    ]
    assert has_no_secret(ended.out, ended.err, *process.complaints)


async def test_sighup_reports_a_bad_line_to_a_worker_that_has_nothing_to_send(
    cli: Cli, site: Sandbox
) -> None:
    file = private(cli, "credentials", credentials())
    outbox = f"sqlite+aiosqlite:///{cli.folder / 'spool.db'}"
    process = await cli.start("worker", "--outbox", outbox, "--credentials", file, "--state-every", "0.1")
    await process.complaint("0 pending")
    with file.open("a") as lines:
        lines.write("{bad\n")
    process.send_signal(signal.SIGHUP)
    said = await process.complaint("cannot use")
    assert said == (
        f"printos: cannot use {file}: line 5 is not valid JSON at character 2; what was read before is used on\n"
    )
    assert site.request_count == 0


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
async def test_no_secret_is_in_the_process_list_or_in_a_file_that_is_written(cli: Cli, site: Sandbox) -> None:
    file = private(cli, "credentials", credentials("dev-2", "dev-4"))
    outbox = ("--outbox", f"sqlite+aiosqlite:///{cli.folder / 'spool.db'}")
    statuses = cli.file("s.jsonl", b"".join(line(f"dev-{number}") for number in range(1, 6)) + b"bad\n")
    written = ("--failures", cli.folder / "failures", "--bad-lines", cli.folder / "bad")
    options = ("--credentials", file)
    bulk = await cli.run("push", statuses, *written, *options)
    spooled = await cli.run("push", statuses, *outbox, *options)
    assert (bulk.code, spooled.code) == (1, 1)  # a bad line
    process = await cli.start("worker", *outbox, *options, "--drain-timeout", "0.1", PYTHONASYNCIODEBUG="1")
    await process.complaint("held: ")
    proc = Path("/proc", str(process.process.pid))
    shown = [(proc / name).read_bytes() for name in ("cmdline", "environ")]
    process.send_signal(signal.SIGTERM)
    ended = await process.wait()
    assert has_no_secret(
        bulk.out, bulk.err, spooled.out, spooled.err, ended.out, ended.err, *process.complaints
    )
    files = [path for path in cli.folder.iterdir() if path != file]
    assert {"failures", "bad", "spool.db"} <= {path.name for path in files}
    assert not any(b"canary" in content for content in [*shown, *(path.read_bytes() for path in files)])


@pytest.mark.parametrize("count", [1, 3, 1_000])
async def test_accounts_that_are_held_together_are_summed_up(
    capsys: pytest.CaptureFixture[str], count: int
) -> None:
    with OutageLines() as lines:
        for number in range(count):
            lines.on_event(AccountHeld(f"device dev-{number}", "AuthenticationError", 401))
        lines.on_event(AccountHeld("device dev-x", "MissingCredentialsError", None))
        for number in range(count):
            lines.on_event(AccountResumed(f"device dev-{number}"))
    held, resumed = capsys.readouterr().err.splitlines()
    assert held == (
        f"printos: held: device dev-0 (401 AuthenticationError), and {count:,} more; "
        "their statuses wait until a request gets through"
    )
    assert resumed == "printos: resumed: device dev-0" + (f", and {count - 1:,} more" if count > 1 else "")


@pytest.mark.parametrize(
    ("cause", "status", "advice"),
    [
        ("NotFoundError", 404, "; compare the devices with printos devices list"),
        ("PermissionDeniedError", 403, "; compare the devices with printos devices list"),
        ("AuthenticationError", 401, ""),
        ("MissingCredentialsError", None, ""),
    ],
    ids=["unknown", "forbidden", "refused", "missing"],
)
async def test_an_account_held_for_its_devices_points_to_the_list_of_devices(
    capsys: pytest.CaptureFixture[str], cause: str, status: int | None, advice: str
) -> None:
    with OutageLines() as lines:
        lines.on_event(AccountHeld("key k…", cause, status))
    answer = f"{status} {cause}" if status else cause
    assert capsys.readouterr().err == (
        f"printos: held: key k… ({answer}); its statuses wait until a request gets through{advice}\n"
    )


async def test_lines_of_accounts_are_at_most_a_few_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    until_s = asyncio.get_running_loop().time() + 0.7
    held = 0
    with OutageLines() as lines:
        while asyncio.get_running_loop().time() < until_s:
            lines.on_event(AccountHeld(f"device dev-{held}", "AuthenticationError", 401))
            held += 1
            await asyncio.sleep(0)
    said = capsys.readouterr().err.splitlines()
    assert 1 <= len(said) <= 4
    named = [
        int(found[1].replace(",", "")) + 1 if (found := re.search(r"and ([\d,]+) more", text)) else 1
        for text in said
    ]
    assert sum(named) == held


@pytest.mark.parametrize(
    "options", [(), ("--spool",), ("--spool", "--follow")], ids=["bulk", "spool", "spool_follow"]
)
async def test_sighup_does_not_end_a_push_that_is_no_service(
    cli: Cli, site: Sandbox, options: tuple[str, ...]
) -> None:
    file = private(cli, "credentials", credentials())
    url = f"sqlite+aiosqlite:///{cli.folder / 'spool.db'}"
    process = await cli.start(
        "push", *options, "-", "--json", "--credentials", file, PRINTOS_OUTBOX=url, PRINTOS_ACCOUNT="site"
    )
    await process.write(line("dev-1") + b"bad\n")
    await process.complaint("standard input, line 2: ")
    process.send_signal(signal.SIGHUP)
    await process.complaint("SIGHUP: the credentials are read again")
    ended = await process.wait(line("dev-2"))
    assert (ended.code, ended.json["badLines"], ended.json["unsent"]) == (1, 1, 0)
    assert ended.json["accepted" if options else "sent"] == 2


@pytest.mark.parametrize("options", [(), ("--follow",)], ids=["bulk", "follow"])
async def test_a_terminal_that_goes_away_ends_the_command(
    cli: Cli, site: Sandbox, options: tuple[str, ...]
) -> None:
    file = private(cli, "credentials", credentials())
    controller, terminal = pty.openpty()
    process = await cli.start("push", *options, "-", "--json", "--credentials", file, stderr=terminal)
    os.close(terminal)
    await process.write(line("dev-1", 1))
    await site.wait_for(lambda: pages(site)[0] == 1)
    os.close(controller)
    process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(20):
        assert await process.process.wait() == 128 + signal.SIGHUP
    report = json.loads(await process.read_line())
    assert (report["sent"], report["stoppedBy"]) == (1, "SIGHUP")

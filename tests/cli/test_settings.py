from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from printos_async import ConcurrencyLimit
from printos_async.cli.options.connection import ConcurrentRequests
from printos_async.sandbox import Sandbox

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Cli

LIST = ("devices", "list")
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX rights")


def secret_file(cli: Cli, content: str, mode: int = 0o600) -> Path:
    file = cli.file("secret file", content)
    file.chmod(mode)
    return file


@pytest.mark.parametrize(
    ("env", "complaint"),
    [
        ({}, "given; pass --key with --secret-file, --login with --password-file, or --credentials, or set "),
        ({"PRINTOS_KEY": "k"}, "PRINTOS_SECRET is not set"),
        ({"PRINTOS_LOGIN": "l"}, "PRINTOS_PASSWORD is not set"),
        (
            {"PRINTOS_KEY": "k", "PRINTOS_SECRET": "s", "PRINTOS_LOGIN": "l", "PRINTOS_PASSWORD": "p"},
            "are both set",
        ),
    ],
)
async def test_credentials_that_are_not_one_pair_are_refused(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], complaint: str
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    ended = await cli.run(*LIST)
    assert (ended.code, ended.out) == (2, "")
    assert complaint in ended.err
    assert len(ended.err.splitlines()) == 1


async def test_options_come_before_the_environment(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Sandbox(hmac_keys={"right": "s3cret"}) as sandbox:
        monkeypatch.setenv("PRINTOS_BASE_URL", "http://127.0.0.1:1")
        monkeypatch.setenv("PRINTOS_KEY", "wrong")
        monkeypatch.setenv("PRINTOS_SECRET", "wrong")
        file = secret_file(cli, "s3cret\r\n")
        ended = await cli.run(*LIST, "--base-url", sandbox.url, "--key", "right", "--secret-file", file)
        assert (ended.code, ended.err) == (0, "")


async def test_an_empty_variable_counts_as_unset(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox
) -> None:
    for name in ("BASE_URL", "ACCOUNT", "CA_FILE", "CLIENT_CERT", "CLIENT_KEY"):
        monkeypatch.setenv(f"PRINTOS_{name}", "")
    url = f"sqlite+aiosqlite:///{cli.folder / 'spool.db'}"
    assert (await cli.run("push", cli.file("s.jsonl", ""), "--outbox", url)).code == 0
    [account] = (await cli.run("outbox", "accounts", "--outbox", url, "--json")).json["accounts"]
    assert account["label"].startswith("printos.api.hp.com key ")


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("--base-url", "the base URL (--base-url or PRINTOS_BASE_URL) cannot be used"),
        ("--account", "account must have 1 to"),
    ],
)
async def test_an_empty_option_is_refused_and_not_replaced_by_the_environment(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox, option: str, complaint: str
) -> None:
    monkeypatch.setenv("PRINTOS_ACCOUNT", "site-7")
    ended = await cli.run(*LIST, option, "")
    assert (ended.code, ended.out) == (2, "")
    assert complaint in ended.err


async def test_a_login_given_as_an_option_hides_a_key_of_the_environment(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Sandbox(logins={"me": "pass word"}) as sandbox:
        monkeypatch.setenv("PRINTOS_KEY", "other")
        monkeypatch.setenv("PRINTOS_SECRET", "other")
        file = secret_file(cli, "pass word\n")
        ended = await cli.run(*LIST, "--base-url", sandbox.url, "--login", "me", "--password-file", file)
        assert (ended.code, ended.err) == (0, "")
        assert sandbox.logins_count == 1


@posix_only
@pytest.mark.parametrize(
    ("mode", "owner", "advice"),
    [
        (0o600, 0, ""),
        (0o604, 0, "chmod go-r"),
        (0o640, 0, "chmod go-r"),
        (0o640, 12345, ""),
        (0o644, 12345, "chmod o-r"),
    ],
    ids=["private", "all users", "group", "group of somebody else's", "all users, somebody else's"],
)
@pytest.mark.parametrize("options", [("--key", "k", "--secret-file"), ("--login", "l", "--password-file")])
async def test_a_secret_that_other_users_may_read_is_warned_of_once(
    cli: Cli, options: tuple[str, ...], mode: int, owner: int, advice: str
) -> None:
    file = secret_file(cli, "hunter2\n", mode)
    if owner:
        if os.geteuid():
            pytest.skip("only root gives files to other users")
        os.chown(file, owner, -1)
    async with Sandbox() as sandbox:
        ended = await cli.run(*LIST, "--base-url", sandbox.url, *options, file)
    assert ended.code == 0
    warning = (
        f"printos: warning: other users may read the secret in {file} (mode {mode:04o}); "
        f"take the right away with {advice} '{file}'\n"
    )
    assert ended.err == (warning if advice else "")


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("--key", "k", "--login", "l"), "--key and --login exclude each other"),
        (("--key", "k", "--password-file", "p"), "--key and --password-file exclude each other"),
        (("--secret-file", "s", "--login", "l"), "--secret-file and --login exclude each other"),
        (("--key", "k", "--secret-file", "/nowhere/secret"), "cannot read /nowhere/secret"),
        (("--key", "k", "--secret-file", os.devnull), "holds no secret"),
        (("--base-url", "http://printos.example"), "add --insecure-http"),
        (("--base-url", "ftp://printos.example"), "--base-url or PRINTOS_BASE_URL"),
        (("--base-url", "https://u:hunter2@printos.example"), "--key with PRINTOS_SECRET"),
        (("--timeout", "0"), "--timeout"),
        (("--max-attempts", "0"), "--max-attempts"),
        (("--secret", "hunter2"), "No such option"),
    ],
)
async def test_a_wrong_setting_is_one_line_that_says_what_to_do(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], complaint: str
) -> None:
    monkeypatch.setenv("PRINTOS_KEY", "k")
    monkeypatch.setenv("PRINTOS_SECRET", "hunter2")
    ended = await cli.run(*LIST, *args)
    assert (ended.code, ended.out) == (2, "")
    assert complaint in ended.err
    assert len(ended.err.splitlines()) == 1
    assert "hunter2" not in ended.err


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        (ConcurrentRequests(), (ConcurrencyLimit().initial, ConcurrencyLimit().maximum)),
        (ConcurrentRequests(max_in_flight=7), (7, 7)),
    ],
    ids=["default", "given"],
)
def test_requests_in_flight_have_the_librarys_limit_unless_one_is_given(
    given: ConcurrentRequests, limits: tuple[int, int]
) -> None:
    limiter = given.make_client_with(None)._channel.executor.limiter
    assert (limiter.limit, limiter.maximum) == limits


async def test_a_server_that_is_not_there_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRINTOS_KEY", "k")
    monkeypatch.setenv("PRINTOS_SECRET", "hunter2")
    async with Sandbox() as sandbox:
        url = sandbox.url
    ended = await cli.run(*LIST, "--base-url", url, "--max-attempts", "1")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("printos: GET /devices: no connection")
    assert len(ended.err.splitlines()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
def test_the_secret_is_asked_for_on_a_terminal_and_not_shown() -> None:
    controller, terminal = pty.openpty()
    program = "from printos_async.cli import main; raise SystemExit(main())"
    args = ["push", os.devnull, "--format", "jsonl", "--key", "k", "--base-url", "http://127.0.0.1:1"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *args],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    seen = b""
    try:
        while b"PRINTOS_SECRET for k: " not in seen:
            seen += os.read(controller, 1000)
        os.write(controller, b"hunter2\n")
        while True:
            try:
                chunk = os.read(controller, 1000)
            except OSError:  # the other side is closed
                break
            if not chunk:
                break
            seen += chunk
        code = process.wait(timeout=20)
    finally:
        process.kill()
        process.wait()
        os.close(controller)
    assert code == 0
    assert b"0 sent" in seen
    assert b"hunter2" not in seen

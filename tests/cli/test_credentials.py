"""Credentials files: what is read, what is refused, and when they are read again."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from printos_async import HmacAuth, SessionTokenAuth
from printos_async._auth import ReadyAuth
from printos_async.cli.credentials.credentials_file import CredentialsFile
from printos_async.cli.credentials.lines import parse_credentials
from printos_async.cli.credentials.reread_file import QUIET_S, SecretFile
from printos_async.cli.terminal.output import CommandError
from printos_async.sandbox import Faults, Sandbox

if TYPE_CHECKING:
    from .conftest import Cli

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX rights")
NAME = Path("credentials")
CSV = b"deviceId,key,secret\n"
LOGIN = b'{"deviceId": "dev-1", "login": "me", "password": "canary-1"}\n'
KEY = b'{"deviceId": "dev-2", "key": "k2", "secret": "canary-2"}\n'
DEFAULT = b'{"deviceId": "*", "key": "k", "secret": "canary-0"}\n'


def private(folder: Path, content: bytes, name: str = "credentials") -> Path:
    file = folder / name
    file.write_bytes(content)
    file.chmod(0o600)
    return file


def replace(file: Path, content: bytes) -> None:
    """Replace a file by another one, which was written a while ago."""
    fresh = private(file.parent, content, "fresh")
    fresh.replace(file)
    aged(file)


def aged(file: Path) -> None:
    """Wait until a file counts as written: its time of change cannot be set."""
    while abs(time.time() - file.stat().st_ctime) < QUIET_S:
        time.sleep(0.01)


class ClockOf:
    """A clock by which a file was written ``age_s`` ago, however slow this machine is."""

    def __init__(self, file: Path) -> None:
        self.age_s = 3600.0
        self._file = file

    def __call__(self) -> float:
        return self._file.stat().st_ctime + self.age_s


def read(data: bytes) -> dict[str, tuple[bool, str, str]]:
    table = parse_credentials(NAME, data)
    return {device: (each.is_key, each.name, each.secret) for device, each in table.items()}


def test_logins_and_keys_may_be_mixed_in_json_lines() -> None:
    assert read(b"\xef\xbb\xbf" + LOGIN + b"\r\n  \n" + KEY.strip() + b"\r\n" + DEFAULT.strip()) == {
        "dev-1": (False, "me", "canary-1"),
        "dev-2": (True, "k2", "canary-2"),
        "*": (True, "k", "canary-0"),
    }


def test_files_of_credentials_with_byte_order_marks_can_be_concatenated() -> None:
    assert read(b"\xef\xbb\xbf" + LOGIN + b"\xef\xbb\xbf" + KEY) == read(LOGIN + KEY)


def test_csv_names_its_columns_in_any_order_and_values_are_taken_as_they_are() -> None:
    data = b'password, deviceId ,login\r\n" p,""q ",dev-1, me\r\nsecret ,*,you\r\n'
    assert read(data) == {"dev-1": (False, " me", ' p,"q '), "*": (False, "you", "secret ")}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "holds no credentials; a line has deviceId with login and password"),
        (CSV, "holds no credentials"),
        (
            b"dev-1,canary-key,canary-secret\n",
            "line 1 must name the columns deviceId with login and password",
        ),
        (b"deviceId,key,key\n", "line 1 must name the columns"),
        (CSV + b"dev-1,canary\n", "line 2 has 2 values; the header has 3"),
        (CSV + b'dev-1,k,"canary\n', "line 2 is not valid CSV"),
        (
            CSV.replace(b"\n", b"\r") + b"dev-1,k,canary\r",
            "line 1 is not valid CSV: convert the file's line ends",
        ),
        (CSV + b'dev-1,k,"s"canary\n', "line 2 is not valid CSV: ',' expected after '\"'"),
        (
            CSV + b"dev-1,,canary\n",
            "line 2 cannot be used: key must be visible ASCII characters without a colon",
        ),
        (CSV + b"dev-1,canary key,s\n", "line 2 cannot be used: key must be"),
        (CSV + b"dev-1,k,\n", "line 2 cannot be used: secret must be a non-empty str"),
        (CSV + b"canary/1,k,s\n", "line 2 cannot be used: deviceId must be a text of 1 to 256 characters"),
        (CSV + b"d,k,s\n\nd,k,canary\n", "line 4 repeats the deviceId of line 2"),
        (LOGIN + b'{"deviceId": "canary\n', "line 2 is not valid JSON at character 14"),
        (LOGIN + b"canary\n", "line 2 is not valid JSON at character 1"),
        (LOGIN + b"[" * 30_000, "line 2 is not valid JSON"),
        (LOGIN + b'["canary"]\n', "line 2 is not a JSON object"),
        (
            b'{"deviceId": "d", "canary": "x"}',
            "line 1 must have deviceId with login and password, or with key",
        ),
        (b'{"key": "canary", "secret": "canary"}', "line 1 lacks deviceId"),
        (b'{"deviceId": "d", "login": "l", "password": 5}', "line 1 cannot be used: password must be"),
        (b'{"deviceId": "d", "login": "l", "password": "\\ud800"}', "line 1 cannot be used: password holds"),
        (LOGIN + b"\xffcanary", "line 2 is not UTF-8 at byte 1"),
        (LOGIN + b'{"deviceId": "' + b"canary" * 20_000, "line 2 is longer than 65536 bytes"),
        (LOGIN.decode().encode("utf-16"), "is not UTF-8 at byte 1"),
        (CSV + b"d\n" * 8, "line 6 has 1 value; the header has 3; and 3 more bad lines"),
    ],
)
def test_bad_lines_are_named_by_number_and_not_quoted(data: bytes, problem: str) -> None:
    with pytest.raises(CommandError) as raised:
        parse_credentials(NAME, data)
    assert problem in str(raised.value)
    assert str(raised.value).startswith("cannot use credentials: ")
    assert "canary" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


def test_credentials_have_no_secret_in_their_repr() -> None:
    assert "canary" not in repr(parse_credentials(NAME, LOGIN + KEY))


async def test_an_object_stays_as_long_as_its_line_stays(tmp_path: Path) -> None:
    file = private(tmp_path, LOGIN + KEY + DEFAULT)
    credentials = CredentialsFile(file)
    login, key, default = [await credentials.find(name) for name in ("dev-1", "dev-2", "other")]
    assert isinstance(login, SessionTokenAuth)
    assert isinstance(key, HmacAuth)
    assert await credentials.find("dev-1") is login
    replace(file, LOGIN + KEY.replace(b"canary-2", b"canary-9") + DEFAULT.replace(b"canary-0", b"canary-8"))
    assert await credentials.find("dev-1") is login
    changed = await credentials.find("dev-2")
    assert isinstance(changed, HmacAuth)
    assert changed is not key
    assert changed.secrets() == ("canary-9",)
    assert await credentials.find("other") is default  # the client's default, which has another secret now
    assert isinstance(default, ReadyAuth)
    assert credentials.device_credentials().default is default
    default.headers("PUT", "/")
    assert tuple(default.secrets()) == ("canary-8",)


async def test_devices_with_the_same_credentials_are_one_account(tmp_path: Path) -> None:
    file = private(tmp_path, CSV + b"dev-1,k,canary\ndev-2,k,canary\ndev-3,k,other\n")
    credentials = CredentialsFile(file)
    first, second, third = [await credentials.find(f"dev-{number}") for number in (1, 2, 3)]
    assert first is second
    assert third is not first


async def test_lines_may_be_added_and_removed(tmp_path: Path) -> None:
    file = private(tmp_path, LOGIN)
    credentials = CredentialsFile(file)
    assert not credentials.has_default
    assert await credentials.find("dev-2") is None
    replace(file, KEY + DEFAULT)
    assert isinstance(await credentials.find("dev-2"), HmacAuth)
    default = await credentials.find("dev-1")
    assert default is not None
    assert default is await credentials.find("dev-7")


async def test_a_file_that_is_being_written_is_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = private(tmp_path, CSV + b"dev-1,k,canary-1\ndev-2,k2,canary-2\n")
    clock = ClockOf(file)
    credentials = CredentialsFile(file, clock=clock)
    before = await credentials.find("dev-1")
    clock.age_s = 0.9 * QUIET_S
    with file.open("wb", buffering=0) as rewritten:
        for part in (CSV, b"dev-1,k,canary-9", b"9\ndev-2,k2,canary-2\n"):
            rewritten.write(part)
            assert await credentials.find("dev-1") is before
            assert await credentials.find("dev-2") is not None
    clock.age_s = 1.1 * QUIET_S
    after = await credentials.find("dev-1")
    assert isinstance(after, HmacAuth)
    assert after.secrets() == ("canary-99",)
    assert capsys.readouterr().err == ""


def test_a_secret_of_the_same_length_in_the_same_tick_is_seen(tmp_path: Path) -> None:
    file = private(tmp_path, b"canary-1\n")
    secret = SecretFile(file)
    times = file.stat()
    replace(file, b"canary-2\n")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    aged(file)
    assert secret() == "canary-2"


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff"])
def test_a_secret_file_that_holds_none_leaves_the_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    file = private(tmp_path, b"canary-1\n")
    secret = SecretFile(file)
    replace(file, content)
    assert [secret(), secret()] == ["canary-1"] * 2
    file.unlink()
    assert [secret(), secret()] == ["canary-1"] * 2
    assert capsys.readouterr().err.splitlines() == [
        f"printos: {file} holds no secret; it must be one line of UTF-8 text; what was read before is used on",
        f"printos: cannot read {file}: No such file or directory; what was read before is used on",
    ]
    replace(file, b"canary-2\n")
    assert secret() == "canary-2"


@pytest.mark.parametrize("content", [b"canary-1\ncanary-2\n", b"canary-1\r\ncanary-2", b"\ncanary-1\n"])
def test_a_secret_file_of_several_lines_is_refused(tmp_path: Path, content: bytes) -> None:
    file = private(tmp_path, content)
    with pytest.raises(CommandError) as refused:
        SecretFile(file)
    assert str(refused.value) == f"{file} has more than one line; it must hold the secret and nothing else"


@pytest.mark.parametrize("line_end", [b"", b"\n", b"\r\n"])
def test_a_line_end_is_not_part_of_a_secret(tmp_path: Path, line_end: bytes) -> None:
    assert SecretFile(private(tmp_path, b"canary 1" + line_end))() == "canary 1"


@posix_only
def test_a_secret_from_a_pipe_is_read_once() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"canary-1\n")
    os.close(writer)
    try:
        secret = SecretFile(Path(f"/dev/fd/{reader}"))
        assert [secret(), secret()] == ["canary-1"] * 2
    finally:
        os.close(reader)


@posix_only
@pytest.mark.parametrize(
    ("mode", "owner", "advice"),
    [(0o604, 0, "chmod go-r"), (0o640, 0, "chmod go-r"), (0o440, 12345, ""), (0o644, 12345, "chmod o-r")],
)
async def test_a_file_that_other_users_may_read_is_refused(
    cli: Cli, mode: int, owner: int, advice: str
) -> None:
    file = private(cli.folder, DEFAULT)
    file.chmod(mode)
    if owner:
        if os.geteuid():
            pytest.skip("only root gives files to other users")
        os.chown(file, owner, -1)
    async with Sandbox(hmac_keys={"k": "canary-0"}) as sandbox:
        ended = await cli.run("devices", "list", "--base-url", sandbox.url, "--credentials", file)
    assert ended.code == (2 if advice else 0)
    refusal = (
        f"printos: other users may read the credentials in {file} (mode {mode:04o}); "
        f"take the right away with {advice} {file}\n"
    )
    assert ended.err == (refusal if advice else "")


@posix_only
async def test_a_file_that_others_may_read_later_is_not_read_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = private(tmp_path, KEY)
    credentials = CredentialsFile(file, clock=ClockOf(file))
    before = await credentials.find("dev-2")
    file.write_bytes(KEY.replace(b"canary-2", b"canary-9"))
    file.chmod(0o644)
    assert await credentials.find("dev-2") is before
    assert "other users may read the credentials" in capsys.readouterr().err
    file.chmod(0o600)
    assert await credentials.find("dev-2") is not before


@pytest.mark.parametrize(
    ("options", "env", "complaint"),
    [
        (["--key", "k"], {}, "--credentials and --key exclude each other"),
        (["--secret-file", "s"], {}, "--credentials and --secret-file exclude each other"),
        (["--login", "l"], {}, "--credentials and --login exclude each other"),
        (["--password-file", "p"], {}, "--credentials and --password-file exclude each other"),
        ([], {"PRINTOS_KEY": "k", "PRINTOS_SECRET": "canary"}, "--credentials and PRINTOS_KEY exclude"),
        ([], {"PRINTOS_PASSWORD": "canary"}, "--credentials and PRINTOS_PASSWORD exclude each other"),
    ],
)
async def test_a_credentials_file_and_other_credentials_exclude_each_other(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, options: list[str], env: dict[str, str], complaint: str
) -> None:
    file = private(cli.folder, DEFAULT)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    by_option = await cli.run("devices", "list", "--credentials", file, *options)
    assert by_option.code == 2
    assert by_option.err.startswith(f"printos: {complaint}")
    assert by_option.err.endswith("; give one of them\n")
    assert len(by_option.err.splitlines()) == 1
    monkeypatch.setenv("PRINTOS_CREDENTIALS", str(file))
    by_variable = await cli.run("devices", "list", *options)
    assert by_variable.code == 2
    assert complaint.replace("--credentials", "PRINTOS_CREDENTIALS", 1) in by_variable.err
    assert "canary" not in by_option.err + by_variable.err


async def test_the_list_of_devices_needs_the_default_of_the_file(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Sandbox(hmac_keys={"k": "canary-0"}) as sandbox:
        monkeypatch.setenv("PRINTOS_BASE_URL", sandbox.url)
        monkeypatch.setenv("PRINTOS_CREDENTIALS", str(private(cli.folder, KEY + DEFAULT)))
        listed = await cli.run("devices", "list", "--json")
        assert (listed.code, listed.err) == (0, "")
        assert listed.json == {"devices": []}
        without = await cli.run("devices", "list", "--credentials", private(cli.folder, KEY, "without"))
        assert (without.code, sandbox.request_count) == (2, 1)
    assert "has no line for the device *" in without.err


async def test_a_missing_file_is_one_line(cli: Cli) -> None:
    ended = await cli.run("devices", "list", "--credentials", cli.folder / "nowhere")
    assert (ended.code, ended.err) == (
        2,
        f"printos: cannot read {cli.folder / 'nowhere'}: No such file or directory\n",
    )


def test_a_large_file_is_read(tmp_path: Path) -> None:
    records = (
        {"deviceId": f"dev-{n}", "login": f"login-{n}", "password": f"pass-{n}"} for n in range(10_000)
    )
    credentials = CredentialsFile(private(tmp_path, "\n".join(map(json.dumps, records)).encode()))
    assert isinstance(credentials.auth_of("dev-9999"), SessionTokenAuth)
    assert len(credentials._auths) == 1  # made when it was needed


def test_a_json_array_is_not_taken_for_csv() -> None:
    with pytest.raises(CommandError, match="line 1 is not a JSON object"):
        read(b"[" + LOGIN.strip() + b"]\n")


async def test_all_that_was_in_flight_is_signed_again_with_the_time_of_the_server(cli: Cli) -> None:
    async with Sandbox(
        hmac_keys={"k": "canary-0"}, clock_offset_s=3600.0, faults=Faults(latency_s=(0.1, 0.1))
    ) as sandbox:
        device_ids = [f"dev-{number}" for number in range(20)]
        for device_id in device_ids:
            sandbox.add_device(device_id)
        statuses = "".join(json.dumps({"deviceId": each, "status": "DS_ON"}) + "\n" for each in device_ids)
        credentials = private(cli.folder, DEFAULT)
        pushed = await cli.run(
            "push",
            cli.file("statuses.jsonl", statuses),
            *("--credentials", credentials, "--base-url", sandbox.url, "--max-in-flight", "20", "--json"),
        )
        assert (pushed.json["sent"], pushed.code) == (20, 0)

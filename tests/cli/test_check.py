"""``printos check``: broken set-ups, each named with its remedy, over real sockets, real TLS and real databases."""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from attrs import define
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from printos_async._auth import MAX_SKEW_S, MIN_SKEW_S, HmacAuth
from printos_async._config import parse_base_url
from printos_async.cli.checks.exchange import CHECKS, Exchange
from printos_async.cli.checks.observed_auth import Answer, ObservedAuth
from printos_async.outbox.sql.tables import MIGRATIONS
from printos_async.sandbox import Sandbox
from tests.transport.blocking_tls import refusing_server
from tests.transport.proxy import PASSWORD, URL_CREDENTIALS, ConnectProxy, TlsFront
from tests.transport.scripted import ScriptedServer, always

from .conftest import KEY, SECRET

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.postgres import PostgresServer
    from tests.transport.scripted import Peer

    from .conftest import Cli, Ended

WRONG = "wrong-canary-77d0"
LOGIN, LOGIN_PASSWORD = "press-7", "login-canary-1b2c"
LOGIN_PATH = "/api/aaa/v1/devices/login"
ALL = ["credentials file", "name", "connection", *CHECKS, "outbox"]


@define
class Checked:
    code: int
    steps: dict[str, Any]

    @property
    def failed(self) -> list[str]:
        return [name for name, step in self.steps.items() if step["outcome"] == "failed"]

    def outcomes(self, *names: str) -> list[str]:
        return [self.steps[name]["outcome"] for name in names]


async def check(cli: Cli, *args: object) -> Checked:
    """Run the check; what it writes has one finding for each step, a remedy for each failure, and no secret."""
    ended = await cli.run("check", "--json", *args)
    refuse_secrets(ended)
    steps = {step["check"]: step for step in ended.json["checks"]}
    assert list(steps) == ALL
    assert all(bool(step["remedy"]) == (step["outcome"] == "failed") for step in steps.values())
    checked = Checked(ended.code, steps)
    assert (ended.code, ended.json["ok"]) == ((1, False) if checked.failed else (0, True))
    return checked


async def check_one_failure(cli: Cli, name: str, *args: object) -> tuple[str, str]:
    """Run the check of a set-up with one problem; return what it says of the problem, and the remedy."""
    checked = await check(cli, *args)
    assert checked.failed == [name]
    return checked.steps[name]["detail"], checked.steps[name]["remedy"]


def refuse_secrets(ended: Ended) -> None:
    text = ended.out + ended.err
    for secret in (SECRET, WRONG, LOGIN_PASSWORD, PASSWORD, URL_CREDENTIALS):
        assert secret not in text


def refuse_writes(sandbox: Sandbox) -> None:
    assert all(seen.method == "GET" or seen.path == LOGIN_PATH for seen in sandbox.requests)


@pytest.fixture
def sandbox(sandbox: Sandbox) -> Iterator[Sandbox]:
    yield sandbox
    refuse_writes(sandbox)


@pytest.fixture(autouse=True)
def _no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def outbox(cli: Cli) -> str:
    return f"sqlite+aiosqlite:///{cli.folder / 'spool.db'}"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def private(cli: Cli, content: str) -> Path:
    file = cli.file("credentials", content)
    file.chmod(0o600)
    return file


def server_context(
    authority: trustme.CA, name: str = "127.0.0.1", *, valid_days: tuple[int, int] = (-1, 1)
) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    not_before, not_after = (datetime.now(UTC) + timedelta(days=days) for days in valid_days)
    authority.issue_cert(name, not_before=not_before, not_after=not_after).configure_cert(context)
    return context


def ca_file(cli: Cli, authority: trustme.CA) -> Path:
    path = cli.folder / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


async def test_a_sound_set_up_is_all_right(cli: Cli, sandbox: Sandbox, outbox: str) -> None:
    checked = await check(cli, "--outbox", outbox)
    assert checked.code == 0
    assert checked.outcomes(*ALL) == ["skipped", "ok", "ok", "skipped", "skipped", "ok", "ok", "ok", "ok"]
    assert "3 devices" in checked.steps["path"]["detail"]
    assert "0 statuses wait, 0 failed, 0 workers" in checked.steps["outbox"]["detail"]
    assert [seen.method for seen in sandbox.requests] == ["GET"]


async def test_people_get_one_line_for_each_step(
    cli: Cli, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRINTOS_SECRET", WRONG)
    process = await cli.start("check")
    ended = await process.wait()
    refuse_secrets(ended)
    assert (ended.code, ended.err) == (1, "")
    assert [line.split()[0] for line in ended.out.splitlines()] == [
        *("skipped", "ok", "ok", "skipped", "skipped", "ok", "ok", "failed", "skipped")
    ]
    [line] = [line for line in ended.out.splitlines() if line.startswith("failed")]
    assert "credentials" in line
    assert "; to do: check the key or login" in line


async def test_an_unknown_host_name_is_named(cli: Cli, sandbox: Sandbox) -> None:
    detail, remedy = await check_one_failure(cli, "name", "--base-url", "https://no-such-host.invalid")
    assert "no-such-host.invalid has no address" in detail
    assert "--base-url" in remedy
    assert "DNS" in remedy
    assert sandbox.request_count == 0


async def test_a_port_where_nothing_listens_is_named(cli: Cli, sandbox: Sandbox, closed_port: int) -> None:
    checked = await check(cli, "--base-url", f"https://127.0.0.1:{closed_port}")
    assert checked.failed == ["connection"]
    assert f"port {closed_port} refuses connections" in checked.steps["connection"]["detail"]
    assert "firewalls" in checked.steps["connection"]["remedy"]
    assert checked.outcomes(*CHECKS) == ["skipped"] * len(CHECKS)


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        ("unknown authority", ("no trusted authority issued it", "--ca-file or --system-certificates")),
        ("expired", ("it has expired", "the server's certificate with its owner")),
        ("not yet valid", ("it is not valid yet", "this machine's clock")),
        ("other host name", ("it is for another", "check --base-url")),
    ],
    ids=["unknown authority", "expired", "not yet valid", "other host name"],
)
async def test_a_refused_certificate_is_named_with_the_reason(
    cli: Cli, sandbox: Sandbox, authority: trustme.CA, problem: str, words: tuple[str, str]
) -> None:
    days = {"expired": (-9, -2), "not yet valid": (2, 9)}.get(problem, (-1, 1))
    name = "other.invalid" if problem == "other host name" else "127.0.0.1"
    trusted = trustme.CA() if problem == "unknown authority" else authority
    async with TlsFront(server_context(authority, name, valid_days=days), sandbox.port) as front:
        options = ("--base-url", front.url, "--ca-file", ca_file(cli, trusted))
        found, advice = await check_one_failure(cli, "tls", *options)
    assert "the certificate of 127.0.0.1" in found
    detail, remedy = words
    assert detail in found
    assert remedy in advice
    assert sandbox.request_count == 0


async def test_a_server_without_tls_is_not_taken_for_a_certificate_problem(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def serve(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        await peer.gone()

    monkeypatch.setenv("PRINTOS_KEY", KEY)
    monkeypatch.setenv("PRINTOS_SECRET", SECRET)
    async with ScriptedServer(serve) as server:
        url = str(server.origin).replace("http://", "https://")
        detail, remedy = await check_one_failure(cli, "tls", "--base-url", url)
    assert "does not speak TLS" in detail
    assert remedy == (
        "this port speaks plain HTTP, or something else: correct the port or the scheme in --base-url or "
        "PRINTOS_BASE_URL"
    )


async def test_a_trusted_certificate_is_all_right(cli: Cli, sandbox: Sandbox, authority: trustme.CA) -> None:
    async with TlsFront(server_context(authority), sandbox.port) as front:
        checked = await check(cli, "--base-url", front.url, "--ca-file", ca_file(cli, authority))
    assert (checked.code, checked.outcomes("tls", "credentials")) == (0, ["ok", "ok"])


async def test_a_client_certificate_that_is_missing_is_named(
    cli: Cli, sandbox: Sandbox, authority: trustme.CA
) -> None:
    context = server_context(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    with refusing_server(context) as port:
        options = ("--base-url", f"https://127.0.0.1:{port}", "--ca-file", ca_file(cli, authority))
        detail, remedy = await check_one_failure(cli, "tls", *options)
    assert "asks for a client certificate" in detail
    assert "--client-cert and --client-key" in remedy


async def test_a_wrong_secret_is_named(cli: Cli, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRINTOS_SECRET", WRONG)
    detail, remedy = await check_one_failure(cli, "credentials")
    assert "key cli-… is refused" in detail
    assert "401" in detail
    assert "check the key or login and its secret or password" in remedy


@pytest.fixture
async def logins(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sandbox]:
    """A server that asks for a login, to which the environment points."""
    async with Sandbox(logins={LOGIN: LOGIN_PASSWORD}) as sandbox:
        monkeypatch.setenv("PRINTOS_BASE_URL", sandbox.url)
        monkeypatch.setenv("PRINTOS_LOGIN", LOGIN)
        monkeypatch.setenv("PRINTOS_PASSWORD", LOGIN_PASSWORD)
        yield sandbox
        refuse_writes(sandbox)


async def test_a_wrong_password_is_named_after_one_login(
    cli: Cli, logins: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRINTOS_PASSWORD", WRONG)
    detail, remedy = await check_one_failure(cli, "credentials")
    assert "login pres… is refused" in detail
    assert "password" in remedy
    # A second refused login could lock the account.
    assert [(seen.method, seen.path) for seen in logins.requests] == [("POST", LOGIN_PATH)]


async def test_a_login_is_all_right(cli: Cli, logins: Sandbox) -> None:
    assert (await check(cli)).outcomes("path", "credentials") == ["ok", "ok"]
    assert [seen.method for seen in logins.requests] == ["POST", "GET"]


async def test_a_wrong_path_is_named_where_the_login_works(cli: Cli, logins: Sandbox) -> None:
    checked = await check(cli, "--base-url", f"{logins.url}/printos")
    assert checked.failed == ["path"]
    assert "GET /printos/devices: 404" in checked.steps["path"]["detail"]
    assert "the login works" in checked.steps["path"]["remedy"]
    assert checked.outcomes("credentials") == ["ok"]


async def test_a_wrong_path_leaves_a_key_untold(cli: Cli, sandbox: Sandbox) -> None:
    checked = await check(cli, "--base-url", f"{sandbox.url}/printos")
    assert checked.failed == ["path"]
    assert "--base-url" in checked.steps["path"]["remedy"]
    assert checked.outcomes("credentials") == ["skipped"]


@pytest.mark.parametrize("off_s", [3600.0, -3600.0])
async def test_a_clock_an_hour_off_is_named_and_the_credentials_are_checked_all_the_same(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, off_s: float
) -> None:
    async with Sandbox(hmac_keys={KEY: SECRET}, clock_offset_s=off_s) as sandbox:
        monkeypatch.setenv("PRINTOS_KEY", KEY)
        monkeypatch.setenv("PRINTOS_SECRET", SECRET)
        checked = await check(cli, "--base-url", sandbox.url)
        assert checked.failed == ["clock"]
        assert ("behind" if off_s > 0 else "ahead of") in checked.steps["clock"]["detail"]
        assert "NTP" in checked.steps["clock"]["remedy"]
        assert checked.outcomes("path", "credentials") == ["ok", "ok"]
        monkeypatch.setenv("PRINTOS_SECRET", WRONG)
        assert (await check(cli, "--base-url", sandbox.url)).failed == ["clock", "credentials"]
        refuse_writes(sandbox)


async def test_a_clock_a_week_off_leaves_the_credentials_untold(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Sandbox(hmac_keys={KEY: SECRET}, clock_offset_s=7 * 86_400.0) as sandbox:
        monkeypatch.setenv("PRINTOS_KEY", KEY)
        monkeypatch.setenv("PRINTOS_SECRET", SECRET)
        _, remedy = await check_one_failure(cli, "clock", "--base-url", sandbox.url)
        assert "signed requests are refused until then" in remedy
        refuse_writes(sandbox)


@pytest.mark.parametrize(
    "ahead_s", [MIN_SKEW_S, MIN_SKEW_S + 1, -MIN_SKEW_S - 1, MAX_SKEW_S, MAX_SKEW_S + 1, -MAX_SKEW_S - 1]
)
def test_a_clock_is_judged_as_signatures_are_corrected(ahead_s: float) -> None:
    skew = HmacAuth(KEY, SECRET, clock=lambda: 0.0).learn_clock(ahead_s)
    auth = ObservedAuth(None)
    auth.answers.append(Answer(is_login=False, status=401, ahead_s=ahead_s, is_page=False))
    origin, _ = parse_base_url("http://127.0.0.1:1", allow_insecure_http=False)
    clock = Exchange(origin, "", auth).judge()[CHECKS.index("clock")]
    assert (clock.outcome == "ok") == (skew is None)
    is_corrected = skew is not None and skew.is_corrected
    assert ("with the server's time until then" in (clock.remedy or "")) == is_corrected


PAGE = b"<!doctype html><title>Sign in to the guest network</title>"


@pytest.mark.parametrize(
    ("answer", "detail", "remedy"),
    [
        (b"200 OK\r\ncontent-type: text/html", "HTML", "the network's login page"),
        (b"302 Found\r\nlocation: http://portal.test/", "302 Found", "--base-url"),
        (b"407 No\r\ncontent-type: text/plain", "407", "--proxy"),
        (b"503 Down\r\nretry-after: 9\r\ncontent-type: text/html", "503", "later"),
        (b"429 Slow\r\nretry-after: 9\r\ncontent-type: text/html", "429", "wait 9 s"),
        (b"200 OK\r\ncontent-type: application/json", "", ""),
    ],
    ids=["page", "redirect", "proxy", "down", "pause", "other service"],
)
async def test_something_else_than_printos_is_named(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, answer: bytes, detail: str, remedy: str
) -> None:
    body = PAGE if detail else b'{"printers": []}'
    monkeypatch.setenv("PRINTOS_KEY", KEY)
    monkeypatch.setenv("PRINTOS_SECRET", SECRET)
    head = b"HTTP/1.1 %s\r\ndate: Mon, 01 Jan 2001 00:00:00 GMT\r\ncontent-length: %d\r\n\r\n"
    async with ScriptedServer(always(head % (answer, len(body)) + body)) as server:
        checked = await check(cli, "--base-url", str(server.origin))
    assert "path" in checked.failed
    assert detail in checked.steps["path"]["detail"]
    assert (remedy or "another service answers") in checked.steps["path"]["remedy"]
    assert checked.outcomes("credentials") == ["skipped"]
    assert {request.method for request in server.requests} == {"GET"}


async def test_a_foreign_servers_page_tells_nothing_of_the_clock_of_printos(
    cli: Cli, sandbox: Sandbox
) -> None:
    answer = b"HTTP/1.1 404 Not Found\r\ncontent-type: text/html\r\ndate: %s\r\ncontent-length: %d\r\n\r\n%s"
    date = formatdate(usegmt=True).encode()
    async with ScriptedServer(always(answer % (date, len(PAGE), PAGE))) as server:
        checked = await check(cli, "--base-url", str(server.origin))
    assert checked.failed == ["path"]
    assert checked.steps["clock"]["outcome"] == "skipped"
    assert checked.steps["clock"]["detail"] == "PrintOS did not answer"


async def test_a_server_that_does_not_answer_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    async def leave(peer: Peer) -> None:
        if await peer.read_request():
            await peer.close()

    async def say_nothing(peer: Peer) -> None:
        await peer.gone()

    monkeypatch.setenv("PRINTOS_KEY", KEY)
    monkeypatch.setenv("PRINTOS_SECRET", SECRET)
    for handler, timeout_s in ((leave, 10), (say_nothing, 0.1)):
        async with ScriptedServer(handler) as server:
            options = ("--base-url", str(server.origin), "--timeout", timeout_s)
            detail, remedy = await check_one_failure(cli, "path", *options)
        assert "GET /devices" in detail
        assert "did not answer" in remedy


async def test_a_login_that_may_not_list_devices_is_told_from_one_that_is_wrong(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def serve(peer: Peer) -> None:
        while request := await peer.read_request():
            token = b'{"authToken": "t"}'
            is_login = request.method == "POST"
            status, body = (b"200 OK", token) if is_login else (b"403 Forbidden", b"{}")
            head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            await peer.send(head % (status, len(body)) + body)

    monkeypatch.setenv("PRINTOS_LOGIN", LOGIN)
    monkeypatch.setenv("PRINTOS_PASSWORD", LOGIN_PASSWORD)
    async with ScriptedServer(serve) as server:
        detail, remedy = await check_one_failure(cli, "credentials", "--base-url", str(server.origin))
    assert "login pres… can log in, and may not list devices" in detail
    assert "ask HP" in remedy
    assert [(request.method, request.target) for request in server.requests] == [
        ("POST", LOGIN_PATH),
        ("GET", "/devices"),
    ]


async def test_a_proxy_is_checked_in_place_of_the_server(
    cli: Cli, sandbox: Sandbox, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        TlsFront(server_context(authority), sandbox.port) as front,
        ConnectProxy(authenticates=True) as proxy,
    ):
        options = ("--base-url", front.url, "--ca-file", ca_file(cli, authority))
        monkeypatch.setenv("PRINTOS_PROXY", proxy.url)
        checked = await check(cli, *options)
        assert (checked.code, checked.outcomes("proxy", "tls", "credentials")) == (0, ["ok"] * 3)
        assert f"the proxy 127.0.0.1, port {proxy.port}" in checked.steps["connection"]["detail"]
        count = sandbox.request_count
        monkeypatch.setenv("PRINTOS_PROXY", f"http://press:{WRONG}@127.0.0.1:{proxy.port}")
        detail, remedy = await check_one_failure(cli, "proxy", *options)
        assert "(407)" in detail
        assert "user and password" in remedy
    assert sandbox.request_count == count


async def test_a_proxy_where_nothing_listens_is_named(cli: Cli, sandbox: Sandbox, closed_port: int) -> None:
    detail, remedy = await check_one_failure(cli, "connection", "--proxy", f"http://127.0.0.1:{closed_port}")
    assert "the proxy 127.0.0.1" in detail
    assert "--proxy, PRINTOS_PROXY or HTTPS_PROXY" in remedy
    assert sandbox.request_count == 0


# The outbox


async def test_an_outbox_tells_what_waits_and_stays_as_it_is(cli: Cli, sandbox: Sandbox, outbox: str) -> None:
    line = '{"deviceId": "dev-1", "status": "DS_ON"}\n'
    options = ("--outbox", outbox, "--spool", cli.file("s.jsonl", line))
    assert (await cli.run("push", *options)).code == 0
    assert (await cli.run("push", *options, "--account", "other")).code == 0
    before = (await cli.run("outbox", "accounts", "--json", "--outbox", outbox)).json
    detail = (await check(cli, "--outbox", outbox)).steps["outbox"]["detail"]
    assert f"schema version {len(MIGRATIONS) + 1}; 1 status waits, the oldest for" in detail
    assert "0 workers: start printos worker" in detail
    assert "1 waiting and 0 failed under 1 other account" in detail
    assert (await cli.run("outbox", "accounts", "--json", "--outbox", outbox)).json == before


async def test_an_outbox_that_cannot_be_written_is_named(cli: Cli, sandbox: Sandbox) -> None:
    folder = cli.folder / "read-only"
    folder.mkdir(mode=0o555)
    # Root may write everywhere but where the kernel refuses.
    place = Path("/sys/kernel") if os.access(folder, os.W_OK) else folder
    detail, remedy = await check_one_failure(
        cli, "outbox", "--outbox", f"sqlite+aiosqlite:///{place / 'spool.db'}"
    )
    assert str(place) in detail
    assert "the rights of this user" in remedy


async def test_an_outbox_of_a_newer_version_is_named(cli: Cli, sandbox: Sandbox, outbox: str) -> None:
    await check(cli, "--outbox", outbox)
    engine = create_async_engine(outbox)
    async with engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE printos_meta SET version = 99")
    await engine.dispose()
    detail, _ = await check_one_failure(cli, "outbox", "--outbox", outbox)
    assert "schema has version 99" in detail
    assert "upgrade printos-async" in detail


async def test_a_database_that_refuses_the_password_is_named(
    cli: Cli, sandbox: Sandbox, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = make_url(postgres_url).set(password=WRONG).render_as_string(hide_password=False)
    monkeypatch.setenv("PRINTOS_OUTBOX", wrong)
    detail, remedy = await check_one_failure(cli, "outbox")
    assert "password authentication failed" in detail
    assert "PRINTOS_OUTBOX" in remedy


async def test_a_read_only_database_is_named(
    cli: Cli, sandbox: Sandbox, postgres_server: PostgresServer, postgres_url: str
) -> None:
    assert (await check(cli, "--outbox", postgres_url)).code == 0
    database = make_url(postgres_url).database
    await postgres_server.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    detail, remedy = await check_one_failure(cli, "outbox", "--outbox", postgres_url)
    assert "it can be read and not written to" in detail
    assert "read-only" in remedy


# The credentials file


def key_line(device_id: str, key: str = KEY, secret: str = SECRET) -> str:
    return f'{{"deviceId": "{device_id}", "key": "{key}", "secret": "{secret}"}}\n'


@pytest.fixture
def _without_key(monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox) -> None:
    for name in ("PRINTOS_KEY", "PRINTOS_SECRET"):
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("_without_key")
@pytest.mark.skipif(os.name == "nt", reason="POSIX rights")
async def test_a_credentials_file_that_others_may_read_is_named(cli: Cli, outbox: str) -> None:
    file = cli.file("credentials", key_line("*"))
    file.chmod(0o644)
    checked = await check(cli, "--credentials", file, "--outbox", outbox)
    assert checked.failed == ["credentials file"]
    assert "other users may read" in checked.steps["credentials file"]["detail"]
    assert f"chmod go-r {file}" in checked.steps["credentials file"]["remedy"]
    assert "chmod" not in checked.steps["credentials file"]["detail"]
    # What does not need the credentials is checked all the same.
    assert checked.outcomes("path", "credentials", "outbox") == ["ok", "skipped", "skipped"]
    assert not (cli.folder / "spool.db").exists()
    named = await check(cli, "--credentials", file, "--outbox", outbox, "--account", "site-7")
    assert named.outcomes("outbox") == ["ok"]


@pytest.mark.usefixtures("_without_key")
@pytest.mark.parametrize("is_there", [True, False])
async def test_a_credentials_file_that_cannot_be_read_is_named(cli: Cli, *, is_there: bool) -> None:
    path = cli.folder / "credentials"
    if is_there:
        path.mkdir()
    detail, remedy = await check_one_failure(cli, "credentials file", "--credentials", str(path))
    assert f"cannot read {path}" in detail
    assert "check the path" in remedy


@pytest.mark.usefixtures("_without_key")
async def test_bad_lines_of_a_credentials_file_are_named(cli: Cli) -> None:
    file = private(cli, key_line("*") + f'{{"deviceId": "dev-1", "key": "{WRONG}"}}\n{WRONG}\n')
    detail, remedy = await check_one_failure(cli, "credentials file", "--credentials", file)
    assert "line 2 must have" in detail
    assert "line 3 is not valid JSON" in detail
    assert "correct these lines" in remedy


@pytest.mark.usefixtures("_without_key")
async def test_a_credentials_file_that_is_missing_is_named(cli: Cli) -> None:
    options = ("--credentials", cli.folder / "none")
    detail, remedy = await check_one_failure(cli, "credentials file", *options)
    assert "No such file" in detail
    assert "--credentials" in remedy


@pytest.mark.usefixtures("_without_key")
async def test_the_credentials_of_the_default_the_first_or_a_given_device_are_checked(cli: Cli) -> None:
    wrong = key_line("dev-2", secret=WRONG)
    with_default = ("--credentials", private(cli, wrong + key_line("*")))
    checked = await check(cli, *with_default)
    assert checked.code == 0
    assert "the credentials of * are checked" in checked.steps["credentials file"]["detail"]
    assert (await check(cli, *with_default, "--device", "dev-3")).code == 0
    await check_one_failure(cli, "credentials", *with_default, "--device", "dev-2")

    without = ("--credentials", private(cli, key_line("dev-9") + wrong))
    checked = await check(cli, *without)
    assert (checked.code, checked.outcomes("credentials")) == (0, ["ok"])
    assert "the credentials of dev-9 are checked" in checked.steps["credentials file"]["detail"]
    detail, remedy = await check_one_failure(cli, "credentials file", *without, "--device", "dev-3")
    assert "no line for dev-3, and none for *" in detail
    assert "add a line for dev-3" in remedy


# Usage


async def test_settings_that_cannot_be_used_are_a_usage_error(
    cli: Cli, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = await cli.run("check", "--device", "dev-1")
    assert (ended.code, ended.out) == (2, "")
    assert "--device needs --credentials" in ended.err
    assert (await cli.run("check", "--outbox", "mysql://x")).code == 2
    monkeypatch.delenv("PRINTOS_SECRET")
    ended = await cli.run("check")
    assert (ended.code, ended.out) == (2, "")
    assert sandbox.request_count == 0


@pytest.mark.parametrize("option", ["--base-url", "--proxy"])
async def test_a_port_that_does_not_exist_is_a_usage_error(cli: Cli, sandbox: Sandbox, option: str) -> None:
    ended = await cli.run("check", option, "http://127.0.0.1:99999")
    assert (ended.code, ended.out) == (2, "")
    assert "ports are 1 to 65535" in ended.err
    assert sandbox.request_count == 0


async def test_help_says_what_opening_an_outbox_changes(cli: Cli) -> None:
    ended = await cli.run("check", "--help")
    text = " ".join(ended.out.split())
    for change in ("missing file is created", "schema is migrated", "damaged file is set aside"):
        assert change in text

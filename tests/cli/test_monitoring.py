from __future__ import annotations

import asyncio
import signal
import socket
import sqlite3
import sys
import threading
from contextlib import closing
from http.client import HTTPException
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from printos_async import HmacAuth, PrintOSClient
from printos_async.cli.monitoring.monitor import Monitor
from printos_async.cli.monitoring.service_manager import ServiceManager
from printos_async.cli.options.listen import ListenAddress
from printos_async.cli.terminal.output import CommandError
from printos_async.sandbox import Faults

from .conftest import KEY, SECRET
from .probe import REASON_WITHIN_S, Probe, get, lines, samples_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from printos_async.sandbox import Sandbox
    from tests.postgres import PostgresServer

    from .conftest import Cli

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and sockets")
# A circuit opens after a hundred failures in a row.
_DEVICES = 120


@pytest.fixture
def outbox(cli: Cli, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = cli.folder / "spool.db"
    monkeypatch.setenv("PRINTOS_OUTBOX", f"sqlite+aiosqlite:///{path}")
    return path


async def put(cli: Cli, *device_ids: str) -> None:
    ended = await cli.run("push", cli.file("put.jsonl", lines(*device_ids)), "--spool", "--json")
    assert (ended.code, ended.json["accepted"]) == (0, len(device_ids))


class Notifications:
    """The service manager's side of its socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.all: list[str] = []

    async def wait_for(self, wanted: str) -> str:
        async with asyncio.timeout(REASON_WITHIN_S):
            while True:
                self.read()
                found = [text for text in self.all if wanted in text]
                if found:
                    return found[-1]
                await asyncio.sleep(0.02)

    def read(self) -> list[str]:
        while True:
            try:
                self.all.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return self.all

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def notifications(tmp_path: Path) -> Iterator[Notifications]:
    received = Notifications(tmp_path / "notify")
    yield received
    received.close()


@posix_only
async def test_an_outage_is_told_and_counted_and_is_no_reason_to_restart(
    cli: Cli, sandbox: Sandbox, outbox: Path, notifications: Notifications
) -> None:
    devices = [f"press-{number}" for number in range(_DEVICES)]
    for device_id in devices:
        sandbox.add_device(device_id)
    process = await cli.start(
        *("worker", "--listen", "127.0.0.1:0", "--json"),
        NOTIFY_SOCKET=str(cli.folder / "notify"),
        WATCHDOG_USEC="400000",
    )
    probe = await Probe.of(process)
    await probe.is_ready()
    await notifications.wait_for("READY=1")
    sandbox.set_faults(Faults(server_error=1.0))
    await put(cli, *devices, "nobody")
    assert "PrintOS seems down" in await probe.is_unready("circuit_open")
    assert "PrintOS seems down" in await notifications.wait_for("STATUS=PrintOS")
    text = await probe.get("/readyz", accept="text/plain")
    assert (text.code, text.text) == (503, "circuit_open: PrintOS seems down: it is probed once a second\n")
    async with asyncio.timeout(20):
        while (during := await probe.samples())["printos_outbox_up"] != 1:
            pass  # its counts have not been read yet
    assert (during["printos_ready"], during["printos_circuit_open"]) == (0, 1)
    notifications.all.clear()
    await notifications.wait_for("WATCHDOG=1")  # a restart would not end the outage
    sandbox.set_faults(Faults())
    await sandbox.wait_for(lambda: sandbox.applied_count == _DEVICES)
    await probe.is_ready()
    ends = (f'outcome="sent"}} {_DEVICES}.0', 'outcome="failed"} 1.0', "printos_statuses_pending 0.0")
    await probe.wait_for("/metrics", lambda page: all(end in page.text for end in ends))
    after = await probe.samples()
    assert "device" not in {name for key in after for name in key.split()[1:]}
    process.send_signal(signal.SIGTERM)
    ended = await process.wait()
    assert (ended.code, ended.json["sent"], ended.json["failed"]) == (0, _DEVICES, 1)
    for outcome in ("sent", "superseded", "failed"):
        assert after[f"printos_statuses_total outcome={outcome}"] == ended.json[outcome]
    assert after["printos_statuses_accepted_total"] == _DEVICES + 1
    assert after["printos_statuses_pending"] == after["printos_requests_in_flight"] == 0
    assert after["printos_request_retries_total"] == ended.json["retries"]
    durations = "printos_request_duration_seconds_count"
    of_puts = {key: value for key, value in after.items() if key.startswith(durations)}
    assert sum(of_puts.values()) == sandbox.request_count
    assert of_puts[f"{durations} code=200 operation=updateDeviceStatus"] == _DEVICES
    assert of_puts[f"{durations} code=404 operation=updateDeviceStatus"] == 1
    notified = notifications.read()
    assert notified.count("STOPPING=1") == 1
    # The loop may still beat once while it drains.
    after_stopping = notified[notified.index("STOPPING=1") + 1 :]
    assert all(text.startswith(("STATUS=it is draining", "WATCHDOG=1")) for text in after_stopping)
    assert notified.count("READY=1") == 0  # it was sent once, at the start


async def test_a_postgresql_server_that_is_stopped_is_told(
    cli: Cli,
    sandbox: Sandbox,
    postgres_server: PostgresServer,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PRINTOS_OUTBOX", postgres_url)
    process = await cli.start("worker", "--listen", "127.0.0.1:0", "--json")
    probe = await Probe.of(process)
    await probe.is_ready()
    await asyncio.to_thread(postgres_server.stop)
    assert postgres_server.password not in await probe.is_unready("outbox_unavailable")
    during = await probe.samples()
    assert (during["printos_ready"], during["printos_circuit_open"]) == (0, 0)
    await asyncio.to_thread(postgres_server.start)
    await probe.is_ready()
    await put(cli, "dev-1")
    await sandbox.wait_for(lambda: sandbox.applied_count == 1)
    process.send_signal(signal.SIGTERM)
    ended = await process.wait()
    assert (ended.code, ended.json["sent"]) == (0, 1)
    assert postgres_server.password not in ended.err


@posix_only
async def test_a_held_account_and_a_database_that_is_away_are_told(
    cli: Cli, sandbox: Sandbox, outbox: Path, notifications: Notifications, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(cli, "dev-1")
    monkeypatch.delenv("PRINTOS_SECRET")
    secret = cli.file("secret", "refused")
    secret.chmod(0o600)
    process = await cli.start(
        *("worker", "--listen", "127.0.0.1:0", "--secret-file", secret),
        NOTIFY_SOCKET=str(cli.folder / "notify"),
    )
    probe = await Probe.of(process)
    assert "1 account is held" in await probe.is_unready("account_held")
    assert (await probe.samples())["printos_accounts_held"] == 1
    secret.write_text(SECRET)
    process.send_signal(signal.SIGHUP)
    assert "MONOTONIC_USEC=" in await notifications.wait_for("RELOADING=1")
    await sandbox.wait_for(lambda: sandbox.applied_count == 1)
    await probe.is_ready()
    with closing(sqlite3.connect(outbox, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert "outbox" in await probe.is_unready("outbox_unavailable")
        other.execute("ROLLBACK")
    await probe.is_ready()
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        await probe.get("/livez", timeout_s=0.2)
    process.send_signal(signal.SIGCONT)
    assert (await probe.get("/livez")).code == 200
    process.send_signal(signal.SIGTERM)
    assert (await process.wait()).code == 0
    notified = notifications.read()
    assert notified.index("READY=1") < len(notified) - 1 - notified[::-1].index("READY=1")  # after reloading
    assert not [text for text in notified if text.startswith("WATCHDOG")]  # nobody has asked for it


async def test_a_source_that_is_followed_is_watched_too(cli: Cli, sandbox: Sandbox) -> None:
    process = await cli.start("push", "--follow", "-", "--json", "--listen", "127.0.0.1:0")
    probe = await Probe.of(process)
    await probe.is_ready()
    await process.write(lines("dev-1", "dev-2").encode())
    await probe.wait_for("/metrics", lambda page: 'outcome="sent"} 2.0' in page.text)
    assert not [name for name in await probe.samples() if name.startswith("printos_outbox")]
    ended = await process.wait(b"")
    assert (ended.code, ended.json["sent"]) == (0, 2)


@posix_only
async def test_a_followed_push_announces_that_it_reads_files_again(
    cli: Cli, sandbox: Sandbox, notifications: Notifications
) -> None:
    process = await cli.start("push", "--follow", "-", NOTIFY_SOCKET=str(cli.folder / "notify"))
    await notifications.wait_for("READY=1")
    notifications.all.clear()
    process.send_signal(signal.SIGHUP)
    assert "MONOTONIC_USEC=" in await notifications.wait_for("RELOADING=1")
    await notifications.wait_for("READY=1")
    assert (await process.wait(b"")).code == 0


async def test_files_are_read_again_although_nothing_is_watched_yet() -> None:
    asked: list[None] = []
    Monitor(None).announcing(lambda: asked.append(None))()
    assert len(asked) == 1


async def test_a_loop_that_does_not_turn_is_not_live(sandbox: Sandbox) -> None:
    async with (
        PrintOSClient(sandbox.url, auth=HmacAuth(KEY, SECRET)) as client,
        client.status_pusher() as pusher,
        Monitor(ListenAddress("127.0.0.1", 0), stall_s=0.7) as monitor,
    ):
        url = f"http://{monitor.address}"
        monitor.watch(pusher, lambda: "")
        while get(url + "/livez").code == 200:
            pass  # asked from the event loop, which does not turn meanwhile
        page = get(url + "/readyz")
        assert (page.code, list(page.reasons)) == (503, ["not_started", "stalled"])
        assert get(url + "/metrics").code == 200
        while (await asyncio.to_thread(get, url + "/readyz")).code != 200:
            pass
        assert get(url + "/livez").code == 200


async def test_metrics_come_in_the_format_that_is_asked_for(sandbox: Sandbox) -> None:
    async with Monitor(ListenAddress("127.0.0.1", 0)) as monitor:
        probe = Probe(f"http://{monitor.address}")
        plain = await probe.get("/metrics")
        assert plain.content_type.startswith("text/plain; version=0.0.4")
        assert samples_of(plain.text)["printos_ready"] == 0
        assert "_created" not in plain.text
        wanted = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
        fresh = await probe.get("/metrics", accept=wanted)
        assert fresh.content_type.startswith("application/openmetrics-text; version=1.0.0")
        assert {"printos_ready", "printos_request_retries"} <= {
            family.name
            for family in parse_openmetrics(fresh.text)  # type: ignore[no-untyped-call]
        }
        assert (await probe.get("/readyz")).reasons == {"not_started": "it is starting"}
        assert (await probe.get("/other")).code == 404


async def test_idle_connections_take_a_bounded_number_of_threads() -> None:
    async with Monitor(ListenAddress("127.0.0.1", 0)) as monitor:
        assert monitor.address is not None
        where = (monitor.address.host, monitor.address.port)
        idle = [await asyncio.to_thread(socket.create_connection, where) for _ in range(50)]
        with pytest.raises((OSError, HTTPException)):
            await asyncio.to_thread(get, f"http://{monitor.address}/livez")
        assert sum(thread.name.startswith("Thread-") for thread in threading.enumerate()) < 50
        for connection in idle:
            connection.close()
        async with asyncio.timeout(10):
            while True:
                try:
                    page = await asyncio.to_thread(get, f"http://{monitor.address}/livez")
                except (OSError, HTTPException):
                    continue
                break
        assert page.code == 200


async def test_a_port_in_use_is_said(cli: Cli, sandbox: Sandbox, outbox: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = await cli.run("worker", "--listen", f"127.0.0.1:{port}")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"printos: cannot listen on 127.0.0.1:{port}: ")
    assert ended.err.endswith("; give another --listen\n")


@pytest.mark.parametrize(
    "address", ["", "9464", ":9464", "127.0.0.1", "127.0.0.1:65536", "::1:9464", "[x]:1"]
)
async def test_an_address_that_is_none_is_refused(
    cli: Cli, sandbox: Sandbox, outbox: Path, address: str
) -> None:
    ended = await cli.run("worker", "--listen", address)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "printos: --listen needs HOST:PORT, such as 127.0.0.1:9464 or [::1]:9464\n"


@pytest.mark.parametrize("more", [[], ["--follow", "--spool"]], ids=["bulk", "spool"])
async def test_a_push_that_ends_by_itself_is_not_watched(cli: Cli, sandbox: Sandbox, more: list[str]) -> None:
    ended = await cli.run("push", "-", "--listen", "127.0.0.1:0", *more)
    assert ended.code == 2
    assert "--listen needs --follow" in ended.err


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(CommandError, match=r"pip install 'printos-async\[metrics\]'"):
        ListenAddress.parse("127.0.0.1:9464")


@pytest.mark.parametrize(
    ("text", "is_loopback"),
    [
        ("127.0.0.1:1", True),
        ("localhost:1", True),
        ("LOCALHOST:1", True),
        ("localhost.:1", True),
        ("[::1]:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
    ],
)
def test_an_address_says_whether_other_machines_reach_it(text: str, *, is_loopback: bool) -> None:
    address = ListenAddress.parse(text)
    assert (str(address), address.is_loopback) == (text, is_loopback)


async def test_an_address_that_others_reach_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    async with Monitor(ListenAddress("0.0.0.0", 0)) as monitor:
        assert monitor.address is not None
        assert get(f"http://127.0.0.1:{monitor.address.port}/livez").code == 200
    warning, where = capsys.readouterr().err.splitlines()
    assert warning.startswith("printos: warning: 0.0.0.0:")
    assert "can be reached from other machines" in warning
    assert where.startswith("printos: health and metrics at http://0.0.0.0:")


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets")
def test_a_service_manager_may_listen_on_an_abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("")  # the kernel chooses a free name
        name = listening.getsockname()[1:].decode()
        manager = ServiceManager({"NOTIFY_SOCKET": f"@{name}"})
        manager.open()
        assert manager.notify("READY=1", "STATUS=it works")
        manager.close()
        assert listening.recv(100) == b"READY=1\nSTATUS=it works"


@posix_only
@pytest.mark.parametrize(
    ("env", "watchdog_s"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "3000000"}, 0.0),
        ({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "3000000"}, 3.0),
        ({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"NOTIFY_SOCKET": "vsock:2:1", "WATCHDOG_USEC": "3000000"}, 0.0),
    ],
    ids=["none", "no_socket", "watched", "of_another_process", "of_another_kind"],
)
def test_the_environment_names_the_service_manager(env: dict[str, str], watchdog_s: float) -> None:
    manager = ServiceManager(env)
    assert manager.watchdog_s == watchdog_s
    manager.open()
    assert not manager.notify("READY=1")  # nobody is there, and nothing fails
    manager.close()

"""The server of health and metrics, and its notifications, when something is odd."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
import urllib.request
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from printos_async.cli.monitoring.metrics import Metrics
from printos_async.cli.monitoring.monitor import Heartbeat, Monitor, Sample
from printos_async.cli.monitoring.server import MonitoringServer, find_page
from printos_async.cli.options.listen import ListenAddress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from printos_async.sandbox import Sandbox

    from .conftest import Cli

THREADS = 16


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(Heartbeat(stall_s=1e9))


@pytest.fixture
def server(metrics: Metrics) -> Iterator[MonitoringServer]:
    running = MonitoringServer(ListenAddress("127.0.0.1", 0), metrics)
    yield running
    running.stop()


def is_live(server: MonitoringServer) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"http://{server.address}/livez", timeout=5.0) as answer:
        return bool(answer.status == 200)
    return False


def test_slow_clients_do_not_keep_the_threads(metrics: Metrics) -> None:
    server = MonitoringServer(ListenAddress("127.0.0.1", 0), metrics, timeout_s=0.3)
    with ExitStack() as clients:
        clients.callback(server.stop)
        slow = []
        for _ in range(THREADS):
            client = socket.create_connection((server.address.host, server.address.port))
            slow.append(clients.enter_context(client))
            client.sendall(b"GET /livez HTTP/1.1\r\nX: ")
        ends_s = time.monotonic() + 4.0
        while not (live := is_live(server)) and time.monotonic() < ends_s:
            for client in slow:
                with suppress(OSError):
                    client.sendall(b"x")
        assert live


def test_no_deadline_outlasts_its_connection(server: MonitoringServer) -> None:
    with socket.create_connection((server.address.host, server.address.port)) as client:
        client.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        with client.makefile("rb") as answer:
            assert answer.read().startswith(b"HTTP/1.0 200")
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def test_a_thread_that_cannot_be_started_takes_no_place(
    server: MonitoringServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(THREADS + 1):
            assert not is_live(server)
    assert is_live(server)


def test_a_stalled_event_loop_is_not_ready_in_the_metrics_either() -> None:
    heartbeat = Heartbeat(stall_s=0.0)
    heartbeat.latest = Sample({})
    metrics = Metrics(heartbeat)
    assert find_page(metrics, "/readyz", "")[0] == 503
    assert b"printos_ready 0.0" in find_page(metrics, "/metrics", "")[2]


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=abc",
        "application/openmetrics-text; version=",
        "application/openmetrics-text; version=2.x",
        "application/openmetrics-text; version=1.0.0; escaping=zzz",
        "text/plain; version=1; escaping",
        "a;b=c;d,;,;=",
    ],
)
def test_metrics_answer_whatever_is_accepted(metrics: Metrics, accept: str) -> None:
    status, _, body = find_page(metrics, "/metrics", accept)
    assert status == 200
    assert b"printos_ready" in body


@pytest.mark.parametrize("host", ["a" * 70, "a..b"])
async def test_a_host_that_cannot_be_listened_on_is_named(
    cli: Cli, sandbox: Sandbox, tmp_path: Path, host: str
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/spool.db"
    ended = await cli.run("worker", "--outbox", url, "--listen", f"{host}:9464")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"printos: cannot listen on {host}:9464: ")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX sockets")
@pytest.mark.parametrize("state", ["ready", "starting", "stopping"])
@pytest.mark.parametrize("fails", [False, True], ids=["read", "fails"])
async def test_the_end_of_reloading_is_notified_if_the_service_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, *, fails: bool
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))

    def reload() -> None:
        if fails:
            raise FileNotFoundError

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)

        def notified() -> str:
            return manager.recv(4096).decode().partition("\n")[0]

        async with Monitor(None, reload_s=0.0) as monitor:
            if state != "starting":
                monitor._heartbeat.latest = Sample({})
                monitor._notify(monitor._heartbeat.latest)
                assert notified() == "READY=1"
            if state == "stopping":
                monitor._stopping()
                assert notified() == "STOPPING=1"
            with pytest.raises(FileNotFoundError) if fails else ExitStack():
                monitor.announcing(reload)()
            assert notified() == "RELOADING=1"
            later = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(0.001, later.set_result, None)
            await later
            if state == "ready":
                assert notified() == "READY=1"
            with pytest.raises(BlockingIOError):
                manager.recv(4096)

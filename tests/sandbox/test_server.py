"""The socket, the loop and the process around the application."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trustme

from printos_async import _errors
from printos_async.sandbox import Faults, Sandbox

from .conftest import connected

if TYPE_CHECKING:
    from pathlib import Path

STATUS_PATH = "/devices/dev-1/status"
ON = {"status": "DS_ON"}
OFF = {"status": "DS_OFF"}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("certificate")
    issued = authority.issue_cert("127.0.0.1")
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    return chain, key


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_hung_requests_do_not_keep_the_sandbox_from_stopping() -> None:
    sandbox = Sandbox(faults=Faults(hang=1))
    sandbox.add_device("dev-1")
    async with httpx.AsyncClient() as client:
        async with sandbox:
            hanging = [asyncio.create_task(client.put(sandbox.url + STATUS_PATH, json=ON)) for _ in range(5)]
            await sandbox.wait_for(lambda: sandbox.in_flight == 5)
        ends = await asyncio.gather(*hanging, return_exceptions=True)

    assert {type(end) for end in ends} <= {httpx.ReadError, httpx.RemoteProtocolError}
    assert sandbox.in_flight == 0


async def test_stopping_ends_held_and_slow_requests_without_a_word_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sandbox = Sandbox(faults=Faults(latency_s=3600, operations=("listDevices",)))
    sandbox.add_device("dev-1")
    async with httpx.AsyncClient() as client:
        async with sandbox:
            await sandbox.block()
            waiting = [
                asyncio.create_task(client.put(sandbox.url + STATUS_PATH, json=ON)),
                asyncio.create_task(client.get(sandbox.url + "/devices")),
            ]
            await sandbox.wait_for(lambda: sandbox.in_flight == 2)
        ends = await asyncio.gather(*waiting, return_exceptions=True)

    assert all(isinstance(end, httpx.TransportError) for end in ends)
    assert sandbox.applied_count == 0
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_stopping_drops_writes_that_were_to_come_late() -> None:
    async with Sandbox(faults=Faults(late_write=1, late_write_answers=("504",))) as sandbox:
        sandbox.add_device("dev-1")
        sandbox.set_faults(Faults(late_write=1, late_write_by_s=(60, 60), late_write_answers=("504",)))
        async with connected(sandbox) as client:
            await client.put(STATUS_PATH, json=ON)
        assert sandbox.pending_late_writes == 1

    assert (sandbox.pending_late_writes, sandbox.applied_count) == (0, 0)


async def test_stopped_sandbox_refuses_connections_and_keeps_its_records() -> None:
    async with Sandbox() as sandbox, httpx.AsyncClient() as client:
        await client.get(sandbox.url + "/devices")

    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(sandbox.url + "/devices")
    assert sandbox.request_counts == {("GET", "/devices", 200): 1}


async def test_sandbox_can_come_back_with_what_it_knew() -> None:
    sandbox = Sandbox()
    for _ in range(2):
        async with sandbox, connected(sandbox) as client:
            assert (await client.post("/devices", json={"model": "M"})).status_code == 201

    assert len(sandbox.devices) == 2


async def test_stopped_sandbox_starts_again_on_its_port_with_what_it_knew(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    url = sandbox.url
    assert (await client.put(STATUS_PATH, json=ON)).status_code == 200
    await sandbox.stop()
    with pytest.raises(httpx.ConnectError):
        await client.put(STATUS_PATH, json=OFF)
    await sandbox.start()

    assert sandbox.url == url
    assert (await client.put(STATUS_PATH, json=OFF)).status_code == 200
    assert [write.status for write in sandbox.applied] == [ON, OFF]


async def test_sandbox_starts_and_stops_without_a_block() -> None:
    sandbox = Sandbox()
    await sandbox.stop()
    await sandbox.start()
    with pytest.raises(RuntimeError, match="running already"):
        await sandbox.start()
    async with httpx.AsyncClient() as client:
        assert (await client.get(sandbox.url + "/devices")).status_code == 200
    await sandbox.stop()


async def test_tokens_and_changed_keys_survive_a_stop() -> None:
    async with Sandbox(logins={"shop": "pass"}) as sandbox, httpx.AsyncClient() as client:
        credentials = {"login": "shop", "password": "pass"}
        answer = await client.post(sandbox.url + "/api/aaa/v1/devices/login", json=credentials)
        token = {"Indigo-SmS-Auth-Token": answer.json()["authToken"]}
        await sandbox.stop()
        await sandbox.start()

        assert (await client.get(sandbox.url + "/devices", headers=token)).status_code == 200


async def test_another_sandbox_can_take_over_the_port() -> None:
    async with Sandbox() as first, connected(first) as client:
        await client.get("/devices")
        port = first.port
    async with Sandbox(port=port) as second, connected(second) as client:
        assert (await client.get("/devices")).status_code == 200


async def test_missing_certificate_is_an_oserror_and_leaves_nothing_open(tmp_path: Path) -> None:
    sandbox = Sandbox(certfile=tmp_path / "missing.pem")
    with pytest.raises(FileNotFoundError):
        await sandbox.__aenter__()
    with pytest.raises(RuntimeError, match="before it is entered"):
        _ = sandbox.port


async def test_request_that_breaks_off_in_its_body_is_not_served(sandbox: Sandbox) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
    head = b"PUT /devices/dev-1/status HTTP/1.1\r\nhost: sandbox\r\ncontent-type: application/json\r\n"
    writer.write(head + b"content-length: 100\r\n\r\n{}")
    await sandbox.wait_for(lambda: sandbox.in_flight == 1)
    writer.close()

    await sandbox.wait_for(lambda: sandbox.in_flight == 0)

    assert await reader.read() == b""
    assert (sandbox.applied_count, sandbox.requests[0].status) == (0, None)


async def test_port_in_use_is_an_oserror() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        sandbox = Sandbox(port=taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            await sandbox.__aenter__()


async def test_running_sandbox_cannot_be_entered_again(sandbox: Sandbox) -> None:
    with pytest.raises(RuntimeError, match="running already"):
        await sandbox.__aenter__()


def test_sandbox_that_never_ran_has_no_address() -> None:
    with pytest.raises(RuntimeError, match="before it is entered"):
        _ = Sandbox().url


@pytest.mark.parametrize(
    "settings", [{"keyfile": "key.pem"}, {"record_limit": 0}, {"token_lifetime_requests": 0}]
)
def test_impossible_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(_errors.ConfigurationError, match=next(iter(settings))):
        Sandbox(**settings)


async def test_signals_and_loggers_stay_as_they_were() -> None:
    def process() -> list[object]:
        loggers = [logging.getLogger(name) for name in (None, "uvicorn", "uvicorn.access", "uvicorn.error")]
        settings = [(log.level, list(log.handlers), log.propagate, log.disabled) for log in loggers]
        return [*settings, signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)]

    before = process()
    async with Sandbox() as sandbox, httpx.AsyncClient() as client:
        await client.get(sandbox.url + "/devices")
        during = process()

    assert before == during == process()


async def test_no_task_is_left_behind() -> None:
    before = asyncio.all_tasks()
    async with Sandbox() as sandbox, httpx.AsyncClient() as client:
        await client.get(sandbox.url + "/devices")

    assert asyncio.all_tasks() == before


async def test_tls_with_a_trusted_certificate(authority: trustme.CA, certificate: tuple[Path, Path]) -> None:
    async with Sandbox(certfile=certificate[0], keyfile=certificate[1]) as sandbox:
        assert sandbox.url.startswith("https://127.0.0.1:")
        async with httpx.AsyncClient(base_url=sandbox.url, verify=trusting(authority)) as client:
            assert (await client.get("/devices")).status_code == 200
        async with httpx.AsyncClient(base_url=sandbox.url) as stranger:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await stranger.get("/devices")


async def test_faults_work_over_tls_and_do_not_keep_it_from_stopping(
    authority: trustme.CA, certificate: tuple[Path, Path]
) -> None:
    sandbox = Sandbox(certfile=certificate[0], keyfile=certificate[1])
    sandbox.add_device("dev-1")
    async with httpx.AsyncClient(verify=trusting(authority)) as client:
        async with sandbox:
            sandbox.inject("reset_before")
            with pytest.raises(httpx.ReadError):
                await client.put(sandbox.url + STATUS_PATH, json=ON)
            sandbox.inject("truncated")
            with pytest.raises(httpx.RemoteProtocolError):
                await client.put(sandbox.url + STATUS_PATH, json=ON)
            assert (await client.put(sandbox.url + STATUS_PATH, json=OFF)).status_code == 200
            sandbox.inject("hang_before")
            hanging = asyncio.create_task(client.put(sandbox.url + STATUS_PATH, json=ON))
            await sandbox.wait_for(lambda: sandbox.in_flight == 1)
        with pytest.raises(httpx.TransportError):
            await hanging

    assert [applied.status for applied in sandbox.applied] == [ON, OFF]


async def test_silent_client_does_not_keep_a_tls_sandbox_from_stopping(
    certificate: tuple[Path, Path],
) -> None:
    async with Sandbox(certfile=certificate[0], keyfile=certificate[1]) as sandbox:
        _, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
        async with asyncio.timeout(10):
            await sandbox.__aexit__(None, None, None)
    writer.close()


async def test_connections_are_kept_alive_and_counted(sandbox: Sandbox, client: httpx.AsyncClient) -> None:
    for _ in range(3):
        await client.get("/devices")

    assert (sandbox.connections_count, sandbox.open_connections) == (1, 1)
    await client.aclose()
    await sandbox.wait_for(lambda: sandbox.open_connections == 0)


async def test_answers_are_not_held_back_for_acknowledgements(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    await client.get("/devices")

    assert sandbox._server is not None
    (connection,) = sandbox._server._server.server_state.connections
    accepted = connection.transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_idle_connection_is_closed_after_keep_alive_s() -> None:
    async with Sandbox(keep_alive_s=0) as sandbox:
        reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
        writer.write(b"GET /devices HTTP/1.1\r\nhost: sandbox\r\n\r\n")
        answer = await reader.read()
        writer.close()

    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_app_serves_httpx_without_a_socket() -> None:
    sandbox = Sandbox()
    sandbox.add_device("dev-1")
    transport = httpx.ASGITransport(app=sandbox.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as client:
        assert (await client.put(STATUS_PATH, json=ON)).status_code == 200
        sandbox.inject("rate_limited")
        assert (await client.put(STATUS_PATH, json=ON)).status_code == 429
        for kind in ("reset_before", "reset_after", "truncated"):
            sandbox.inject(kind)
            with pytest.raises(ConnectionResetError):
                await client.put(STATUS_PATH, json=ON)
        sandbox.inject("hang_before")
        hanging = asyncio.create_task(client.put(STATUS_PATH, json=ON))
        await sandbox.wait_for(lambda: sandbox.in_flight == 1)
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging

    assert sandbox.applied_count == 3
    assert sandbox.in_flight == 0


@pytest.mark.parametrize("module", ["starlette", "uvicorn"])
async def test_missing_extra_is_named(module: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", f"import sys; sys.modules['{module}'] = None; import printos_async.sandbox"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, output = await process.communicate()

    assert process.returncode == 1
    assert "pip install 'printos-async[sandbox]'" in output.decode().splitlines()[-1]

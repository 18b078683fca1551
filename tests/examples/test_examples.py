"""The examples as a user runs them: as processes, against a sandbox on a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from printos_async.sandbox import Faults, Sandbox
from tests.processes import listening_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
KEY, SECRET = "testkey123", "testsecret456"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(hmac_keys={KEY: SECRET}) as sandbox:
        sandbox.add_device("dev-1")
        sandbox.add_device("dev-2")
        yield sandbox


@asynccontextmanager
async def running(name: str, *arguments: str, sandbox: Sandbox) -> AsyncIterator[asyncio.subprocess.Process]:
    credentials = {"PRINTOS_BASE_URL": sandbox.url, "PRINTOS_KEY": KEY, "PRINTOS_SECRET": SECRET}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / name),
        *arguments,
        env=os.environ | credentials,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def rest_of_output(process: asyncio.subprocess.Process) -> str:
    async with asyncio.timeout(30):
        output, _ = await process.communicate()
    return output.decode()


async def test_the_minute_service_pushes_again_and_again_and_ends_on_sigterm(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    fleet = tmp_path / "fleet.jsonl"
    lines = [
        json.dumps({"deviceId": "dev-1", "status": "DS_PRINTING", "metrics": {"pagesTotal": 12}}),
        "no JSON",
        json.dumps({"deviceId": "dev-2", "status": "DS_ON"}),
        json.dumps({"deviceId": "gone", "status": "DS_ON"}),
    ]
    fleet.write_bytes("\n".join(lines).encode() + b"\n\xff")
    async with running("push_every_minute.py", str(fleet), "--every-s", "0.05", sandbox=sandbox) as process:
        await sandbox.wait_for(lambda: sandbox.applied_count >= 6, timeout_s=30)
        process.send_signal(signal.SIGTERM)
        output = await rest_of_output(process)
    assert process.returncode == 0, output
    assert sandbox.devices["dev-1"].status == {"status": "DS_PRINTING", "metrics": {"pagesTotal": 12}}
    assert sandbox.devices["dev-2"].status == {"status": "DS_ON"}
    assert "2 sent, 1 failed" in output
    assert "gone: PUT /devices/gone/status: 404" in output
    assert "line 2 of" in output
    assert "line 5 of" in output
    assert output.endswith("ended\n")
    assert SECRET not in output


async def test_the_minute_service_gives_a_push_under_way_a_moment_to_end(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    fleet = tmp_path / "fleet.jsonl"
    fleet.write_text(json.dumps({"deviceId": "dev-1", "status": "DS_ON"}), "utf-8")
    await sandbox.block()
    async with running("push_every_minute.py", str(fleet), sandbox=sandbox) as process:
        await sandbox.wait_for(lambda: sandbox.in_flight == 1, timeout_s=30)
        process.send_signal(signal.SIGTERM)
        await sandbox.release()
        output = await rest_of_output(process)
    assert process.returncode == 0, output
    assert "1 sent, 0 failed" in output
    assert sandbox.applied_count == 1


async def test_the_fastapi_service_owns_one_client_from_start_to_end(sandbox: Sandbox) -> None:
    async with running("fastapi_service.py", "--port", "0", sandbox=sandbox) as process:
        url = await listening_url(process)
        async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
            reading = {"device_id": "dev-1", "status": "DS_ON", "pages_total": 12, "ink_level": 0.5}
            one = await http.put("/status", json=reading)
            unknown = await http.put("/status", json=reading | {"device_id": "gone"})
            unsendable = await http.put("/status", json=reading | {"device_id": ".."})
            both = [reading | {"pages_total": 13}, reading | {"device_id": "dev-2"}]
            fleet = await http.put("/statuses", json=[*both, reading | {"device_id": "gone"}])
            sandbox.set_faults(Faults(malformed_kinds=("html",)))
            sandbox.inject("malformed")
            upstream = await http.get("/presses")
            listed = await http.get("/presses")
        connections = sandbox.connections_count
        process.send_signal(signal.SIGTERM)
        output = await rest_of_output(process)
    assert (one.status_code, unknown.status_code, unsendable.status_code) == (204, 404, 422)
    assert upstream.status_code == 502
    assert fleet.json()["sent"] == 2
    assert list(fleet.json()["failures"]) == ["gone"]
    assert [press["id"] for press in listed.json()] == ["dev-1", "dev-2"]
    assert sandbox.devices["dev-1"].status == {
        "status": "DS_ON",
        "metrics": {"pagesTotal": 13, "inkLevel": 0.5},
    }
    # The three of the fleet go out at once; all that came one after the other shared a connection.
    assert connections <= 4
    assert "Application shutdown complete" in output

"""Interpreters that used a client end without a word."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

import pytest

from .scripted import ScriptedServer, always

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Tls

RUNS = 10 if os.environ.get("PRINTOS_LONG_TESTS") else 4
SCRIPT = """
import asyncio, ssl, sys
from printos_async import DeviceStatusUpdate, HmacAuth, PrintOSClient, PrintOSError

async def main(url, certificate, closes):
    verify = ssl.create_default_context(cafile=certificate)
    client = PrintOSClient(url, auth=HmacAuth("key", "secret"), verify=verify)
    on = DeviceStatusUpdate(status="DS_ON")
    report = await client.push_statuses((f"dev-{number}", on) for number in range(50))
    report.raise_for_failures()
    left = asyncio.create_task(client.update_device_status("dev-slow", on))
    await asyncio.sleep(0)
    if closes:
        await client.aclose()
        try:
            await left
        except PrintOSError:
            pass

asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3] == "closes"))
"""


@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_interpreter_ends_cleanly(tls: Tls, tmp_path: Path, secure: bool) -> None:  # noqa: FBT001
    certificate = tmp_path / "authority.pem"
    tls.authority.cert_pem.write_to_path(certificate)
    empty = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    async with ScriptedServer(always(empty), tls.server if secure else None) as server:

        async def run(end: str) -> tuple[int | None, bytes]:
            warn = () if end == "forgets" else ("-W", "always::ResourceWarning")
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *warn,
                "-c",
                SCRIPT,
                str(server.origin),
                str(certificate),
                end,
                stderr=asyncio.subprocess.PIPE,
            )
            _, errors = await process.communicate()
            return process.returncode, errors

        async with asyncio.timeout(60):
            for _ in range(RUNS // 2):
                assert {*await asyncio.gather(run("closes"), run("forgets"))} == {(0, b"")}
        assert len([r for r in server.requests if "slow" not in r.target]) == RUNS * 50

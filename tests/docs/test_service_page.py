"""The page about a whole service: its tests pass, and its service drains when it is told to stop."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import httpx
import pytest

from printos_async.sandbox import Sandbox
from tests.processes import listening_url

PAGE = Path(__file__).resolve().parents[2] / "docs" / "service.md"
READING = {"status": "DS_PRINTING", "pages_total": 1200, "ink_level": 0.4}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = r"^```(?:python|ini)\n(# ([\w.]+)\n.*?)^```$"
    for block, name in re.findall(files, PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        (tmp_path / name).write_text(block, "utf-8")
    return tmp_path


async def start(folder: Path, *arguments: str, **variables: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments),
        cwd=folder,
        env=os.environ | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def test_the_tests_on_the_page_pass(folder: Path) -> None:
    process = await start(folder, "pytest", "-W", "error", "test_service.py")
    async with asyncio.timeout(90):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert "4 passed" in output.decode()


async def test_the_service_sends_what_it_has_when_it_is_told_to_stop(folder: Path) -> None:
    async with Sandbox(hmac_keys={"key": "secret"}) as sandbox:
        sandbox.add_device("dev-1")
        await sandbox.block()
        service = await start(
            folder,
            *("uvicorn", "service:make_app", "--factory", "--port", "0"),
            PRINTOS_BASE_URL=sandbox.url,
            PRINTOS_KEY="key",
            PRINTOS_SECRET="secret",
        )
        try:
            async with httpx.AsyncClient(base_url=await listening_url(service), trust_env=False) as http:
                answer = await http.put("/presses/dev-1/status", json=READING)
                assert answer.status_code == 202
                await sandbox.wait_for(lambda: sandbox.in_flight == 1, timeout_s=30)
                health = await http.get("/health")
            assert health.json() == {"reasons": {}, "pending": 1, "failed": 0}
            service.send_signal(signal.SIGTERM)
            await sandbox.release()
            async with asyncio.timeout(30):
                output, _ = await service.communicate()
        finally:
            if service.returncode is None:
                service.kill()
                await service.communicate()
        assert sandbox.applied_count == 1
        assert b"Application shutdown complete" in output

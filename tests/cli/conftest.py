from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
from attrs import define, field

from printos_async.cli import main
from printos_async.sandbox import Sandbox

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncIterator
    from pathlib import Path

KEY, SECRET = "cli-key", "cli-secret-5f1e"
_PROGRAM = (sys.executable, "-c", "from printos_async.cli import main; raise SystemExit(main())")


@define
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@define
class Running:
    process: asyncio.subprocess.Process
    complaints: list[str] = field(factory=list, init=False)

    async def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        await self.process.stdin.drain()

    async def read_line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            return (await self.process.stdout.readline()).decode()

    async def complaint(self, wanted: str = "") -> str:
        """Return the next line of standard error with the wanted text; ``complaints`` keeps all that were read."""
        assert self.process.stderr is not None
        async with asyncio.timeout(20):
            while text := (await self.process.stderr.readline()).decode():
                self.complaints.append(text)
                if wanted in text:
                    return text
        pytest.fail(f"nothing was said of {wanted!r}: {self.complaints}")

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def wait(self, data: bytes | None = None) -> Ended:
        async with asyncio.timeout(30):
            out, err = await self.process.communicate(data)
        assert self.process.returncode is not None
        return Ended(self.process.returncode, out.decode(), (err or b"").decode())

    async def wait_without_closing_input(self) -> Ended:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        async with asyncio.timeout(30):
            out, err, code = await asyncio.gather(
                self.process.stdout.read(), self.process.stderr.read(), self.process.wait()
            )
        assert self.process.stdin is not None
        self.process.stdin.close()
        return Ended(code, out.decode(), err.decode())


class Cli:
    """Runs the command: as a process of its own, or in a thread where the process does not matter."""

    def __init__(self, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self._capsys = capsys
        self._started: list[asyncio.subprocess.Process] = []
        self.folder = folder

    async def run(self, *args: object) -> Ended:
        code = await asyncio.to_thread(main, [str(arg) for arg in args])
        captured = self._capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    async def start(self, *args: object, stderr: int = asyncio.subprocess.PIPE, **env: str) -> Running:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *_PROGRAM, *map(str, args), stdin=pipe, stdout=pipe, stderr=stderr, env={**os.environ, **env}
        )
        self._started.append(process)
        return Running(process)

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    async def end_all(self) -> None:
        for process in self._started:
            if process.returncode is None:
                process.kill()
                await process.communicate()


@pytest.fixture(autouse=True)
def _no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("PRINTOS_"):
            monkeypatch.delenv(name)
    for name in ("FORCE_COLOR", "PYTHONUNBUFFERED", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> AsyncIterator[Cli]:
    cli = Cli(capsys, tmp_path)
    yield cli
    await cli.end_all()


@pytest.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sandbox]:
    """A server that checks signatures, with three devices, to which the environment points."""
    async with Sandbox(hmac_keys={KEY: SECRET}) as sandbox:
        for number in (1, 2, 3):
            sandbox.add_device(f"dev-{number}")
        monkeypatch.setenv("PRINTOS_BASE_URL", sandbox.url)
        monkeypatch.setenv("PRINTOS_KEY", KEY)
        monkeypatch.setenv("PRINTOS_SECRET", SECRET)
        yield sandbox

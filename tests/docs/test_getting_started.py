"""The page for newcomers works from top to bottom: every program and every command, in one folder."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
import tomllib
from pathlib import Path

import pytest
from attrs import define, field

from printos_async.sandbox import Sandbox

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "getting-started.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
PROGRAM = "from printos_async.cli import main; raise SystemExit(main())"


@define
class Terminal:
    """The second terminal of the page: a folder, and what was exported."""

    folder: Path
    environment: dict[str, str]
    printed: str = ""
    ran: list[str] = field(factory=list)

    async def start(self, line: str) -> asyncio.subprocess.Process:
        self.ran.append(line)
        name, *arguments = shlex.split(line)
        program = [sys.executable, "-W", "error", *({"python": [], "printos": ["-c", PROGRAM]}[name])]
        return await asyncio.create_subprocess_exec(
            *program,
            *arguments,
            cwd=self.folder,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, line: str) -> None:
        process = await self.start(line)
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        self.printed += out.decode()


async def test_the_page_runs_from_top_to_bottom(tmp_path: Path) -> None:
    programs: set[str] = set()
    async with Sandbox() as sandbox:
        terminal = Terminal(
            tmp_path, {name: value for name, value in os.environ.items() if "PRINTOS" not in name}
        )
        for language, block in BLOCKS:
            if language == "python":
                [name] = re.findall(r"\A# (\w+\.py)$", block, re.MULTILINE)
                (tmp_path / name).write_text(block, "utf-8")
                programs.add(f"python {name}")
            elif language == "text":
                assert terminal.printed == block
            else:
                terminal.printed = ""
                for line in block.splitlines():
                    await follow(line, terminal, sandbox)
        assert programs <= set(terminal.ran)
        statuses = {device.status["status"] for device in sandbox.devices.values() if device.status}
        assert (len(sandbox.devices), statuses) == (20, {"DS_STANDBY"})


async def follow(line: str, terminal: Terminal, sandbox: Sandbox) -> None:
    if line.startswith("export "):
        name, _, value = line.removeprefix("export ").partition("=")
        terminal.environment[name] = value.replace("http://127.0.0.1:8000", sandbox.url)
    elif line.startswith("printos worker "):
        applied_count = sandbox.applied_count
        worker = await terminal.start(line)
        try:
            await sandbox.wait_for(lambda: sandbox.applied_count >= applied_count + 20, timeout_s=60)
        finally:
            worker.send_signal(signal.SIGINT)
            _, err = await worker.communicate()
        assert worker.returncode == 0, err.decode()
    elif line.startswith(("python ", "printos check", "printos outbox ")):
        await terminal.run(line)
    else:
        # The environment is there already, and the sandbox too: the one above, on a port of its own.
        assert line in ONLY_SHOWN


ONLY_SHOWN = [
    "python3 -m venv .venv",
    ". .venv/bin/activate",
    "pip install 'printos-async[cli,sandbox,sql]'",
    "printos sandbox",
]


@pytest.mark.parametrize("line", ONLY_SHOWN)
def test_what_the_tests_leave_out_is_on_the_page(line: str) -> None:
    assert line in "".join(block for language, block in BLOCKS if language == "sh").splitlines()


def test_the_extras_that_a_newcomer_installs_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    [extras] = {found for line in ONLY_SHOWN for found in re.findall(r"\[(.*)\]", line)}
    assert set(extras.split(",")) <= set(project["optional-dependencies"])

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text()


async def run(example: str) -> tuple[int | None, list[str]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", example),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode().splitlines()


def example_with(words: str) -> str:
    blocks: list[str] = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    (example,) = [block for block in blocks if "asyncio.run(" in block and words in block]
    return example


async def test_example_of_the_page_runs_as_printed() -> None:
    assert await run(example_with("rate_limited")) == (0, ["429 200", "['rate_limited', None]"])


async def test_example_of_credentials_prints_what_stands_below_it() -> None:
    (shown,) = re.findall(r"```text\n(.*?)```", PAGE, flags=re.DOTALL)

    assert await run(example_with("device_logins")) == (0, shown.splitlines())

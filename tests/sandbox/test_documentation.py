from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "sandbox.md"


async def test_example_of_the_page_runs_as_printed() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    (example,) = [block for block in blocks if "asyncio.run(" in block]

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", example),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()

    assert (process.returncode, output.decode().splitlines()) == (0, ["429 200", "['rate_limited', None]"])

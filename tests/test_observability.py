from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import get_args

import attrs
import pytest

from printos_async import Event

PAGE = (Path(__file__).parents[1] / "docs" / "observability.md").read_text("utf-8")
# Each program of the page, with what the page says that it prints.
PROGRAMS = re.findall(
    r"^```python\n([^`]*asyncio\.run\([^`]*)^```\n\nprints\n\n```text\n(.*?)^```",
    PAGE,
    re.DOTALL | re.MULTILINE,
)


def test_the_page_has_a_program_for_the_log_and_one_for_opentelemetry() -> None:
    assert len(PROGRAMS) == PAGE.count("asyncio.run(") == 2


@pytest.mark.parametrize(("program", "printed"), PROGRAMS, ids=["logging", "opentelemetry"])
async def test_a_program_of_the_page_prints_what_the_page_says(program: str, printed: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", program),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert (process.returncode, output.decode()) == (0, printed)


def test_the_page_lists_every_event_with_its_fields() -> None:
    rows = re.findall(r"^\| `([A-Z]\w+)` \| .* \| (.*) \|$", PAGE, re.MULTILINE)
    listed = {name: re.findall(r"`(\w+)`", fields) for name, fields in rows}
    assert listed == {
        event.__name__: [field.name for field in attrs.fields(event)] for event in get_args(Event)
    }

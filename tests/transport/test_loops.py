"""A visible sign of whether the tests here ran on uvloop too."""

from __future__ import annotations

import asyncio

import pytest


async def test_uvloop_is_among_the_loops(request: pytest.FixtureRequest) -> None:
    uvloop = pytest.importorskip(
        "uvloop", reason="uvloop is not installed: the wires were tested on asyncio only"
    )
    is_uvloop = isinstance(asyncio.get_running_loop(), uvloop.Loop)
    assert is_uvloop == ("[uvloop" in request.node.name)

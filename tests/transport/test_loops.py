"""The tests of this folder run on every event loop that is installed."""

from __future__ import annotations

import asyncio

import pytest

from .conftest import pytest_asyncio_loop_factories


async def test_each_test_runs_on_the_loop_that_its_identifier_names(request: pytest.FixtureRequest) -> None:
    pytest.importorskip("uvloop", reason="uvloop is not installed: the transport was tested on asyncio only")
    factories = pytest_asyncio_loop_factories(request.config, request.node)
    assert {"asyncio", "uvloop"} == set(factories)
    [named] = [name for name in factories if f"[{name}" in request.node.name]
    assert type(asyncio.get_running_loop()).__module__.partition(".")[0] == named

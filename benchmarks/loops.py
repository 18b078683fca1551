"""Event loops and cores on which the measurements run."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

Loop = Literal["asyncio", "uvloop"]


def has_uvloop() -> bool:
    """Return whether uvloop is installed; it has no build for Windows."""
    return importlib.util.find_spec("uvloop") is not None


def available_loops() -> tuple[Loop, ...]:
    """Return the loops that can be measured here."""
    return ("asyncio", "uvloop") if has_uvloop() else ("asyncio",)


def loop_factory(loop: Loop) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the factory of an event loop."""
    if loop == "uvloop":
        import uvloop  # noqa: PLC0415 - optional

        return uvloop.new_event_loop
    return asyncio.new_event_loop


def fastest_loop() -> Loop:
    """Return the fastest available loop, for processes that must not be the bottleneck."""
    return "uvloop" if has_uvloop() else "asyncio"


def pin_to(core: int | None) -> None:
    """Keep this process on one core; does nothing for None, or where the system does not support it."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def pick_cores() -> tuple[int | None, int | None]:
    """Return a core for the server and another for the client; None for both if there are not two."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[-1]) if len(cores) > 1 else (None, None)

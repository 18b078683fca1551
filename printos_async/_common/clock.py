"""Clocks of the machine: the wall clock, which may be stepped, and the time since boot, which is not."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def _boot_clock() -> Callable[[], float] | None:
    """Return the clock of the seconds since the machine was booted, suspend included; None if there is none."""
    if sys.platform != "linux":
        return None
    clock = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    try:
        clock()
    except OSError:
        return None
    return clock


_boot_s = _boot_clock()
# Seconds since some moment. It is never stepped, and where the system has such a clock it runs on through suspend:
# ``time.monotonic()`` stands still there on Linux, and a worker would go on to believe in a lease that has ended.
steady_s = _boot_s or time.monotonic


@frozen(kw_only=True)
class MachineClock:
    """The clocks of one machine.

    Attributes:
        wall_s: Returns the seconds since 1970. May be set back or forward.
        since_boot_s: Returns the seconds since the machine was booted. Never stepped, and the same in every process.
        boot_id: Identifies the boot from which ``since_boot_s`` counts; None if there is no such clock.
    """

    wall_s: Callable[[], float]
    since_boot_s: Callable[[], float]
    boot_id: str | None


def machine_clock() -> MachineClock:
    """Return the clocks of this machine."""
    try:
        boot_id = _BOOT_ID.read_text("ascii").strip() or None
    except (OSError, ValueError):
        boot_id = None
    return MachineClock(wall_s=time.time, since_boot_s=steady_s, boot_id=boot_id if _boot_s else None)

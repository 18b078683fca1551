"""Looks at a socket without reading from it."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def make_probe(descriptor: int) -> Callable[[], bool]:
    """Make what tells, in a third of a microsecond, whether a socket has something to be read."""
    if hasattr(select, "poll"):
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return lambda: bool(poller.poll(0))
    return lambda: bool(select.select((descriptor,), (), (), 0)[0])  # Windows

"""Recognizes new deliveries among completions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .protocol import Finish


class NewDeliveries:
    """Finds the devices that were delivered now.

    A worker completes a status that it delivered with ``Finish.keep`` once more when it forgets the device, perhaps an
    hour later. That is no delivery.
    """

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def find(self, finished: Iterable[Finish]) -> list[str]:
        """Return the devices of completions that report a delivery for the first time."""
        known = self._known
        found = []
        for one in finished:
            if one.error is None:
                if known.pop(one.device_id, None) != one.seq:
                    found.append(one.device_id)
                if one.keep:
                    known[one.device_id] = one.seq
        return found

    def expect(self, device_id: str, seq: int) -> None:
        """Do not take the next completion of this status for a delivery."""
        self._known[device_id] = seq

    def clear(self) -> None:
        """Forget kept devices: their worker has ended."""
        self._known.clear()

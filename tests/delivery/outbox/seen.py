"""What a sandbox says of one device."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from printos_async import PusherStats
    from printos_async.sandbox import Sandbox


def pages(sandbox: Sandbox, device_id: str) -> int:
    """Return the page count of a device; -1 without one."""
    found = sandbox.devices[device_id].status
    return -1 if found is None else int(found["metrics"]["pagesTotal"])


def applied(sandbox: Sandbox, device_id: str) -> list[int]:
    return [
        write.status["metrics"]["pagesTotal"] for write in sandbox.applied if write.device_id == device_id
    ]


def asked_s(sandbox: Sandbox, device_id: str) -> list[float]:
    """Return the times of the requests for a device."""
    return [request.at_s for request in sandbox.requests if request.device_id == device_id]


def adds_up(stats: PusherStats) -> bool:
    settled = stats.sent + stats.superseded + stats.failed
    return stats.accepted == settled + stats.pending and min(stats.pending, stats.accepted) >= 0

"""Last deliveries of the devices of a ``MemoryOutbox``, as in ``sql.statements.deliveries``."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from .administration import DeviceDelivery

if TYPE_CHECKING:
    from .memory_rows import TenantRows


def page_of_devices(
    state: TenantRows, now: float, silent_for_s: float, limit: int, after: str
) -> list[DeviceDelivery]:
    """Return a page as ``OutboxAdministration.devices``."""
    silent_since = now - silent_for_s

    def is_chosen(device_id: str) -> bool:
        if device_id in state.deliveries:
            return state.deliveries[device_id] <= silent_since
        row = state.rows[device_id]
        has_failed = row.error is not None
        return row.is_dead or (row.waits and (has_failed or row.waiting_since <= silent_since))

    known = {device_id for device_id in (*state.deliveries, *state.rows) if device_id > after}
    return [_device(state, now, device_id) for device_id in heapq.nsmallest(limit, filter(is_chosen, known))]


def _device(state: TenantRows, now: float, device_id: str) -> DeviceDelivery:
    row, delivered_at = state.rows.get(device_id), state.deliveries.get(device_id)
    waits, error = row is not None and row.waits, None if row is None else row.error
    return DeviceDelivery(
        device_id=device_id,
        delivered_age_s=None if delivered_at is None else now - delivered_at,
        waiting_s=now - row.waiting_since if row is not None and waits else None,
        failed_age_s=now - row.done_at if row is not None and error is not None else None,
        error=error,
    )


def purge_deliveries(state: TenantRows, until: float) -> int:
    """Forget the deliveries of devices without a row up to a time; return how many there were."""
    gone = [
        device_id
        for device_id, delivered_at in state.deliveries.items()
        if delivered_at <= until and device_id not in state.rows
    ]
    for device_id in gone:
        del state.deliveries[device_id]
    return len(gone)

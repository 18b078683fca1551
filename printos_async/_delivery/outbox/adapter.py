"""Between a backend and its outbox: opens it for a tenant, and converts claims to pending statuses and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

from printos_async._delivery.device_state import PendingStatus
from printos_async.outbox.protocol import Release

if TYPE_CHECKING:
    from printos_async._api.requests import Operations
    from printos_async._config import Tenant
    from printos_async._delivery.device_state import DeliveryPolicy, DeviceState
    from printos_async.outbox import Claim, Kept, LabellingOutbox, Outbox


async def open_outbox(outbox: Outbox, tenant: Tenant) -> None:
    """Open an outbox for a tenant; one that lists its tenants gets label and host, too."""
    if _lists_tenants(outbox):
        await outbox.open(tenant.account, label=tenant.label, host=tenant.host)
    else:
        await outbox.open(tenant.account)


def _lists_tenants(outbox: Outbox) -> TypeGuard[LabellingOutbox]:
    return callable(getattr(outbox, "tenants", None))


def claimed_status(claim: Claim, operations: Operations, *, now_s: float) -> PendingStatus:
    """Return a claim as a pending status.

    Raises:
        InvalidDeviceIdError: The outbox holds an identifier that would change the request's path.
    """
    call = operations.stored_status(claim.device_id, claim.body)
    return PendingStatus(claim.seq, claim.device_id, call, now_s - claim.waited_s, claim.attempts)


def uncertain_until_s(claim: Claim | Kept, policy: DeliveryPolicy, *, now_s: float) -> float | None:
    """Return the time until which another worker's write may still land on a claimed device; None without one."""
    return None if claim.uncertain_age_s is None else now_s + policy.ambiguity_s - claim.uncertain_age_s


def release_of(device: DeviceState, *, now_s: float, timeout_s: float) -> Release:
    """Return the release of a device whose newest status was not sent."""
    pending = device.in_flight or device.waiting
    uncertain_in_s = 0.0 if device.is_uncertain(now_s) else None
    if device.in_flight is not None:
        uncertain_in_s = timeout_s
    # Those that failed with the whole host do not count for the worker that claims it, either.
    attempts = 0 if pending is None else pending.attempts - pending.exempt_attempts
    return Release(device.device_id, max(0.0, device.not_before_s - now_s), attempts, uncertain_in_s)

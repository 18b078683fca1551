"""Opens an outbox for a client's tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    from printos_async._config import Tenant
    from printos_async.outbox import LabellingOutbox, Outbox


async def open_outbox(outbox: Outbox, tenant: Tenant) -> None:
    """Open an outbox for a tenant; one that lists its tenants gets label and host, too."""
    if _lists_tenants(outbox):
        await outbox.open(tenant.account, label=tenant.label, host=tenant.host)
    else:
        await outbox.open(tenant.account)


def _lists_tenants(outbox: Outbox) -> TypeGuard[LabellingOutbox]:
    return callable(getattr(outbox, "tenants", None))

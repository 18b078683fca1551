"""Tenants of an outbox: finding one by what an operator types, and the warning about those that nobody sends for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from printos_async._errors import ConfigurationError, OutboxError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .administration import TenantStats

_log = logging.getLogger("printos_async.outbox")

# The event of the warning's log record.
OTHERS_WAIT = "OtherTenantsWait"


def find_tenant(tenants: Iterable[TenantStats], wanted: str) -> TenantStats:
    """Return the other tenant that ``wanted`` names: by its fingerprint, its label or the fingerprint's beginning.

    Raises:
        ConfigurationError: There is none, there are several, or it is the own one.
    """
    known = list(tenants)
    found = (
        [one for one in known if one.account == wanted]
        or [one for one in known if one.label == wanted != ""]
        or [one for one in known if one.account.startswith(wanted) and wanted]
    )
    if not found:
        raise ConfigurationError(
            f"the outbox has no account {wanted!r}; `printos outbox accounts` lists those it has"
        )
    if len(found) > 1:
        raise ConfigurationError(
            f"{len(found)} accounts are called {wanted!r}; name one by its fingerprint:"
            f" {', '.join(one.account for one in found)}"
        )
    if found[0].is_own:
        raise ConfigurationError(f"{wanted!r} is the account for which the outbox is open; name another one")
    return found[0]


def refuse_live_workers(workers: int) -> None:
    """Raise ``OutboxError`` if workers of a tenant that is to be adopted run."""
    if workers:
        noun = "worker of the other account runs" if workers == 1 else "workers of the other account run"
        raise OutboxError(
            f"{workers} {noun}: stop {'it' if workers == 1 else 'them'} first; one that died counts"
            " until its lease ends"
        )


def warn_of_waiting(others: Sequence[TenantStats], host: str) -> None:
    """Log how many devices wait under other tenants of this host, or under those of other hosts that have no worker."""
    waiting = [one for one in others if one.waiting and (_may_be(one, host) or not one.workers)]
    if not waiting:
        return
    count = sum(one.waiting for one in waiting)
    accounts = "another account" if len(waiting) == 1 else f"{len(waiting)} other accounts"
    if all(one.host == host != "" for one in waiting):
        accounts += " of this host"
    elif not any(_may_be(one, host) for one in waiting):
        accounts += " of another host" if len({one.host for one in waiting}) == 1 else " of other hosts"
    _log.warning(
        "%(devices)s under %(accounts)s; see `printos outbox accounts`",
        {"devices": "1 device waits" if count == 1 else f"{count:,} devices wait", "accounts": accounts},
        extra={"event": OTHERS_WAIT, "waiting": count, "tenants": len(waiting)},
    )


def _may_be(tenant: TenantStats, host: str) -> bool:
    return not (tenant.host and host) or tenant.host == host

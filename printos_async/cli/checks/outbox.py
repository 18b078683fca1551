"""Step of the outbox: it can be opened and written to, and what it holds.

It is opened as a worker opens it: a missing file is created, an older schema is migrated, and a damaged file is set
aside. No status is put or taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from printos_async._errors import OutboxCorruptError, OutboxError
from printos_async.cli.terminal.output import count_statuses, counted

from .finding import Finding, failed, ok

if TYPE_CHECKING:
    from collections.abc import Sequence

    from printos_async._client import PrintOSClient
    from printos_async.outbox import OutboxStats, SqlOutbox, TenantStats


async def check_outbox(client: PrintOSClient, outbox: SqlOutbox) -> Finding:
    """Return whether this client can use an outbox; opens it as a worker does, and closes it."""
    try:
        async with client.spooler(outbox):
            stats, tenants = await outbox.stats(), await outbox.tenants()
            try:
                await outbox.leave(await outbox.join())
            except OutboxError as error:
                return failed(
                    "outbox",
                    f"it can be read and not written to: {error}",
                    "let this user write to it; while it is read-only, nothing is accepted or sent",
                )
    except OutboxCorruptError as error:
        return failed("outbox", error, "restore it from a backup, or move it away: a new one is created")
    except OutboxError as error:
        return failed(
            "outbox",
            error,
            "check --outbox or PRINTOS_OUTBOX: the place or the server, user and password, the rights of this user to"
            " write to the file and its folder, and that this printos-async is as new as the one that made it",
        )
    from printos_async.outbox.sql.tables import MIGRATIONS  # noqa: PLC0415  # SQLAlchemy is optional

    version = len(MIGRATIONS) + 1  # opening an older outbox has migrated it
    return ok("outbox", f"schema version {version}; {_content(stats)}{_others(tenants)}")


def _content(stats: OutboxStats) -> str:
    verb = "waits" if stats.waiting == 1 else "wait"
    oldest = "" if stats.oldest_waiting_s is None else f", the oldest for {stats.oldest_waiting_s:,.0f} s"
    text = f"{count_statuses(stats.waiting)} {verb}{oldest}, {stats.failed:,} failed"
    if stats.failed:
        text += " (printos outbox failed lists them)"
    text += f", {counted(stats.workers, 'worker')}"
    if stats.waiting and not stats.workers:
        text += ": start printos worker"
    return text


def _others(tenants: Sequence[TenantStats]) -> str:
    others = [one for one in tenants if not one.is_own and (one.waiting or one.failed)]
    if not others:
        return ""
    waiting, failures = sum(one.waiting for one in others), sum(one.failed for one in others)
    return (
        f"; {waiting:,} waiting and {failures:,} failed under {counted(len(others), 'other account')}"
        " (printos outbox accounts lists them)"
    )

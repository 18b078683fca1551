"""``printos outbox accounts`` and ``printos outbox adopt``: the accounts that use an outbox."""

import sys
from functools import partial
from typing import Annotated

import typer

from printos_async.cli.options.groups import AsJson, with_option_groups
from printos_async.cli.options.outbox import OutboxAccess
from printos_async.cli.terminal.output import (
    EXIT_FAILED,
    CommandError,
    complain,
    members,
    printable,
    write_count,
    write_json,
    write_rows,
)
from printos_async.outbox import TenantStats
from printos_async.outbox.tenants import OTHERS_WAIT, find_tenant

_NO_LABEL = "(unknown)"


@with_option_groups
def accounts(
    *,
    as_json: AsJson = False,
    access: OutboxAccess,
) -> None:
    """List the accounts that use the outbox, with their waiting and failed statuses; * marks this one."""
    tenants = access.run(lambda opened: opened.tenants(), except_for={OTHERS_WAIT})
    if as_json:
        write_json({"accounts": [members(tenant) for tenant in tenants]})
        return
    rows = [
        (
            "*" if tenant.is_own else "",
            tenant.account,
            tenant.label or _NO_LABEL,
            tenant.host,
            tenant.waiting,
            tenant.failed,
            tenant.workers,
        )
        for tenant in tenants
    ]
    write_rows(("", "account", "label", "host", "waiting", "failed", "workers"), rows)


@with_option_groups
def adopt(
    other: Annotated[
        str,
        typer.Argument(
            metavar="ACCOUNT",
            help="The other account: its fingerprint, the beginning of it, or its label; `printos outbox accounts` shows them.",
        ),
    ],
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
    access: OutboxAccess,
) -> None:
    """Adopt the statuses of another account, after its key, login or host has changed; asks before it does.

    Stop the workers of the other account first. If both accounts have a status of a device, the newest stays. After an
    error, or if statuses came in the meantime, run the command again: it adopts what is left.

    Exit codes: 0 adopted, 1 workers of the other account run, the answer was no, or the outbox failed, 2 usage or
    configuration.
    """
    client = access.make_client()
    run = partial(access.run, client=client, except_for={OTHERS_WAIT})
    if not yes:
        tenants = run(lambda opened: opened.tenants())
        _confirm(find_tenant(tenants, other), next(tenant for tenant in tenants if tenant.is_own))
    write_count("adopted", run(lambda opened: opened.adopt(other)), as_json=as_json)


def _confirm(other: TenantStats, own: TenantStats) -> None:
    """Ask whether to go on; end the command if the answer is no."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise CommandError("adopt asks before it does anything, and standard input is no terminal; add --yes")
    question = (
        f"Hand {other.waiting:,} waiting and {other.failed:,} failed of {_name(other)} to {_name(own)}?"
    )
    if not typer.confirm(question, err=True):
        complain("nothing was adopted")
        raise typer.Exit(EXIT_FAILED)


def _name(tenant: TenantStats) -> str:
    return printable(f"{tenant.label or _NO_LABEL} ({tenant.account[:8]})")

"""``printos check``: what is wrong with a set-up, step by step, before anything is sent."""

import asyncio
from typing import Annotated, Any

import typer
from attrs import frozen

from printos_async._execution.retry import RetryPolicy
from printos_async.cli.checks.finding import Finding
from printos_async.cli.checks.steps import Steps
from printos_async.cli.options.connection import Connection
from printos_async.cli.options.groups import AsJson, with_option_groups
from printos_async.cli.options.outbox import OutboxUrl
from printos_async.cli.terminal.log import LibraryWarnings
from printos_async.cli.terminal.output import EXIT_FAILED, members, printable, write_json, write_line
from printos_async.outbox.tenants import OTHERS_WAIT


@frozen(kw_only=True)
class CheckedConnection(Connection):
    """The connection options, and the timeout of each step."""

    timeout_s: Annotated[
        float,
        typer.Option(
            "--timeout", min=0.001, help="Timeout of each step, in seconds.", rich_help_panel="Connection"
        ),
    ] = 10.0

    def _request_settings(self) -> dict[str, Any]:
        return {"timeout_s": self.timeout_s, "retry": RetryPolicy(max_attempts=1)}


@with_option_groups
def check(
    *,
    device_id: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="ID",
            help="Check this device's credentials in the credentials file; by default those of `*`, else of the first device.",
        ),
    ] = None,
    outbox: OutboxUrl = None,
    as_json: AsJson = False,
    connection: CheckedConnection,
) -> None:
    """Check the set-up step by step, and say what is wrong and how to fix it. Nothing is written to PrintOS.

    DNS and a TCP connection are tried first. Then one request for the list of devices, after a login if the
    credentials are one, checks proxy, TLS, clock, path and credentials. The outbox, if one is set, is opened as by a
    worker: a missing file is created, an older schema is migrated, and a damaged file is set aside. No status is put
    or claimed.

    Exit codes: 0 all right, 1 something is wrong, 2 usage or configuration.
    """
    steps = Steps(connection, device_id=device_id, outbox=outbox, timeout_s=connection.timeout_s)

    async def run() -> list[Finding]:
        found = []
        async for finding in steps.run():
            found.append(finding)
            if not as_json:
                write_line(_line(finding))
        return found

    with LibraryWarnings(except_for={OTHERS_WAIT}):
        findings = asyncio.run(run())
    is_ok = all(finding.outcome != "failed" for finding in findings)
    if as_json:
        write_json({"ok": is_ok, "checks": [members(finding) for finding in findings]})
    if not is_ok:
        raise typer.Exit(EXIT_FAILED)


def _line(finding: Finding) -> str:
    remedy = f"; to do: {finding.remedy}" if finding.remedy else ""
    return printable(f"{finding.outcome:<8}{finding.check:<17} {finding.detail}{remedy}")

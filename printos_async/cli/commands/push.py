"""``printos push``: options."""

import asyncio
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from printos_async.cli.input.followed_file import FollowedSource
from printos_async.cli.input.lines import format_of
from printos_async.cli.input.source import STANDARD_INPUT, Source
from printos_async.cli.monitoring.monitor import Monitor
from printos_async.cli.options.connection import ConcurrentRequests
from printos_async.cli.options.delivery import PANEL, Delivery
from printos_async.cli.options.groups import AsJson, FileFormat, option_name, with_option_groups
from printos_async.cli.options.listen import ListenAddress, ListenTo
from printos_async.cli.options.outbox import OutboxUrl, outbox_url
from printos_async.cli.push.files import FailuresFile, open_private
from printos_async.cli.push.job import PushJob
from printos_async.cli.push.modes import DEFAULT_DRAIN_TIMEOUT_S, Bulk, Follow, Mode, Spool
from printos_async.cli.terminal.output import CommandError


@with_option_groups
def push(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE|-", help="JSON lines or CSV; - is standard input."),
    ],
    *,
    file_format: FileFormat = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Check the whole file first; send nothing if a line is bad.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the file; send nothing. Needs no credentials.")
    ] = False,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            help="Send lines as they arrive, from a pipe or a growing file, until the pipe's end or a signal.",
        ),
    ] = False,
    outbox: OutboxUrl = None,
    spool: Annotated[
        bool,
        typer.Option(
            "--spool",
            help="Put the statuses into the outbox, durably; printos worker sends them. --outbox implies it.",
        ),
    ] = False,
    failures: Annotated[
        Path | None,
        typer.Option(
            help="Append statuses that were not sent to this file, as JSON lines that can be pushed again.",
        ),
    ] = None,
    bad_lines: Annotated[
        Path | None,
        typer.Option(help="Append lines that cannot be read to this file, unchanged."),
    ] = None,
    listen: ListenTo = None,
    as_json: AsJson = False,
    delivery: Delivery,
    drain_timeout_s: Annotated[
        float | None,
        typer.Option(
            "--drain-timeout",
            min=0.0,
            help="Seconds to send what was read, after the end of the input.",
            rich_help_panel=PANEL,
            show_default=f"{DEFAULT_DRAIN_TIMEOUT_S:g} after a signal, none at the end of a pipe",
        ),
    ] = None,
    connection: ConcurrentRequests,
) -> None:
    """Send every status in a file, many at once; the newest status of each device wins.

    A line is `{"deviceId": "dev-1", "status": "DS_ON", "metrics": {"pagesTotal": 12, "inkLevel": 0.4}}`, or in
    CSV the columns `deviceId,status,pagesTotal,inkLevel` under a header. The file is read while it is sent.
    With `--follow` the command runs until it is stopped, and waits for the end of outages; the options under
    Delivery need it. With `--outbox` or `--spool` the statuses are put into an outbox and not sent.

    Exit codes: 0 all sent (or replaced by a newer one), 1 some failed or some lines are bad, 2 usage or
    configuration, 130 or 143 stopped by Ctrl-C or SIGTERM.
    """
    is_spooled = spool or outbox is not None
    given = delivery.arguments() | ({} if drain_timeout_s is None else {"drain_timeout_s": drain_timeout_s})
    if listen is not None and (is_spooled or not follow):
        raise CommandError("--listen needs --follow, and no outbox: other pushes end by themselves")
    if given and not follow:
        raise CommandError(f"{option_name(next(iter(given)))} needs --follow")
    if follow and (strict or dry_run):
        raise CommandError(f"--follow does not end; leave {'--strict' if strict else '--dry-run'} out")
    if given and is_spooled:
        raise CommandError("printos worker sends what is put into an outbox; give it the options of delivery")
    mode: Mode = Bulk()
    if is_spooled:
        mode = Spool(outbox_url(outbox))
    elif follow:
        monitor = Monitor(None if listen is None else ListenAddress.parse(listen))
        mode = Follow(delivery.arguments(), drain_timeout_s, monitor)
    chosen_format = format_of(file, file_format)
    with ExitStack() as stack:
        is_followed = follow and file != STANDARD_INPUT
        source = stack.enter_context(FollowedSource(file) if is_followed else Source(file))
        kept = rejected = None
        if failures is not None and not dry_run:
            kept = stack.enter_context(FailuresFile(failures))
            _refuse_same_file(source, kept.fileno(), "--failures")
        if bad_lines is not None:
            rejected = stack.enter_context(open_private(bad_lines, flags=os.O_APPEND))
            _refuse_same_file(source, rejected.fileno(), "--bad-lines")
            if kept and kept.is_regular and os.path.sameopenfile(kept.fileno(), rejected.fileno()):
                raise CommandError("--failures and --bad-lines need two files")
        job = PushJob(source, chosen_format, mode, strict=strict, failures=kept, bad_lines_file=rejected)
        # Made here, outside of the event loop: it may ask for a secret on the terminal.
        client = None if dry_run else connection.make_client(hooks=job.hooks)
        report = asyncio.run(job.run(client))
    report.write(as_json=as_json)
    raise typer.Exit(report.exit_code)


def _refuse_same_file(source: Source, file_descriptor: int, option: str) -> None:
    if source.is_regular and os.path.sameopenfile(source.file_descriptor, file_descriptor):
        raise CommandError(f"{option} names the file that is read; give it another one")

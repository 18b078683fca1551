"""``printos outbox``: statistics, devices, failed statuses, and the accounts that use the outbox."""

import json
import shlex
from typing import Annotated, Any

import typer

from printos_async.cli.options.groups import AsJson, with_option_groups
from printos_async.cli.options.outbox import OutboxAccess
from printos_async.cli.terminal.output import (
    EXIT_FAILED,
    CommandError,
    complain,
    counted,
    members,
    write_count,
    write_json,
    write_line,
    write_rows,
)
from printos_async.outbox import DeadLetter, SqlOutbox

from .accounts import accounts, adopt

app = typer.Typer(
    no_args_is_help=True,
    help="Inspect an outbox, requeue or purge its failed statuses, and adopt those of another account.",
)


def _require_utf_8(device_id: str) -> str:
    try:
        device_id.encode()
    except UnicodeEncodeError:
        raise typer.BadParameter("it is not UTF-8") from None
    return device_id


Limit = Annotated[int, typer.Option(min=1, max=1_000_000, help="Maximum number of devices.")]
After = Annotated[
    str, typer.Option(metavar="DEVICE", callback=_require_utf_8, help="Start after this device.")
]


@app.command()
@with_option_groups
def stats(
    *,
    as_json: AsJson = False,
    access: OutboxAccess,
) -> None:
    """Count the statuses in the outbox."""
    counts = access.run(lambda opened: opened.stats())
    if as_json:
        write_json(members(counts))
        return
    oldest = "" if counts.oldest_waiting_s is None else f", the oldest for {counts.oldest_waiting_s:,.1f} s"
    write_line(
        f"{counted(counts.devices, 'device')}: {counts.waiting:,} waiting{oldest} ({counts.claimed:,} of them claimed by "
        f"{counted(counts.workers, 'worker')}), {counts.failed:,} failed"
        + ("; printos outbox failed lists them" if counts.failed else "")
    )


@app.command()
@with_option_groups
def devices(
    *,
    silent_for_s: Annotated[
        float,
        typer.Option(
            "--silent-for",
            metavar="SECONDS",
            min=0.0,
            help="Only devices without a delivery for at least so long.",
        ),
    ] = 0.0,
    limit: Limit = 100,
    after: After = "",
    as_json: AsJson = False,
    access: OutboxAccess,
) -> None:
    """List devices with the age of their last delivery, of a waiting status and of a failure, ordered by device."""
    found = access.run(lambda opened: opened.devices(silent_for_s=silent_for_s, limit=limit, after=after))
    last = found[-1].device_id if len(found) == limit else None
    if as_json:
        write_json({"devices": [members(device) for device in found], "nextAfter": last})
        return
    columns = ("device", "delivered s ago", "waiting for s", "failed s ago", "error")
    rows = [
        (
            device.device_id,
            "never" if device.delivered_age_s is None else f"{device.delivered_age_s:.0f}",
            _seconds(device.waiting_s),
            _seconds(device.failed_age_s),
            device.error,
        )
        for device in found
    ]
    write_rows(columns, rows)
    _complain_of_more(last)


@app.command()
@with_option_groups
def failed(
    *,
    limit: Limit = 100,
    after: After = "",
    as_lines: Annotated[
        bool, typer.Option("--lines", help="Write the statuses as JSON lines that printos push reads.")
    ] = False,
    as_json: AsJson = False,
    access: OutboxAccess,
) -> None:
    """List the failed statuses, ordered by device."""
    if as_lines and as_json:
        raise CommandError("--lines and --json exclude each other; give one of them")
    letters = access.run(lambda opened: opened.failed(limit=limit, after=after))
    last = letters[-1].device_id if len(letters) == limit else None
    if as_json:
        write_json({"failed": [_to_json(letter) for letter in letters], "nextAfter": last})
        return
    if as_lines:
        for letter in letters:
            found = _status_of(letter)
            if isinstance(found, dict):
                write_line(json.dumps({"deviceId": letter.device_id, **found}))
            else:
                complain(f"the status of {letter.device_id} is damaged, and left out")
    else:
        rows = [
            (letter.device_id, letter.attempts, f"{letter.failed_age_s:.0f}", letter.error)
            for letter in letters
        ]
        write_rows(("device", "attempts", "seconds ago", "error"), rows)
    _complain_of_more(last)


@app.command()
@with_option_groups
def requeue(
    devices: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DEVICE]...", help="Devices whose failed statuses to requeue."),
    ] = None,
    *,
    all_devices: Annotated[bool, typer.Option("--all", help="Requeue all failed statuses.")] = False,
    as_json: AsJson = False,
    access: OutboxAccess,
) -> None:
    """Requeue failed statuses, so that they are sent again.

    Exit codes: 0 requeued, 1 a device that was named has no failed status, 2 usage or configuration.
    """
    if bool(devices) == all_devices:
        raise CommandError("name the devices whose statuses are to be sent again, or give --all")
    named = list(dict.fromkeys(devices or ()))
    not_found: list[str] = []

    async def requeue_all(opened: SqlOutbox) -> int:
        if all_devices:
            return await opened.requeue()
        count = 0
        for device_id in named:  # one by one, for the outbox only returns a number
            requeued = await opened.requeue([device_id])
            count += requeued
            if not requeued:
                not_found.append(device_id)
        return count

    count = access.run(requeue_all)
    write_count("requeued", count, as_json=as_json)
    if not_found:
        complain(f"no failed status of {', '.join(not_found)}; printos outbox failed lists those that failed")
        raise typer.Exit(EXIT_FAILED)


@app.command()
@with_option_groups
def purge(
    *,
    only_failed: Annotated[
        bool, typer.Option("--failed", help="Delete failed statuses instead of delivered ones.")
    ] = False,
    only_devices: Annotated[
        bool,
        typer.Option(
            "--devices",
            help="Delete the last deliveries of devices without a waiting or failed status instead.",
        ),
    ] = False,
    older_than_s: Annotated[
        float,
        typer.Option("--older-than", min=0.0, help="Only those that ended at least this many seconds ago."),
    ] = 0.0,
    as_json: AsJson = False,
    access: OutboxAccess,
) -> None:
    """Delete rows of delivered statuses, failed statuses or last deliveries; waiting statuses are never deleted."""
    if only_failed and only_devices:
        raise CommandError("--failed and --devices exclude each other; give one of them")
    if only_devices:
        count = access.run(lambda opened: opened.purge_deliveries(older_than_s=older_than_s))
    else:
        count = access.run(lambda opened: opened.purge(failed=only_failed, older_than_s=older_than_s))
    write_count("purged", count, as_json=as_json)


app.command()(accounts)
app.command()(adopt)


def _seconds(age_s: float | None) -> str:
    return "" if age_s is None else f"{age_s:.0f}"


def _complain_of_more(last: str | None) -> None:
    """Report that a page is full, and how to see the next one; ``last`` is None if it is not full."""
    if last is not None:
        complain(f"there may be more; continue with --after {shlex.quote(last)}")


def _status_of(letter: DeadLetter) -> Any:
    """Return the status, None if it is damaged."""
    try:
        return json.loads(letter.body)
    except ValueError:
        return None


def _to_json(letter: DeadLetter) -> dict[str, Any]:
    values = members(letter)
    del values["body"]
    return {**values, "status": _status_of(letter)}

"""``printos devices``: list devices, or register them."""

import asyncio
from collections import Counter
from typing import Annotated, Any

import typer

from printos_async._client import PrintOSClient
from printos_async._execution.provisioning import Identity, identity_of
from printos_async._models import DeviceProvisionRequest, PrintDevice, ProvisionResult
from printos_async.cli.input.lines import ParsedLines, format_of
from printos_async.cli.input.records import BadLineError, Format, provision_request_of
from printos_async.cli.input.source import Source
from printos_async.cli.options.connection import ConcurrentRequests, Requests
from printos_async.cli.options.groups import AsJson, FileFormat, with_option_groups
from printos_async.cli.terminal.output import (
    EXIT_FAILED,
    EXIT_OK,
    CommandError,
    complain,
    counted,
    write_json,
    write_rows,
)

app = typer.Typer(no_args_is_help=True, help="List devices, or register them.")


@app.command("list")
@with_option_groups
def list_devices(
    *,
    as_json: AsJson = False,
    connection: Requests,
) -> None:
    """Show the registered devices: a table on a terminal, else tab-separated lines."""
    client = connection.make_client(needs_default=True)

    async def ask() -> list[PrintDevice]:
        async with client:
            return await client.list_devices()

    devices = asyncio.run(ask())
    if as_json:
        write_json({"devices": [device.to_dict() for device in devices]})
        return
    columns = ("id", "model", "serialNumber", "status", "registeredAt")
    rows = (device.to_dict() for device in devices)
    write_rows(columns, [[row.get(column) for column in columns] for row in rows])


@app.command("provision")
@with_option_groups
def provision_devices(
    *,
    model: Annotated[str | None, typer.Option(help="The device's model.")] = None,
    serial_number: Annotated[str | None, typer.Option(help="Its serial number.")] = None,
    location: Annotated[str | None, typer.Option(help="Its location.")] = None,
    file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|-",
            help="Many devices: JSON lines or CSV with model, serialNumber and location.",
        ),
    ] = None,
    file_format: FileFormat = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Register registered devices again; each gets a new identifier."),
    ] = False,
    as_json: AsJson = False,
    connection: ConcurrentRequests,
) -> None:
    """Register a device, or all devices in a file; devices that are registered already are not changed.

    Model and serial number identify a device. With `--replace` all are registered again: PrintOS then replaces
    those with the same model and serial number. The whole file is checked before anything is sent.

    Exit codes: 0 all registered or found, 1 some failed or some lines are bad, 2 usage or configuration.
    """
    given = {"model": model, "serialNumber": serial_number, "location": location}
    record = {name: value for name, value in given.items() if value is not None}
    for name, value in record.items():
        if not value.strip():  # such as an unset variable of a shell
            raise CommandError(f"{name} is empty; give it a value, or leave the option out")
    if (file is None) == (not record):
        raise CommandError("give either --file, or --model, --serial-number and --location of one device")
    if file is None:
        try:
            requests = [provision_request_of(record)]
        except BadLineError as error:
            raise CommandError(str(error)) from error
        # Without both there is nothing to look for, and nothing that would be replaced.
        replace = replace or identity_of(requests[0]) is None
    else:
        requests = asyncio.run(_read(file, format_of(file, file_format), replace=replace))
    client = connection.make_client(needs_default=True)
    results, replaced = asyncio.run(_provision(client, requests, replace=replace))
    _report(results, replaced, as_json=as_json, has_summary=file is not None)
    raise typer.Exit(EXIT_FAILED if any(result.outcome == "failed" for result in results) else EXIT_OK)


async def _read(path: str, file_format: Format, *, replace: bool) -> list[DeviceProvisionRequest]:
    first_lines: dict[Identity, int] = {}

    def request_of(record: dict[str, Any]) -> DeviceProvisionRequest:
        request = provision_request_of(record)
        identity = identity_of(request)
        if identity is None and not replace:
            raise BadLineError(
                "needs model and serialNumber, which identify registered devices; "
                "--replace registers a device without them"
            )
        if identity is not None:
            first_line = first_lines.setdefault(identity, lines.last_line)
            if first_line != lines.last_line:
                raise BadLineError(
                    f"repeats the model and serial number of line {first_line}: one would replace the other"
                )
        return request

    with Source(path) as source:
        lines = ParsedLines(source, file_format, DeviceProvisionRequest, request_of, stop=asyncio.Event())
        try:
            requests = [request async for request in lines]
        except OSError as error:
            raise CommandError(
                f"nothing was sent: cannot read {source.name}: {error.strerror}", exit_code=EXIT_FAILED
            ) from error
    if lines.bad_lines:
        raise CommandError(
            f"nothing was sent: correct {counted(lines.bad_lines, 'line')} of {source.name}",
            exit_code=EXIT_FAILED,
        )
    return requests


async def _provision(
    client: PrintOSClient, requests: list[DeviceProvisionRequest], *, replace: bool
) -> tuple[list[ProvisionResult], int]:
    """Return the results, and how many devices were replaced."""
    async with client:
        if not replace:
            return await client.ensure_devices(requests), 0
        registered = {identity_of(device) for device in await client.list_devices()} - {None}
        to_replace = sum(identity_of(request) in registered for request in requests)
        if to_replace:
            complain(f"replacing {counted(to_replace, 'registered device')}; each gets a new identifier")
        results = await client.provision_devices(requests)
    replaced = [result for result in results if result.outcome == "provisioned"]
    return results, sum(identity_of(result.request) in registered for result in replaced)


def _report(results: list[ProvisionResult], replaced: int, *, as_json: bool, has_summary: bool) -> None:
    shown = [_to_json(result) for result in results]
    for each in shown:
        if each["error"] is not None:
            complain(
                f"{each['request'].get('model')}, {each['request'].get('serialNumber')}: {each['error']}"
            )
    if as_json:
        write_json({"results": shown, "replaced": replaced})
        return
    columns = ("model", "serialNumber", "location")
    rows = [
        [each["outcome"], (each["device"] or {}).get("id"), *map(each["request"].get, columns)]
        for each in shown
    ]
    write_rows(("outcome", "id", *columns), rows)
    if has_summary:
        counts = Counter(result.outcome for result in results)
        anew = f" ({replaced:,} of them replaced)" if replaced else ""
        complain(
            f"{counts['provisioned']:,} provisioned{anew}, {counts['found']:,} found, {counts['failed']:,} failed"
            + ("; correct what is named above, and run the command again" if counts["failed"] else "")
        )


def _to_json(result: ProvisionResult) -> dict[str, Any]:
    return {
        "request": result.request.to_dict(),
        "outcome": result.outcome,
        "device": None if result.device is None else result.device.to_dict(),
        "attempts": result.attempts,
        "error": None if result.error is None else str(result.error),
    }

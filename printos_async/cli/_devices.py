"""``printos devices``."""

import asyncio
from contextlib import aclosing
from typing import Annotated, Any

import typer

from printos_async._client import PrintOSClient
from printos_async._models import DeviceProvisionRequest, PrintDevice, ProvisionResult

from . import _settings
from ._output import EXIT_FAILED, EXIT_OK, CommandError, complain, say_json, say_rows
from ._records import BadLineError, Format, make_parser, provision_request_of
from ._source import LineReader, Source
from ._statuses import format_of

app = typer.Typer(no_args_is_help=True, help="List devices, or register them.")

_AsJson = Annotated[
    bool, typer.Option("--json", help="Write one JSON object to standard output, and nothing else.")
]


@app.command("list")
def list_devices(
    *,
    as_json: _AsJson = False,
    base_url: _settings.BaseUrl = None,
    key: _settings.Key = None,
    secret_file: _settings.SecretFile = None,
    login: _settings.Login = None,
    password_file: _settings.PasswordFile = None,
    timeout_s: _settings.TimeoutS = _settings.DEFAULT_TIMEOUT_S,
    max_attempts: _settings.MaxAttempts = _settings.DEFAULT_MAX_ATTEMPTS,
    insecure_http: _settings.InsecureHttp = False,
) -> None:
    """Show the registered devices: a table on a terminal, else lines with tabs between the values."""
    client = _settings.Connection(
        base_url=base_url,
        key=key,
        secret_file=secret_file,
        login=login,
        password_file=password_file,
        timeout_s=timeout_s,
        max_attempts=max_attempts,
        insecure_http=insecure_http,
    ).make_client()

    async def ask() -> list[PrintDevice]:
        async with client:
            return await client.list_devices()

    devices = asyncio.run(ask())
    if as_json:
        say_json({"devices": [device.to_dict() for device in devices]})
        return
    columns = ("id", "model", "serialNumber", "status", "registeredAt")
    rows = (device.to_dict() for device in devices)
    say_rows(columns, [[row.get(column) for column in columns] for row in rows])


@app.command("provision")
def provision_devices(
    *,
    model: Annotated[str | None, typer.Option(help="The device's model.", show_default=False)] = None,
    serial_number: Annotated[str | None, typer.Option(help="Its serial number.", show_default=False)] = None,
    location: Annotated[str | None, typer.Option(help="Where it stands.", show_default=False)] = None,
    file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|-",
            help="Many devices: JSON lines or CSV with model, serialNumber and location.",
            show_default=False,
        ),
    ] = None,
    file_format: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="By default what the name says: .jsonl, .ndjson, .csv; JSON lines on standard input.",
            show_default=False,
        ),
    ] = None,
    as_json: _AsJson = False,
    base_url: _settings.BaseUrl = None,
    key: _settings.Key = None,
    secret_file: _settings.SecretFile = None,
    login: _settings.Login = None,
    password_file: _settings.PasswordFile = None,
    timeout_s: _settings.TimeoutS = _settings.DEFAULT_TIMEOUT_S,
    max_in_flight: _settings.MaxInFlight = _settings.DEFAULT_MAX_IN_FLIGHT,
    max_attempts: _settings.MaxAttempts = _settings.DEFAULT_MAX_ATTEMPTS,
    insecure_http: _settings.InsecureHttp = False,
) -> None:
    """Register a device, or all devices in a file.

    PrintOS replaces a device of the same model and serial number. A file is checked whole before anything is
    sent; a request whose answer was lost is looked for in the device list before it is sent again.

    Exit codes: 0 all registered, 1 some failed or some lines are bad, 2 usage or configuration.
    """
    given = {"model": model, "serialNumber": serial_number, "location": location}
    record = {name: value for name, value in given.items() if value is not None}
    if (file is None) == (not record):
        raise CommandError("give either --file, or --model, --serial-number and --location of one device")
    if file is None:
        try:
            requests = [provision_request_of(record)]
        except BadLineError as error:
            raise CommandError(str(error)) from error
    else:
        requests = asyncio.run(_read(file, format_of(file, file_format)))
    client = _settings.Connection(
        base_url=base_url,
        key=key,
        secret_file=secret_file,
        login=login,
        password_file=password_file,
        timeout_s=timeout_s,
        max_in_flight=max_in_flight,
        max_attempts=max_attempts,
        insecure_http=insecure_http,
    ).make_client()
    results = asyncio.run(_provision(client, requests))
    _report(results, as_json=as_json)
    raise typer.Exit(EXIT_FAILED if any(result.outcome == "failed" for result in results) else EXIT_OK)


async def _read(path: str, file_format: Format) -> list[DeviceProvisionRequest]:
    parser = make_parser(file_format, DeviceProvisionRequest)
    requests = []
    bad_lines = 0
    with Source(path) as source:
        async with aclosing(LineReader(source, stop=asyncio.Event()).batches()) as batches:
            async for batch in batches:
                for line in batch:
                    try:
                        record = parser.parse(line.data, is_cut=line.is_cut)
                        if record is not None:
                            requests.append(provision_request_of(record))
                    except BadLineError as error:
                        bad_lines += 1
                        complain(f"{source.name}, line {line.number}: {error}")
    if bad_lines:
        raise CommandError(
            f"nothing was sent: correct {bad_lines} bad lines of {source.name}", exit_code=EXIT_FAILED
        )
    return requests


async def _provision(client: PrintOSClient, requests: list[DeviceProvisionRequest]) -> list[ProvisionResult]:
    async with client:
        return await client.provision_devices(requests)


def _report(results: list[ProvisionResult], *, as_json: bool) -> None:
    for result in results:
        if result.error is not None:
            wanted = result.request.to_dict()
            complain(f"{wanted.get('model')}, {wanted.get('serialNumber')}: {result.error}")
    if as_json:
        say_json({"results": [_to_json(result) for result in results]})
        return
    rows = []
    for result in results:
        wanted = result.request.to_dict()
        device = {} if result.device is None else result.device.to_dict()
        rows.append(
            [result.outcome, device.get("id"), *map(wanted.get, ("model", "serialNumber", "location"))]
        )
    say_rows(("outcome", "id", "model", "serialNumber", "location"), rows)


def _to_json(result: ProvisionResult) -> dict[str, Any]:
    return {
        "request": result.request.to_dict(),
        "outcome": result.outcome,
        "device": None if result.device is None else result.device.to_dict(),
        "attempts": result.attempts,
        "error": None if result.error is None else str(result.error),
    }

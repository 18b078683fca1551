"""``printos sandbox``: a PrintOS server for tests."""

import asyncio
import json
import os
import re
import shlex
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from attrs import asdict, frozen

from printos_async.cli.credentials.lines import DEFAULT_DEVICE, Credentials, parse_credentials
from printos_async.cli.options.connection import is_insecure
from printos_async.cli.options.groups import with_option_groups
from printos_async.cli.options.listen import listen_error
from printos_async.cli.terminal.output import CommandError, complain, counted, write_json, write_line
from printos_async.cli.terminal.signals import StopSignals

if TYPE_CHECKING:
    from printos_async.sandbox import Sandbox

_FAULTS = "Faults (shares from 0 to 1 of the requests)"
_TEN_YEARS_S = 10 * 365 * 86_400.0
_ANY = "sandbox"  # for a sandbox that does not check credentials, which a client needs
_option = partial(typer.Option, rich_help_panel=_FAULTS)


def _share(help: str) -> Any:  # noqa: A002
    return _option(min=0.0, max=1.0, help=help)


@frozen(kw_only=True)
class FaultOptions:
    """The options for ``printos_async.sandbox.Faults``, named as its fields where both mean the same."""

    seed: Annotated[int, _option(help="Seed of the random faults; another seed, other faults.")] = 0
    latency: Annotated[float, _option(min=0.0, help="Minimum seconds before each answer.")] = 0.0
    latency_max: Annotated[
        float | None, _option(min=0.0, help="Maximum seconds before each answer; by default --latency.")
    ] = None
    rate_limited: Annotated[float, _share("Answered with 429.")] = 0.0
    retry_after: Annotated[str, _option(help="Retry-After of a 429; empty for none.")] = "1"
    server_error: Annotated[float, _share("Answered with 503.")] = 0.0
    reset: Annotated[float, _share("Connection reset.")] = 0.0
    truncated: Annotated[float, _share("Answer cut off.")] = 0.0
    malformed: Annotated[float, _share("Success with a malformed body.")] = 0.0
    late_write: Annotated[float, _share("Status applied after the client saw a failure.")] = 0.0
    hang: Annotated[float, _share("Never answered.")] = 0.0

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of ``Faults``."""
        arguments = asdict(self)
        latency, latency_max = arguments.pop("latency"), arguments.pop("latency_max")
        if latency_max is not None and latency_max < latency:
            raise CommandError("--latency-max must not be less than --latency")
        return {**arguments, "latency_s": (latency, latency if latency_max is None else latency_max)}


@with_option_groups
def sandbox(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for a free one.")] = 8000,
    key: Annotated[str | None, typer.Option(help="Require requests signed with this key.")] = None,
    secret_env: Annotated[
        str, typer.Option(metavar="NAME", help="Environment variable that holds the key's secret.")
    ] = "PRINTOS_SECRET",  # noqa: S107  # the variable's name
    login: Annotated[str | None, typer.Option(help="Require session tokens of this login.")] = None,
    password_env: Annotated[
        str, typer.Option(metavar="NAME", help="Environment variable that holds the login's password.")
    ] = "PRINTOS_PASSWORD",  # noqa: S107
    credentials: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Register the devices of a credentials file, as for printos push, and require their credentials.",
        ),
    ] = None,
    token_lifetime: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds for which a session token is valid.")
    ] = None,
    clock_offset: Annotated[
        float,
        typer.Option(
            min=-_TEN_YEARS_S,
            max=_TEN_YEARS_S,
            help="Seconds by which the server's clock is ahead; negative if it is behind; at most ten years.",
        ),
    ] = 0.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write the address as one JSON object to standard output.")
    ] = False,
    faults: FaultOptions,
) -> None:
    """Run a PrintOS server for tests, until Ctrl-C or SIGTERM; nothing is stored on disk.

    Exit codes: 0 stopped, 2 usage or configuration.
    """
    require_sandbox()
    from printos_async.sandbox import Faults, Sandbox  # noqa: PLC0415  # needs the extra

    server = Sandbox(
        faults=Faults(**faults.arguments()),
        hmac_keys=None if key is None else {key: _secret(secret_env, "secret")},
        logins=None if login is None else {login: _secret(password_env, "password")},
        token_lifetime_s=token_lifetime,
        clock_offset_s=clock_offset,
        host=host,
        port=port,
        record=False,
    )
    table = {} if credentials is None else _read(credentials)
    _accept(server, table)
    to_set = ""  # in words, because another terminal lacks the variable and no line may show its value
    if login is not None and key is None:
        exports = {"PRINTOS_LOGIN": shlex.quote(login)}
        to_set = f" set PRINTOS_PASSWORD to the value that {password_env} has here, then"
    elif key is not None:
        exports = {"PRINTOS_KEY": shlex.quote(key)}
        to_set = f" set PRINTOS_SECRET to the value that {secret_env} has here, then"
    elif credentials is not None:
        exports = {"PRINTOS_CREDENTIALS": shlex.quote(str(credentials.absolute()))}
    else:
        exports = {"PRINTOS_KEY": _ANY, "PRINTOS_SECRET": _ANY}
    asyncio.run(_serve(server, exports, to_set, where=f"{host}:{port}", as_json=as_json))


def _read(path: Path) -> dict[str, Credentials]:
    try:
        table = parse_credentials(path, path.read_bytes())
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror or error}") from error
    distinct = set(table.values())
    if len({(credentials.is_key, credentials.name) for credentials in distinct}) != len(distinct):
        raise CommandError(f"cannot use {path}: a key or a login stands there with two different secrets")
    return table


def _accept(server: "Sandbox", table: dict[str, Credentials]) -> None:
    devices_by_credentials: dict[Credentials, list[str]] = {}
    for device_id, credentials in table.items():
        devices_by_credentials.setdefault(credentials, []).append(device_id)
        if device_id != DEFAULT_DEVICE:
            server.add_device(device_id)
    for credentials, device_ids in devices_by_credentials.items():
        is_of_one = len(device_ids) == 1 and device_ids != [DEFAULT_DEVICE]
        accept = server.set_key if credentials.is_key else server.set_login
        accept(credentials.name, credentials.secret, device_id=device_ids[0] if is_of_one else None)


def require_sandbox() -> None:
    """Check that the libraries of the extra ``sandbox`` are installed.

    Raises:
        CommandError: They are not.
    """
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise CommandError(
            f"the sandbox needs {' and '.join(missing)}: pip install 'printos-async[cli,sandbox]'"
        )


async def _serve(
    server: "Sandbox", exports: dict[str, str], to_set: str, *, where: str, as_json: bool
) -> None:
    with StopSignals() as signals:
        try:
            await server.__aenter__()
        except (OSError, UnicodeError, TypeError) as error:
            raise listen_error(where, error, options="--port or --host") from error
        try:
            if is_insecure(server.url):
                complain(
                    f"warning: {server.url} can be reached from other machines, without encryption: whoever sees the "
                    "network sees statuses and credentials; --host 127.0.0.1 keeps it to this machine"
                )
            if as_json:
                write_json({"url": server.url})
            else:
                write_line(f"PrintOS sandbox at {server.url}; Ctrl-C stops it. In another terminal{to_set}:")
                write_line()
                write_line(f"  export PRINTOS_BASE_URL={_reachable(server.url)}")
                for name, value in exports.items():
                    write_line(f"  export {name}={value}")
                for command in _first_commands(server):
                    write_line(f"  {command}")
            await signals.stopping.wait()
        finally:
            await server.__aexit__(None, None, None)
    complain(f"stopped after {counted(server.request_count, 'request')}")


def _reachable(url: str) -> str:
    """Return the URL for a client on this machine; to a wildcard address none may connect without encryption."""
    return re.sub(r"(?<=//)(0\.0\.0\.0|\[::\])(?=:)", "127.0.0.1", url)


def _first_commands(server: "Sandbox") -> list[str]:
    if server.devices:
        status = json.dumps({"deviceId": next(iter(server.devices)), "status": "DS_ON"})
        return [f"echo {shlex.quote(status)} | printos push -"]
    return [
        "printos devices provision --model 'Indigo 12000' --serial-number SN-1 --location 'Hall 3'",
        "printos devices list",
    ]


def _secret(name: str, what: str) -> str:
    secret = os.environ.get(name)
    if not secret:
        raise CommandError(f"the environment variable {name} is not set; it must hold the {what} to check")
    return secret

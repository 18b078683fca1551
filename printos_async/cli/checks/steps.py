"""The steps in their order: credentials file, network, exchange with PrintOS, outbox."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

from printos_async._config import parse_base_url
from printos_async._transport.proxy_url import ProxyUrl
from printos_async.cli.credentials.credentials_file import CredentialsFile
from printos_async.cli.credentials.lines import DEFAULT_DEVICE
from printos_async.cli.terminal.output import CommandError, counted
from printos_async.outbox import SqlOutbox

from .exchange import CHECKS, Exchange
from .finding import Finding, failed, ok, skipped
from .observed_auth import ObservedAuth
from .outbox import check_outbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import httpx

    from printos_async._auth import DeviceCredentials, ReadyAuth
    from printos_async._client import PrintOSClient
    from printos_async._transport import Origin
    from printos_async.cli.options.connection import Connection

_CREDENTIALS_FILE = "credentials file"


class Steps:
    """The steps of one run. Made outside of the event loop, because it may prompt for a secret.

    Args:
        connection: The options of the command.
        device_id: Whose credentials of the credentials file are checked; None for the default's.
        outbox: URL of the outbox; None for the one in the environment, if there is one.
        timeout_s: Seconds for each step before the first request.

    Raises:
        ConfigurationError: A setting is missing, contradictory or out of range.
        CommandError: A file cannot be read, options contradict each other, or the base URL is unsafe.
    """

    def __init__(
        self, connection: Connection, *, device_id: str | None, outbox: str | None, timeout_s: float
    ) -> None:
        path = connection.credentials_path(os.environ)
        if device_id is not None and path is None:
            raise CommandError("--device needs --credentials or PRINTOS_CREDENTIALS")
        self._timeout_s = timeout_s
        auth: ReadyAuth | None
        tenant_auth: httpx.Auth | None
        if path is None:
            self._file = skipped(_CREDENTIALS_FILE, "none is given")
            auth = tenant_auth = connection.single_auth(os.environ)
        else:
            self._file, auth, tenant_auth = _read_credentials_file(path, device_id)
        self._auth = ObservedAuth(auth)
        self._client = connection.make_client_with(self._auth)
        self._origin, _ = parse_base_url(connection.base_url, allow_insecure_http=True)
        self._proxy = ProxyUrl(connection.network_settings(connection.base_url)["proxy"]).parse()
        url = outbox or os.environ.get("PRINTOS_OUTBOX")
        self._outbox = SqlOutbox(url) if url else None
        self._spooling: PrintOSClient | None = None
        # Without credentials and name, it would be opened for somebody else.
        if tenant_auth is not None or connection.account:
            self._spooling = connection.make_client_with(tenant_auth)

    async def run(self) -> AsyncIterator[Finding]:
        """Yield one finding for each step."""
        yield self._file
        peer, role = (self._origin, "server") if self._proxy is None else (self._proxy.origin, "proxy")
        name = await _check_name(peer, role, timeout_s=self._timeout_s)
        yield name
        connection = skipped("connection", "there is no address to connect to")
        if name.outcome == "ok":
            connection = await _check_connection(peer, role, timeout_s=self._timeout_s)
        yield connection
        if connection.outcome == "ok":
            proxy = "" if self._proxy is None else str(self._proxy)
            exchange = Exchange(self._origin, proxy, self._auth)
            async with self._client:
                await exchange.list_devices(self._client)
            findings = exchange.judge()
        else:
            findings = [skipped(check, "there is no connection") for check in CHECKS]
        for finding in findings:
            yield finding
        yield await self._check_outbox()

    async def _check_outbox(self) -> Finding:
        if self._outbox is None:
            return skipped("outbox", "none is set")
        if self._spooling is None:
            return skipped("outbox", "the credentials name its account, and cannot be used")
        return await check_outbox(self._spooling, self._outbox)


def _read_credentials_file(
    path: Path, device_id: str | None
) -> tuple[Finding, ReadyAuth | None, DeviceCredentials | None]:
    """Return the finding of a file, a device's credentials to check, and the credentials of all devices.

    By default those of ``*`` are checked, else those of the first device. A device without a line has those of ``*``,
    as everywhere. What cannot be used is None.
    """
    try:
        file = CredentialsFile(path)
    except CommandError as error:
        usual = (
            "check the path in --credentials or PRINTOS_CREDENTIALS, and that this user may read the file"
            if isinstance(error.__cause__, OSError)
            else "correct these lines; nothing in the file is used until all can be read"
        )
        return failed(_CREDENTIALS_FILE, error.problem, error.remedy or usual), None, None
    wanted = device_id or (DEFAULT_DEVICE if file.has_default else file.device_ids[0])
    if wanted not in file.device_ids and file.has_default:
        wanted = DEFAULT_DEVICE
    auth = file.auth_of(wanted)
    if auth is None:
        problem = f"{path} has no line for {wanted}, and none for {DEFAULT_DEVICE}"
        finding = failed(_CREDENTIALS_FILE, problem, f"add a line for {wanted}")
        return finding, None, file.device_credentials()
    devices = counted(len(set(file.device_ids) - {DEFAULT_DEVICE}), "device")
    default = (
        f"and {DEFAULT_DEVICE}"
        if file.has_default
        else f"and no {DEFAULT_DEVICE}, which printos devices needs"
    )
    finding = ok(
        _CREDENTIALS_FILE, f"{path} has {devices} {default}; the credentials of {wanted} are checked"
    )
    return finding, auth, file.device_credentials()


async def _check_name(peer: Origin, role: str, *, timeout_s: float) -> Finding:
    """Return whether a host has an address; ``role`` is ``server`` or ``proxy``."""
    remedy = f"check the host in {_setting(role)}, and this machine's DNS"
    try:
        async with asyncio.timeout(timeout_s):
            found = await asyncio.get_running_loop().getaddrinfo(
                peer.host, peer.port, type=socket.SOCK_STREAM
            )
    except TimeoutError:
        return failed("name", f"DNS did not answer for {peer.host} within {timeout_s:g} s", remedy)
    except (OSError, UnicodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else "") or "it is no host name"
        return failed("name", f"the {role} {peer.host} has no address: {reason}", remedy)
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    if addresses == [peer.host]:
        return ok("name", f"the {role} is given by its address, {peer.host}")
    more = f" and {len(addresses) - 3} more" if len(addresses) > 3 else ""
    return ok("name", f"the {role} {peer.host} is {', '.join(addresses[:3])}{more}")


async def _check_connection(peer: Origin, role: str, *, timeout_s: float) -> Finding:
    """Return whether a TCP connection can be made; no byte is sent over it."""
    where = f"the {role} {peer.host}, port {peer.port}"
    remedy = f"check host and port in {_setting(role)}, that the service runs, and the firewalls between"
    if role == "server":
        remedy += "; where the network has a proxy, set --proxy or PRINTOS_PROXY"
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(peer.host, peer.port)
    except TimeoutError:
        return failed("connection", f"no connection to {where} within {timeout_s:g} s", remedy)
    except ConnectionRefusedError:
        return failed("connection", f"{where} refuses connections", remedy)
    except OSError as error:
        return failed("connection", f"no connection to {where}: {error.strerror or error}", remedy)
    writer.transport.abort()
    return ok("connection", f"{where} accepts connections")


def _setting(role: str) -> str:
    return "--proxy, PRINTOS_PROXY or HTTPS_PROXY" if role == "proxy" else "--base-url or PRINTOS_BASE_URL"

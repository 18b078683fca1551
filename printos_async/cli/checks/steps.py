"""The steps in their order: credentials file, network, exchange with PrintOS, outbox."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from printos_async._config import parse_base_url
from printos_async._transport.proxy_url import ProxyUrl
from printos_async.cli.terminal.output import CommandError
from printos_async.outbox import SqlOutbox

from .credentials_file import CREDENTIALS_FILE, read_credentials_file
from .exchange import CHECKS, Exchange
from .finding import Finding, skipped
from .network import check_connection, check_name
from .observed_auth import ObservedAuth
from .outbox import check_outbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from printos_async._auth import ReadyAuth
    from printos_async._client import PrintOSClient
    from printos_async.cli.options.connection import Connection


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
            self._file = skipped(CREDENTIALS_FILE, "none is given")
            auth = tenant_auth = connection.single_auth(os.environ)
        else:
            self._file, auth, tenant_auth = read_credentials_file(path, device_id)
        self._auth = ObservedAuth(auth)
        self._client = connection.make_client_with(self._auth)
        base_url = connection.effective_base_url()
        self._origin, _ = parse_base_url(base_url, allow_insecure_http=True)
        self._proxy = ProxyUrl(connection.network_settings(base_url)["proxy"]).parse()
        url = outbox or os.environ.get("PRINTOS_OUTBOX")
        self._outbox = SqlOutbox(url) if url else None
        self._spooling: PrintOSClient | None = None
        # Without credentials and name, it would be opened for somebody else.
        if tenant_auth is not None or connection.account or os.environ.get("PRINTOS_ACCOUNT"):
            self._spooling = connection.make_client_with(tenant_auth)

    async def run(self) -> AsyncIterator[Finding]:
        """Yield one finding for each step."""
        yield self._file
        peer, role = (self._origin, "server") if self._proxy is None else (self._proxy.origin, "proxy")
        name = await check_name(peer, role, timeout_s=self._timeout_s)
        yield name
        connection = skipped("connection", "there is no address to connect to")
        if name.outcome == "ok":
            connection = await check_connection(peer, role, timeout_s=self._timeout_s)
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

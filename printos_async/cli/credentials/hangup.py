"""SIGHUP: the credentials are read again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from printos_async.cli.options.tls_files import read_tls_files_again
from printos_async.cli.terminal.output import complain

from .credentials_file import read_credentials_files_again
from .reread_file import QUIET_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from printos_async._client import PrintOSClient


def refresher(client: PrintOSClient) -> Callable[[], None]:
    """Return a function that reads the credentials of a client again, for a signal."""

    def read() -> None:
        read_credentials_files_again()  # now, and not when something is next sent: a bad line is reported at once
        client.refresh_credentials()

    def refresh() -> None:
        complain("SIGHUP: the credentials are read again")
        read_tls_files_again()
        # What was written just before the signal is whole by then.
        asyncio.get_running_loop().call_later(QUIET_S, read)

    return refresh

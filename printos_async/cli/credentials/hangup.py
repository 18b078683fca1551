"""SIGHUP: the files of credentials and TLS are read again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

from printos_async.cli.terminal.output import complain

from .reread_file import QUIET_S

if TYPE_CHECKING:
    from printos_async._client import PrintOSClient


class Rereadable(Protocol):
    """One file, or several that belong together."""

    def read_again(self) -> None:
        """Read what has changed, and report what cannot be used."""


reread_on_hangup: WeakSet[Rereadable] = WeakSet()
"""The files that a SIGHUP reads again."""


def reread_files(client: PrintOSClient) -> None:
    """Read the files of credentials and TLS again, and let the client ask for its secrets; for a signal."""
    complain("SIGHUP: the credentials are read again")
    # What was written just before the signal is whole by then.
    asyncio.get_running_loop().call_later(QUIET_S, _reread_files, client)


def _reread_files(client: PrintOSClient) -> None:
    for files in tuple(reread_on_hangup):
        files.read_again()
    client.refresh_credentials()

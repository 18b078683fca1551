"""SIGHUP: the credentials are read again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from printos_async.cli.terminal.output import complain

from .reread_file import QUIET_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from printos_async._client import PrintOSClient


def refresher(client: PrintOSClient) -> Callable[[], None]:
    """Return a function that reads the credentials of a client again, for a signal."""

    def refresh() -> None:
        complain("SIGHUP: the credentials are read again")
        # What was written just before the signal is whole by then.
        asyncio.get_running_loop().call_later(QUIET_S, client.refresh_credentials)

    return refresh

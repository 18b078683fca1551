"""Clients over a channel that a test makes: with bytes in memory, another clock, or a next version's generated client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from printos_async import PrintOSClient
from printos_async._execution.channel import Channel

if TYPE_CHECKING:
    from printos_async._transport import Transport

BASE_URL = "https://printos.test"
# Those of PrintOSClient, which has the defaults.
_SETTINGS: dict[str, Any] = {
    "auth": None,
    "account": None,
    "timeout_s": 10.0,
    "retry": None,
    "limit": None,
    "max_rate_per_s": None,
    "hooks": (),
    "max_body_bytes": 64 * 1024 * 1024,
    "allow_insecure_http": False,
}


class ClientOver(PrintOSClient):
    """A client over a channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel


def channel_over(transport: Transport, **settings: Any) -> Channel:
    """Return a channel whose requests the transport carries; the settings are a client's, and a channel's own.

    Latencies, from which the concurrency limit follows, are measured on the loop's clock, fake or not.
    """
    return Channel(
        BASE_URL,
        make_transport=lambda: transport,
        clock=lambda: asyncio.get_running_loop().time(),
        **{**_SETTINGS, **settings},
    )

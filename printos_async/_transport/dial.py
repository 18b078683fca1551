"""Making of one connection: TCP, with a proxy its tunnel, and TLS. What fails here was not sent."""

from __future__ import annotations

import asyncio
import errno
import ssl
from typing import TYPE_CHECKING, Any

from attrs import define, field

from .base import ExchangeError, Origin, ProxyExchangeError
from .proxy import ConnectExchange, Proxy, authority
from .tls import tls_problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from .connection import Connection

# A peer that does not answer the TLS goodbye must not keep a connection.
TLS_GOODBYE_S = 1.0
# Of making a connection: no file descriptor in this process or on this machine, no port, no buffer.
LOCAL_ERRORS = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS})


@define(eq=False, repr=False)
class Dial:
    """Makes one connection.

    Args:
        loop: The running event loop.
        origin: Where the requests go.
        proxy: Through which proxy, if any.
        ssl_context: For TLS, to the server and to an ``https`` proxy; None if neither speaks TLS.

    Attributes:
        stage: What is waited for, for the message of a timeout.
    """

    _loop: asyncio.AbstractEventLoop
    _origin: Origin
    _proxy: Proxy | None
    _ssl_context: ssl.SSLContext | None
    _to_proxy: bool = field(init=False)
    stage: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._to_proxy = self._proxy is not None
        self.stage = f"connection to the proxy {self._proxy}" if self._to_proxy else "connection"

    async def run(self, make: Callable[[], Connection]) -> Connection:
        """Return the connection, made by ``make``, on which requests can be written.

        Raises:
            ExchangeError: It cannot be made.
        """
        try:
            if self._proxy is not None and self._origin.scheme == "https":
                return await self._through_tunnel(self._proxy, make)
            peer = self._origin if self._proxy is None else self._proxy.origin
            _, connection = await self._loop.create_connection(
                make, peer.host, peer.port, **self._options(peer)
            )
        except TimeoutError:
            raise
        except (OSError, ValueError, OverflowError) as error:  # ValueError: a host that is no name
            failure = self._failure(error)
        else:
            return connection
        raise failure

    async def _through_tunnel(self, proxy: Proxy, make: Callable[[], Connection]) -> Connection:
        transport, exchange = await self._loop.create_connection(
            lambda: ConnectExchange(self._loop, proxy),
            proxy.origin.host,
            proxy.origin.port,
            **self._options(proxy.origin),
        )
        try:
            self.stage = f"answer of the proxy {proxy} to CONNECT"
            await exchange.open_tunnel(self._origin)
            self._to_proxy = False
            self.stage = f"TLS connection to {authority(self._origin)} through the proxy {proxy}"
            return await self._start_tls(transport, make())
        except BaseException:
            transport.abort()
            raise

    async def _start_tls(self, transport: asyncio.Transport, connection: Connection) -> Connection:
        assert self._ssl_context is not None  # noqa: S101  # tunnels are for https
        tls = await self._loop.start_tls(
            transport,
            connection,
            self._ssl_context,
            server_hostname=self._origin.host,
            ssl_shutdown_timeout=TLS_GOODBYE_S,
        )
        # asyncio returns None, or a transport without a socket, where the tunnel ended in the handshake.
        if tls is None or tls.is_closing() or tls.get_extra_info("socket") is None:
            raise ConnectionResetError("the tunnel ended during the TLS handshake")
        connection.connection_made(tls)
        return connection

    def _options(self, peer: Origin) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if peer.scheme == "https":
            options.update(
                ssl=self._ssl_context, server_hostname=peer.host, ssl_shutdown_timeout=TLS_GOODBYE_S
            )
        is_address = ":" in peer.host or peer.host[-1:].isdigit()
        # RFC 8305; uvloop has no such option. An address has no alternatives to race against, and asyncio's race
        # loses the socket of a winner that is cancelled in the same moment.
        if isinstance(self._loop, asyncio.BaseEventLoop) and not is_address:
            options.update(happy_eyeballs_delay=0.25)
        return options

    def _failure(self, error: Exception) -> ExchangeError:
        # The system's own words: host, port, errno, certificate. No part of the request.
        words = str(error) or type(error).__name__
        if isinstance(error, ssl.SSLError):
            peer = self._origin
            if self._to_proxy and self._proxy is not None:
                peer = self._proxy.origin
            words = tls_problem(error, authority(peer))
        if isinstance(error, OSError) and error.errno in LOCAL_ERRORS and not isinstance(error, ssl.SSLError):
            return ExchangeError(f"no connection: {words}", may_have_arrived=False, local=True)
        if self._to_proxy:
            return ProxyExchangeError(f"no connection to the proxy {self._proxy}: {words}")
        return ExchangeError(f"no connection: {words}", may_have_arrived=False)

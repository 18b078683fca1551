"""HTTP proxy: the CONNECT exchange that opens a tunnel, and the reasons with which proxies refuse."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, cast

from attrs import field, frozen
from httptools import HttpParserError, HttpParserUpgrade

from .base import Origin, ProxyExchangeError
from .response_reader import ResponseReader

if TYPE_CHECKING:
    from collections.abc import Iterable

# Of the answer to CONNECT, with the interim answers before it.
MAX_HEAD_BYTES = 65_536
# llhttp also takes RTSP and ICE for answers.
_STARTS = frozenset(b"H\r\n")
# One header may hold several challenges, with commas between them and within: RFC 9110, section 11.6.1. A scheme is
# not followed by "=", as a parameter is.
_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"')
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9-]{0,19})(?=\s+[^\s=]|\s*$)")


@frozen
class Proxy:
    """An HTTP proxy.

    Attributes:
        origin: Where it is.
        authorization: Value of ``Proxy-Authorization``, or None to send no credentials.
    """

    origin: Origin
    authorization: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return str(self.origin)

    @property
    def header_lines(self) -> list[str]:
        """The header with the credentials, if there are any."""
        return [] if self.authorization is None else [f"proxy-authorization: {self.authorization}"]

    def refusal(self, status: int, headers: Iterable[tuple[str, str]], origin: Origin) -> ProxyExchangeError:
        """Return the failure for an answer of the proxy's own; ``origin`` is where the request was to go."""
        return ProxyExchangeError(f"the proxy {self} {self._reason(status, headers, origin)}", status=status)

    def _reason(self, status: int, headers: Iterable[tuple[str, str]], origin: Origin) -> str:
        server = authority(origin)
        if status == 407:
            # Nothing but the names of schemes: challenges are the proxy's own words.
            values = [value for name, value in headers if name == "proxy-authenticate"]
            schemes = sorted({scheme for value in values for scheme in _schemes(value)})
            if schemes and "basic" not in {scheme.lower() for scheme in schemes}:
                return (
                    f"asks for credentials of the kind {', '.join(schemes)} (407); only Basic can be sent: "
                    "have Basic allowed there, or use a local proxy that signs in"
                )
            if self.authorization is None:
                return "asks for credentials (407); give them in its URL: http://user:password@host:port"
            return "refuses its credentials (407); check the user and the password in its URL"
        if status in {401, 403, 405}:
            return f"does not allow connections to {server} ({status}); have them allowed there"
        if status in {502, 503, 504}:
            return f"cannot reach {server} ({status}); check the host, and the proxy's own way out"
        return f"refuses to connect to {server} ({status})"


def _schemes(challenges: str) -> list[str]:
    """Return the names of the schemes in a value of ``Proxy-Authenticate``."""
    parts = _QUOTED.sub('""', challenges).split(",")
    return [found[1] for part in parts if (found := _SCHEME.match(part))]


def authority(origin: Origin) -> str:
    """Return host and port, as CONNECT names them."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    return f"{host}:{origin.port}"


class ConnectExchange(asyncio.Protocol):
    """Protocol of a connection to a proxy until its tunnel is open; it then belongs to another protocol."""

    def __init__(self, loop: asyncio.AbstractEventLoop, proxy: Proxy) -> None:
        self._loop = loop
        self._proxy = proxy
        self._transport: asyncio.Transport | None = None
        self._reader = ResponseReader()
        self._answer: asyncio.Future[None] | None = None

    async def open_tunnel(self, origin: Origin) -> None:
        """Send CONNECT, and return when the proxy has connected to ``origin``.

        Raises:
            ProxyExchangeError: It refused, ended the connection, or what it sent is not HTTP.
        """
        transport = self._transport
        if transport is None:
            raise self._failure("closed the connection as soon as it was made")
        self._answer = self._loop.create_future()
        # Not kept: a traceback may show the values of locals.
        transport.write(_connect_head(self._proxy, origin))
        reader = self._reader
        try:
            await self._answer
        finally:
            reader.release()
        if not 200 <= reader.status <= 299:
            raise self._proxy.refusal(reader.status, reader.headers, origin)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        # uvloop's transports do not derive from asyncio.Transport.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read the answer's head; interim answers (1xx) are forgotten."""
        answer, reader = self._answer, self._reader
        if answer is None or answer.done() or reader.parser is None:
            if self._transport is not None:  # nobody asked
                self._transport.abort()
            return
        malformed = not reader.received_bytes and data[0] not in _STARTS
        reader.received_bytes += len(data)
        try:
            if not malformed:
                # A line may end without CR: RFC 9112, section 2.2. llhttp insists on it.
                reader.parser.feed_data(data.replace(b"\r", b"").replace(b"\n", b"\r\n"))
        except (HttpParserError, HttpParserUpgrade):
            malformed = True
        if reader.has_head:
            if reader.status <= 299 and (reader.body_bytes or reader.has_excess or malformed):
                # A TLS server does not speak first: these bytes are not the server's.
                answer.set_exception(self._failure("sent more than an answer to CONNECT"))
            else:
                answer.set_result(None)
        elif malformed:
            answer.set_exception(self._failure("sent something else than HTTP in answer to CONNECT"))
        elif reader.received_bytes > MAX_HEAD_BYTES:
            answer.set_exception(self._failure("sent too long a header in answer to CONNECT"))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """End the exchange."""
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(self._failure("ended the connection instead of answering CONNECT"))

    def _failure(self, problem: str) -> ProxyExchangeError:
        return ProxyExchangeError(f"the proxy {self._proxy} {problem}")


def _connect_head(proxy: Proxy, origin: Origin) -> bytes:
    server = authority(origin)
    lines = [f"CONNECT {server} HTTP/1.1", f"host: {server}", *proxy.header_lines, "", ""]
    return "\r\n".join(lines).encode("ascii")

"""HTTP proxy: the CONNECT exchange that opens a tunnel, and the reasons with which proxies refuse."""

from __future__ import annotations

import asyncio
import base64
import re
from typing import TYPE_CHECKING, cast

from attrs import field, frozen
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from .base import Origin, ProxyExchangeError

if TYPE_CHECKING:
    from collections.abc import Iterable

# Of the answer to CONNECT, with the interim answers before it.
MAX_HEAD_BYTES = 65_536
_START = b"HTTP/1."
# A line may end without CR: RFC 9112, section 2.2.
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_END_OF_LINE = re.compile(rb"\r?\n")
# One header may hold several challenges, with commas between them and within: RFC 9110, section 11.6.1. A scheme is
# not followed by "=", as a parameter is.
_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"')
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9-]{0,19})(?=\s+[^\s=]|\s*$)")


@frozen
class Proxy:
    """An HTTP proxy.

    Attributes:
        origin: Where it is.
        authorization: Value of ``Proxy-Authorization``, Basic credentials; None to send none.
    """

    origin: Origin
    authorization: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return str(self.origin)

    @property
    def header_lines(self) -> list[str]:
        """The header with the credentials, if there are any."""
        return [] if self.authorization is None else [f"proxy-authorization: {self.authorization}"]

    @property
    def secrets(self) -> tuple[str, ...]:
        """The credentials as they are sent, and the password: what must not be repeated in any message."""
        if self.authorization is None:
            return ()
        credentials = self.authorization.removeprefix("Basic ")
        # The user is no secret, as little as a key or a login: one such as "printos" would be cut out of every message.
        # Bytes that are not UTF-8 are replaced, as in the answers that are searched for it.
        password = base64.b64decode(credentials).partition(b":")[2].decode("utf-8", "replace")
        return credentials, password

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
        self._answer: asyncio.Future[tuple[int, list[tuple[str, str]]]] | None = None
        self._data = bytearray()
        self._received_bytes = 0

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
        status, headers = await self._answer
        if not 200 <= status <= 299:
            raise self._proxy.refusal(status, headers, origin)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        # uvloop's transports do not derive from asyncio.Transport.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read the answer's head; interim answers (1xx) are forgotten."""
        answer = self._answer
        if answer is None or answer.done():
            if self._transport is not None:  # nobody asked
                self._transport.abort()
            return
        start = max(len(self._data) - 2, 0)
        self._data += data
        self._received_bytes += len(data)
        status = 0
        while status < 200 and (end := _END_OF_HEAD.search(self._data, start)):
            head, start = bytes(self._data[: end.end()]), 0
            del end  # the data cannot be cut while it is held
            del self._data[: len(head)]
            status, headers = _parse(head)
            if not 100 <= status <= 999 or status == 101:
                answer.set_exception(self._failure("sent something else than HTTP in answer to CONNECT"))
                return
        if status >= 200:
            if status <= 299 and self._data:
                # A TLS server does not speak first: these bytes are not the server's.
                answer.set_exception(self._failure("sent more than an answer to CONNECT"))
            else:
                answer.set_result((status, headers))
        elif not _START.startswith(self._data[: len(_START)]):
            answer.set_exception(self._failure("sent something else than HTTP in answer to CONNECT"))
        elif self._received_bytes > MAX_HEAD_BYTES:
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


def _parse(head: bytes) -> tuple[int, list[tuple[str, str]]]:
    """Return status and headers of one whole head; the status is 0 if it is no answer of HTTP/1."""
    found = _Headers()
    parser = HttpResponseParser(found)
    try:
        if head.startswith(_START):  # llhttp also takes RTSP and ICE for answers
            parser.feed_data(_END_OF_LINE.sub(b"\r\n", head))
            return parser.get_status_code(), found.headers
    except (HttpParserError, HttpParserUpgrade):
        pass
    return 0, []


class _Headers:
    def __init__(self) -> None:
        self.headers: list[tuple[str, str]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1").lower(), value.decode("latin-1").strip()))

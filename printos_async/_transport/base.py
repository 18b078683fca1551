"""Interface of the transports: request, response, failure and the ``Transport`` protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Awaitable

# Bytes kept of a body of which only the beginning is of use: an error's, which is quoted, and an acknowledgement's.
EXCERPT_BYTES = 65_536
# RFC 9110, section 6.4.1: they have no body, whatever their header says.
BODILESS = frozenset({204, 304})
DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Where requests go: ``scheme`` is ``http`` or ``https``, ``host`` is ASCII, IPv6 without brackets."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"


@define(repr=False, eq=False)
class RawRequest:
    """One request; without a repr of its headers and body, for they hold credentials.

    Attributes:
        origin: Where it goes.
        method: In capitals.
        target: Path and query, percent-encoded.
        headers: Names in lower case, without ``host`` and ``content-length``, which the transport adds.
        body: The bytes to send.
    """

    origin: Origin
    method: str
    target: str
    # Said for each of them too: some look into attrs classes whatever their repr.
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(default=b"", repr=False)


@define(repr=False, eq=False)
class RawResponse:
    """One complete answer, its body still compressed if the server compressed it.

    Attributes:
        status: The status code.
        headers: Names in lower case, as received, duplicates kept; decoded as Latin-1.
        body: The body, at most ``max_body_bytes`` of it, and at most ``EXCERPT_BYTES`` unless ``status`` is 2xx.
        overflow: The body was longer than that and was cut.
        had_login: A login or the like was sent first: the time of the attempt is not that of one request.
    """

    status: int
    headers: list[tuple[str, str]] = field(repr=False)
    body: bytes = field(repr=False)
    overflow: bool = False
    had_login: bool = False

    def header(self, name: str) -> str | None:
        """Return the first value of a header, or None; ``name`` in lower case."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


def has_length(headers: list[tuple[str, str]]) -> bool:
    """Return whether headers announce a body by its length."""
    return any(name == "content-length" and value.strip("0") for name, value in headers)


class ExchangeError(Exception):
    """No complete answer.

    Attributes:
        reason: What happened, for people.
        may_have_arrived: False only where it is known that not one byte of the request was written.
        timed_out: The deadline passed.
        local: This machine has nothing left to make a connection with.
    """

    def __init__(
        self, reason: str, *, may_have_arrived: bool, timed_out: bool = False, local: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.may_have_arrived = may_have_arrived
        self.timed_out = timed_out
        self.local = local


class ProxyExchangeError(ExchangeError):
    """The proxy cannot be reached, or refuses; not one byte of the request reached the server.

    Attributes:
        status: The status code with which it refuses, such as 407; None where it sent no answer.
    """

    def __init__(self, reason: str, *, status: int | None = None) -> None:
        super().__init__(reason, may_have_arrived=False)
        self.status = status


class Transport(Protocol):
    """Carries requests; belongs to one event loop."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that must not be repeated in any message: what it adds to requests may come back in an answer."""
        ...

    def send(self, request: RawRequest, *, deadline: float, max_body_bytes: int) -> Awaitable[RawResponse]:
        """Send one request and return its answer.

        Cancelling withdraws a request that was not written; one that was goes on without its caller and ends
        at its deadline.

        Args:
            request: What to send.
            deadline: Time of the event loop's clock by which the whole exchange has ended.
            max_body_bytes: Bytes of a success's body, as transferred, that are kept at most.

        Raises:
            ExchangeError: No complete answer came. By the call itself or by the awaitable it returns.
        """
        ...

    async def aclose(self) -> None:
        """Close what this transport opened; requests still in flight end with a ``ExchangeError``."""
        ...
